"""Every process of the system on one machine, in one list: how it is run, when it is ready, where its metrics are.

In: settings, the chosen broker, and the feed of the exchange. Out: `Service` objects for the supervisor, the
readiness display and Prometheus' list of targets. Services retry their own dependencies, so the list has no
dependency graph; it only says what is worth starting early and in which order a stop drains.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from deploy.local import object_storage, probes
from deploy.local.broker import Broker, answers
from deploy.local.errors import LaunchError
from deploy.local.settings import LocalSettings, kafka_port_names
from flows.settings import prefect_environment

EMBEDDED_RETENTION = str(256 << 20)  # bytes a partition: the embedded broker keeps its whole log in memory
STREAM_FLOWS = ("bronze", "enrichment", "vwap", "alerts", "orderbook")


@dataclass(frozen=True)
class Feed:
    """What the exchange prints: its own market, or a recorded one."""

    file: Path | None = None
    """Capture to replay; None: the simulated market."""
    speed: float = 1.0
    """Times the recorded speed; 0: as fast as it goes."""

    def environment(self) -> dict[str, str]:
        """Settings of the exchange for this feed."""
        if self.file is None:
            return {}
        return {
            "TICKHOUSE_EXCHANGE_FEED": "replay",
            "TICKHOUSE_REPLAY_FILE": str(self.file),
            "TICKHOUSE_REPLAY_SPEED": repr(self.speed),
        }


@dataclass(frozen=True)
class Service:
    """One supervised process."""

    name: str
    command: list[str]
    ready: Callable[[], bool]
    """Cheap probe: true once the service is connected and working."""
    stop_step: int
    """A stop works through these in rising order; equal ones stop together."""
    early: bool = False
    """Started at once; the others follow when the early ones marked `gate` are ready."""
    gate: bool = False
    metrics_port: int | None = None
    ports: tuple[str, ...] = ()
    """Names of the settings of the ports it listens on."""
    environment: dict[str, str] = field(default_factory=dict)


def service_environment(settings: LocalSettings, broker: Broker) -> dict[str, str]:
    """What all services share: the resolved addresses, and limits that keep a dozen processes small."""
    own = {}
    if broker.kind == "embedded":
        own["TICKHOUSE_KAFKA_RETENTION_BYTES"] = EMBEDDED_RETENTION
    if len(broker.commands) > 1:
        own["TICKHOUSE_KAFKA_REPLICATION"] = str(len(broker.commands))
    return {
        **{name: os.environ.get(name, value) for name, value in own.items()},
        **settings.port_environment(),
        "TICKHOUSE_DATA_DIR": str(settings.root),
        "TICKHOUSE_KAFKA_BOOTSTRAP": broker.address,
        "TICKHOUSE_WS_URL": f"ws://127.0.0.1:{settings.exchange_port}",
        "TICKHOUSE_LAUNCHED_FROM": str(settings.root),  # how leftovers of a dead supervisor are recognised
        **(object_storage.environment(settings) if settings.storage == "s3" else {}),
        **prefect_environment(settings.root, settings.prefect_port),
        "PYTHONUNBUFFERED": "1",
        "TZ": "UTC",
        # glibc gives each thread its own 64 MB arena otherwise; thread pools as wide as the machine, in ten
        # processes at once, only fight each other.
        "MALLOC_ARENA_MAX": "2",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def services(settings: LocalSettings, broker: Broker, feed: Feed) -> list[Service]:
    """All services of this machine, in the order in which they are shown."""
    listed = broker_services(broker)
    if settings.storage == "s3":
        listed.append(_storage(settings))
    listed.append(exchange(settings, feed))
    listed.append(_python("bridge", "dataflows.bridge", settings.bridge_metrics_port, stop_step=2))
    for name in STREAM_FLOWS:
        port = getattr(settings, f"{name}_metrics_port")
        listed.append(_python(name, f"dataflows.{name}", port, stop_step=3))
    listed.append(
        Service(
            name="prefect",
            command=[sys.executable, "-m", "flows.server"],
            ready=partial(probes.serves, f"http://127.0.0.1:{settings.prefect_port}/api/health"),
            stop_step=5,
            early=True,  # its first start creates a database: the longest of all
            ports=("prefect_port",),
        )
    )
    listed.append(_python("flows", "flows.deployments", settings.flows_metrics_port, stop_step=4))
    listed.append(_python("api", "api", settings.api_port, stop_step=4, port="api_port"))
    prometheus = shutil.which("prometheus")
    if prometheus is not None:
        listed.append(_prometheus(prometheus, settings))
    return listed


def broker_services(broker: Broker) -> list[Service]:
    """`broker`, or `broker-1` and so on where there are several; none when it runs elsewhere."""
    listed = []
    for number, (command, address) in enumerate(zip(broker.commands, broker.address.split(","), strict=False), 1):
        name = "broker" if len(broker.commands) == 1 else f"broker-{number}"
        used = kafka_port_names(number) if broker.kind == "kafka" else ("kafka_port",)
        listed.append(Service(name, command, partial(answers, address), 6, True, True, None, used))
    return listed


def _storage(settings: LocalSettings) -> Service:
    return Service(
        name="storage",
        command=object_storage.command(settings),
        ready=partial(object_storage.answers, settings),
        stop_step=6,  # after everything that writes tables
        early=True,
        gate=True,
        ports=object_storage.PORTS,
    )


def exchange(settings: LocalSettings, feed: Feed) -> Service:
    """The exchange with `feed`."""
    return Service(
        name="exchange",
        command=[sys.executable, "-m", "simulator"],
        ready=partial(probes.says_ready, settings.exchange_metrics_port),
        stop_step=1,
        early=True,
        metrics_port=settings.exchange_metrics_port,
        ports=("exchange_port", "exchange_metrics_port"),
        environment=feed.environment(),
    )


def _python(name: str, module: str, metrics_port: int, stop_step: int, port: str | None = None) -> Service:
    return Service(
        name=name,
        command=[sys.executable, "-m", module],
        ready=partial(probes.says_ready, metrics_port),
        stop_step=stop_step,
        metrics_port=metrics_port,
        ports=(port or f"{name}_metrics_port",),
    )


def _prometheus(binary: str, settings: LocalSettings) -> Service:
    return Service(
        name="prometheus",
        command=[
            binary,
            f"--config.file={settings.run_dir / 'prometheus.yml'}",
            f"--storage.tsdb.path={settings.root / 'prometheus'}",
            "--storage.tsdb.retention.time=7d",
            "--storage.tsdb.retention.size=512MB",
            f"--web.listen-address=127.0.0.1:{settings.prometheus_port}",
            "--log.level=warn",
        ],
        ready=partial(probes.serves, f"http://127.0.0.1:{settings.prometheus_port}/-/ready"),
        stop_step=5,
        ports=("prometheus_port",),
    )


def feed_from(options: dict[str, str]) -> Feed:
    """Read `feed=`, `file=` and `speed=`.

    Raises:
        LaunchError: a replay without a file, a file that is not there, or a speed that is no number ≥ 0.
    """
    kind = options.get("feed", "replay" if "file" in options else "simulated")
    if kind not in ("simulated", "replay"):
        raise LaunchError(f"feed={kind} is not known: use feed=simulated or feed=replay file=PATH.")
    if kind == "simulated":
        if "file" in options or "speed" in options:
            raise LaunchError("file= and speed= belong to feed=replay: add it, or leave them out.")
        return Feed()
    if "file" not in options:
        raise LaunchError("feed=replay needs file=PATH, a recorded capture.")
    file = Path(options["file"]).expanduser().resolve()
    if not file.is_file():
        raise LaunchError(f"{file} is not a file: give the path of a recorded capture.")
    try:
        speed = float(options.get("speed", "1"))
    except ValueError:
        speed = -1.0
    if not 0 <= speed < float("inf"):
        raise LaunchError(f"speed={options['speed']} is not a number ≥ 0 (0: as fast as it goes).")
    return Feed(file, speed)
