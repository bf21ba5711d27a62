"""What the tests of the exchange's outer parts share: small feeds, free ports, a real exchange process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection

from simulator.events import format_timestamp
from simulator.faults import Faults
from simulator.journal import Journal
from simulator.market import DataQuality
from simulator.metrics import ExchangeMetrics
from simulator.publisher import Publisher
from simulator.server import ExchangeServer

DEADLINE = 20.0


@dataclass
class ListFeed:
    """A feed of prepared events."""

    pairs: Sequence[tuple[int, bytes]] = ()
    session_id: str = "session-1"
    exchange: str = "TEST"
    symbols: list[str] = field(default_factory=lambda: ["AAPL"])

    def events(self) -> Iterator[tuple[int, bytes]]:
        yield from self.pairs


def make_frame(sequence: int, padding: int = 0) -> bytes:
    stamp = format_timestamp(1_771_425_000_000_000 + 1_000 * sequence)
    data = {"event_id": f"e-{sequence}", "timestamp": stamp, "sequence": sequence, "padding": "x" * padding}
    return json.dumps({"event_type": "MarketStats", "data": data}).encode()


@pytest.fixture
def frame() -> Callable[..., bytes]:
    """A frame with the given sequence."""
    return make_frame


@pytest.fixture
def frames() -> Callable[..., list[bytes]]:
    """Frames first … last."""
    return lambda first, last, padding=0: [make_frame(n, padding) for n in range(first, last + 1)]


@pytest.fixture
def feed() -> type[ListFeed]:
    return ListFeed


@pytest.fixture
def free_port() -> Callable[[], int]:
    def pick() -> int:
        with socket.create_server(("127.0.0.1", 0)) as server:
            return int(server.getsockname()[1])

    return pick


@dataclass
class Running:
    """A server in this process, on a port of its own, with its journal."""

    journal: Journal
    server: ExchangeServer
    registry: CollectorRegistry
    metrics: ExchangeMetrics
    faults: Faults

    @property
    def connections(self) -> set[ServerConnection]:
        """The open ones, as the library has them."""
        assert self.server._server is not None
        return self.server._server.connections

    def backlogs(self) -> list[int]:
        """Bytes that wait in this process for each client to take them."""
        return [connection.transport.get_write_buffer_size() for connection in self.connections]

    def publisher(
        self, pairs: Sequence[tuple[int, bytes]], *, speed: float, on_published: Callable[[], None]
    ) -> Publisher:
        """Of prepared events, the first of them due now by the monotonic clock."""
        return Publisher(
            ListFeed(pairs),
            self.journal,
            self.metrics,
            self.faults,
            clock=lambda: time.monotonic_ns() // 1000,
            speed=speed,
            start_us=None,
            on_published=on_published,
        )

    def publish(self, frames: Sequence[bytes]) -> None:
        self.journal.append(frames)
        self.server.published()

    def connect(self, query: str = "", *, batch: bool = False, **options: object) -> connect:
        chosen: dict[str, object] = {
            "subprotocols": ["tickhouse.batch.v1"] if batch else None,
            "compression": None,
            "max_queue": None,  # a full queue would keep the client from seeing the close
            **options,
        }
        return connect(f"ws://127.0.0.1:{self.server.port}/{query}", **chosen)

    def value(self, name: str, **labels: str) -> float:
        found = self.registry.get_sample_value(name, labels)
        assert found is not None, name
        return found

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < end, what
            await asyncio.sleep(0.01)


@pytest.fixture
def running(tmp_path: Path) -> Callable[..., contextlib.AbstractAsyncContextManager[Running]]:
    """A started server; ``sessions`` are journalled before, the last one is current.

    The journal is in ``root``, or in ``tmp_path``.
    """

    @contextlib.asynccontextmanager
    async def start(
        sessions: Sequence[tuple[str, Sequence[bytes]]] = (("session-1", ()),),
        rates: DataQuality | None = None,
        max_bytes: int = 1 << 30,
        segment_bytes: int = 4 << 20,
        keep_all: bool = False,
        root: Path | None = None,
        **options: object,
    ) -> AsyncIterator[Running]:
        registry = CollectorRegistry()
        metrics = ExchangeMetrics(registry)
        journal = Journal(root or tmp_path / "journal", max_bytes=max_bytes, segment_bytes=segment_bytes)
        for session_id, frames in sessions:
            journal.open_session(ListFeed(session_id=session_id), keep_all=keep_all)
            journal.append(frames)
        faults = Faults(rates or DataQuality(), seed=1)
        server = ExchangeServer(journal, metrics, faults, host="127.0.0.1", port=0, **options)
        await server.start()
        try:
            yield Running(journal, server, registry, metrics, faults)
        finally:
            await server.stop()
            journal.close()

    return start


@dataclass
class ExchangeProcess:
    """A real ``python -m simulator`` with its log."""

    process: subprocess.Popen[bytes]
    port: int
    metrics_port: int
    log_path: Path

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"

    def log(self) -> str:
        return self.log_path.read_text()

    def wait_for_log(self, text: str) -> None:
        end = time.monotonic() + DEADLINE
        while text not in self.log():
            assert time.monotonic() < end, f"no {text!r} in:\n{self.log()}"
            assert self.process.poll() is None, self.log()
            time.sleep(0.02)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE)

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE)


@pytest.fixture
def exchange_process(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Callable[..., ExchangeProcess]]:
    """Starts exchanges on free ports with their data in tmp_path; those still running are killed at the end."""
    started: list[ExchangeProcess] = []

    def start(*options: str, ready: bool = True, **environment: str) -> ExchangeProcess:
        port, metrics_port = free_port(), free_port()
        log_path = tmp_path / f"exchange-{len(started)}.log"
        inherited = {name: text for name, text in os.environ.items() if not name.startswith("TICKHOUSE_")}
        settings = {
            "TICKHOUSE_DATA_DIR": str(tmp_path / "data"),
            "TICKHOUSE_EXCHANGE_PORT": str(port),
            "TICKHOUSE_EXCHANGE_METRICS_PORT": str(metrics_port),
            **environment,
        }
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "simulator", *options],
                cwd=Path(__file__).parents[2],
                env={**inherited, **settings},
                stderr=log,
            )
        running = ExchangeProcess(process, int(settings["TICKHOUSE_EXCHANGE_PORT"]), metrics_port, log_path)
        started.append(running)
        if ready:
            running.wait_for_log("metrics at http")
        return running

    yield start
    for running in started:
        if running.process.poll() is None:
            running.kill()
