"""A broker of its own, for tests and benchmarks: started, killed, and started again on the same data."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from deploy.local import broker as brokers
from deploy.local.kafka import Ports

START_SECONDS = 60
CACHE = Path(os.environ.get("TICKHOUSE_CACHE_DIR") or Path(__file__).parents[1] / ".tickhouse" / "cache")
"""Where Kafka's jars are kept between runs: the cache of this checkout."""


def free_ports(count: int) -> list[int]:
    """Held all at once, so that they differ."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(server.getsockname()[1]) for server in held]
    for server in held:
        server.close()
    return ports


class LocalBroker:
    """``kind`` is kafka or embedded, as ``wanted`` (maybe auto) came to; ``properties``: more for Apache Kafka."""

    def __init__(self, wanted: str, home: Path, properties: Mapping[str, str]) -> None:
        chosen = brokers.prepare(wanted, CACHE, home, [Ports(*free_ports(2))])
        assert chosen.commands, f"{wanted}: a broker that is started here is kafka, embedded or auto"
        self.kind, self.address, (self._command,) = chosen.kind, chosen.address, chosen.commands
        self.home, self._log = home, home / "broker.log"
        if properties:
            with (home / "kafka" / "server.properties").open("a") as file:
                file.writelines(f"{name}={value}\n" for name, value in properties.items())

    def start(self) -> None:
        """Returns when it answers."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        deadline = time.monotonic() + START_SECONDS
        while not brokers.answers(self.address):
            assert self._process.poll() is None, f"the {self.kind} broker died:\n{self._log.read_text()}"
            assert time.monotonic() < deadline, f"the {self.kind} broker is not ready:\n{self._log.read_text()}"

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that does not help."""
        self._process.terminate()
        try:
            self._process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.kill()


@contextmanager
def local_broker(wanted: str, home: Path, properties: Mapping[str, str] | None = None) -> Iterator[LocalBroker]:
    """An empty broker that runs, with its files under ``home``; topics are not created by themselves."""
    broker = LocalBroker(wanted, home, properties or {})
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()
