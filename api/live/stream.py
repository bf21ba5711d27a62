"""``GET /api/v1/live``: the hub's events as Server-Sent Events to one reader.

Query: ``symbol`` (repeated or comma separated; none = all) and ``kinds`` of trade, quote, book, bar, alert.
The answer begins with ``hello``, ``forming`` candles and the latest events of each kind, then ``live``; from there
on every event comes once, in order. After some seconds without any, ``state`` shows that the connection lives and
whether the broker does. ``bye`` says why the server ends a stream; a reader connects again and gets a fresh
snapshot.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from flask import Blueprint, Response, request

from api import metrics
from api.errors import ApiError
from api.live.events import KINDS
from api.live.hub import Hub, Reader, TooManyStreams

HEARTBEAT_SECONDS = 5.0
"""Also how long a closed connection may go unnoticed: only writing shows it."""
MAX_SYMBOLS = 100


def live_routes(hub: Hub) -> Blueprint:
    """The live stream and the market's current prices, served from ``hub``."""
    routes = Blueprint("live", __name__)

    @routes.get("/api/v1/live")
    def live() -> Response:
        symbols = frozenset(_list_argument("symbol"))
        kinds = frozenset(_list_argument("kinds")) or KINDS
        if len(symbols) > MAX_SYMBOLS:
            raise ApiError(400, "BAD_USER_INPUT", f"symbol: at most {MAX_SYMBOLS}; leave it out for all of them")
        if not kinds <= KINDS:
            raise ApiError(400, "BAD_USER_INPUT", f"kinds: choose from {', '.join(sorted(KINDS))}")
        try:
            reader, snapshot = hub.subscribe(symbols, kinds)
        except TooManyStreams:
            raise ApiError(503, "TOO_MANY_STREAMS", "no live stream is free; try again later") from None
        response = Response(_EventStream(hub, reader, snapshot), mimetype="text/event-stream")
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Accel-Buffering"] = "no"  # a proxy that buffers would hold events back
        return response

    return routes


def _list_argument(name: str) -> list[str]:
    return [part for value in request.args.getlist(name) for part in value.split(",") if part]


class _EventStream:
    """The body. An object, not a generator: a generator that was never begun would not run its clean-up."""

    def __init__(self, hub: Hub, reader: Reader, snapshot: bytes) -> None:
        self._hub = hub
        self._reader = reader
        self._snapshot: bytes | None = snapshot
        self._ended = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._snapshot is not None:
            text, self._snapshot = self._snapshot, None
            return text
        if self._ended:
            raise StopIteration
        batch = self._reader.take(HEARTBEAT_SECONDS)
        if batch is None:
            self._ended = True
            reason = b"slow" if self._reader.cut_off else b"stopping"
            return b'event: bye\ndata: {"reason":"%s"}\n\n' % reason
        if not batch:
            return self._hub.state_event()
        now = time.time()
        for sent in batch:
            if not sent.replayed:
                metrics.LIVE_LATENCY.observe(max(0.0, now - sent.event.event_us / 1e6))
        return b"".join([sent.text for sent in batch])

    def close(self) -> None:
        """Called by the server when the connection ends, however it ends."""
        self._hub.unsubscribe(self._reader)
