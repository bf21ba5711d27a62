"""A real broker for the whole test run: Apache Kafka where Java is installed, else the embedded one.

`TICKHOUSE_TEST_BROKER=kafka|embedded|auto` decides by hand.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local import broker as brokers

START_SECONDS = 60


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(server.getsockname()[1]) for server in held]
    for server in held:
        server.close()
    return ports


@pytest.fixture(scope="session")
def broker_cache() -> Path:
    """Where Kafka's jars are kept between test runs: the cache of this checkout."""
    root = Path(__file__).parent.parent
    return Path(os.environ.get("TICKHOUSE_CACHE_DIR") or root / ".tickhouse" / "cache")


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory, broker_cache: Path) -> Iterator[str]:
    """Address "127.0.0.1:PORT" of an empty broker; topics are not created by themselves."""
    home = tmp_path_factory.mktemp("broker")
    port, controller_port = _free_ports(2)
    wanted = os.environ.get("TICKHOUSE_TEST_BROKER") or "auto"
    chosen = brokers.prepare(wanted, broker_cache, home, port, controller_port)
    assert chosen.command is not None, "TICKHOUSE_TEST_BROKER is kafka, embedded or auto"
    log = home / "broker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(chosen.command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not brokers.answers(chosen.address):
            assert process.poll() is None, f"the {chosen.kind} broker died:\n{log.read_text()}"
            assert time.monotonic() < deadline, f"the {chosen.kind} broker is not ready:\n{log.read_text()}"
        yield chosen.address
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
