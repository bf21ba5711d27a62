"""A broker for one benchmark."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.local import broker as brokers

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60


@contextmanager
def a_broker(wanted: str = "auto") -> Iterator[str]:
    """Address of an empty broker that is stopped, and its data removed, at the end.

    Args:
        wanted: kafka, embedded or auto.
    """
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [int(server.getsockname()[1]) for server in held]
    for server in held:
        server.close()
    cache = Path(os.environ.get("TICKHOUSE_CACHE_DIR") or ROOT / ".tickhouse" / "cache")
    with tempfile.TemporaryDirectory(prefix="tickhouse-bench-") as home:
        chosen = brokers.prepare(wanted, cache, Path(home), *ports)
        assert chosen.command is not None, "the broker is kafka, embedded or auto"
        log = Path(home) / "broker.log"
        with log.open("wb") as output:
            process = subprocess.Popen(chosen.command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + START_SECONDS
            while not brokers.answers(chosen.address):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
            yield chosen.address
        finally:
            process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
