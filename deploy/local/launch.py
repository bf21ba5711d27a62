"""What is running, remembered between commands: `just down` must find what `just up` started.

In: the resolved settings, broker and feed of a start. Out: `<data_dir>/run/launch.json`, replaced in one move. It
is worth nothing once the system is down.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from deploy.local.broker import Broker
from deploy.local.errors import LaunchError
from deploy.local.services import Feed, Service, service_environment, services
from deploy.local.settings import LocalSettings


@dataclass(frozen=True)
class Launch:
    """One start of the system."""

    settings: LocalSettings
    broker: Broker
    feed: Feed

    def services(self) -> list[Service]:
        """Every service of this start."""
        return services(self.settings, self.broker, self.feed)

    def environment(self) -> dict[str, str]:
        """What all of them share."""
        return service_environment(self.settings, self.broker)

    def save(self) -> None:
        """Remember this start."""
        self.settings.run_dir.mkdir(parents=True, exist_ok=True)
        feed = {"file": str(self.feed.file) if self.feed.file else None, "speed": self.feed.speed}
        ports, storage = self.settings.ports(), self.settings.storage
        said = {"broker": asdict(self.broker), "feed": feed, "ports": ports, "storage": storage}
        path = _path(self.settings)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(said, indent=2))
        os.replace(temporary, path)

    @classmethod
    def load(cls, settings: LocalSettings) -> Self | None:
        """The start that was remembered last under this data directory, with the ports it used.

        Raises:
            LaunchError: another version of Tickhouse wrote it.
        """
        path = _path(settings)
        if not path.exists():
            return None
        said = json.loads(path.read_text())
        try:
            file = said["feed"]["file"]
            return cls(
                settings.model_copy(update=said["ports"] | {"storage": said["storage"]}),
                Broker(**said["broker"]),
                Feed(Path(file) if file else None, said["feed"]["speed"]),
            )
        except (KeyError, TypeError) as error:
            raise LaunchError(
                f"{settings.root} was made by another version of Tickhouse ({path.name}: {error}) and "
                "is untouched: start that version, set another TICKHOUSE_DATA_DIR, or `just reset`."
            ) from error

    def addresses(self) -> dict[str, str]:
        """What a person wants to open, by what it is."""
        local, listed = self.settings, {service.name for service in self.services()}
        api = f"http://127.0.0.1:{local.api_port}"
        shown = {
            "Live page": f"{api}/",
            "GraphQL": f"{api}/graphql",
            "Prefect": f"http://127.0.0.1:{local.prefect_port}/",
            "Prometheus": f"http://127.0.0.1:{local.prometheus_port}/",
            "Exchange": f"ws://127.0.0.1:{local.exchange_port}",
            "Kafka": self.broker.address,
            "S3": f"http://127.0.0.1:{local.s3_port}",
            "Iceberg REST": f"http://127.0.0.1:{local.iceberg_port}",
            "Data and logs": str(local.root),
        }
        if "prometheus" not in listed:
            del shown["Prometheus"]
        if "storage" not in listed:
            del shown["S3"], shown["Iceberg REST"]
        return shown


def _path(settings: LocalSettings) -> Path:
    return settings.run_dir / "launch.json"
