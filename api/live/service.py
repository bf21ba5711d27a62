"""The live part as one thing: a hub, and the consumer that feeds it."""

from __future__ import annotations

import secrets

from api.live.consumer import LiveConsumer
from api.live.hub import Hub
from api.settings import ApiSettings


class Live:
    """Start it once per process; stop it before the server waits for its open connections."""

    def __init__(self, settings: ApiSettings) -> None:
        self.hub = Hub(secrets.token_hex(4), settings.api_live_streams, settings.api_live_queue)
        self.consumer = LiveConsumer(settings, self.hub)

    def start(self) -> None:
        """Begin to follow the topics."""
        self.consumer.start()

    def stop(self) -> None:
        """End all streams, then the consumer."""
        self.hub.close()
        self.consumer.stop()
