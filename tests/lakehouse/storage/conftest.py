"""A real SeaweedFS (S3 and an Iceberg REST catalog), and a real Postgres, for the tests that need one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.local import object_storage
from deploy.local.settings import LocalSettings
from lakehouse.settings import LakehouseSettings

READY_SECONDS = 60


def eventually(condition: Callable[[], bool], what: str, seconds: float = READY_SECONDS) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not after {seconds} s: {what}"
        time.sleep(0.02)


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(server.getsockname()[1]) for server in held]
    for server in held:
        server.close()
    return ports


class ObjectStorage:
    """One SeaweedFS, run as the launcher runs it."""

    def __init__(self, home: Path) -> None:
        ports = dict(zip(object_storage.PORTS, free_ports(len(object_storage.PORTS)), strict=True))
        # The inner gRPC ports are these plus 10000.
        inner = {name: 1024 + port % 20_000 for name, port in ports.items() if name.startswith("seaweed")}
        self.settings = LocalSettings(data_dir=home, storage="s3", **{**ports, **inner})  # type: ignore[arg-type]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = (self.settings.root / "log").open("ab") if self.settings.root.is_dir() else subprocess.DEVNULL
        self._process = subprocess.Popen(object_storage.command(self.settings), stdout=log, stderr=log)
        eventually(lambda: object_storage.answers(self.settings), f"SeaweedFS in {self.settings.root} is ready")

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(timeout=60)
            self._process = None

    def lakehouse(self, data_dir: Path) -> LakehouseSettings:
        """Settings of a lakehouse in it."""
        found = object_storage.environment(self.settings)
        fields = {name.removeprefix("TICKHOUSE_").lower(): value for name, value in found.items()}
        return LakehouseSettings(data_dir=data_dir, query_refresh_seconds=0, **fields)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStorage]:
    """SeaweedFS for the whole session; its tables are shared."""
    store = ObjectStorage(tmp_path_factory.mktemp("object-storage"))
    store.start()
    yield store
    store.stop()


@pytest.fixture
def own_object_store(tmp_path: Path) -> Iterator[ObjectStorage]:
    """SeaweedFS for one test, which may kill it."""
    store = ObjectStorage(tmp_path / "object-storage")
    store.start()
    yield store
    store.stop()


def postgres_binary(name: str) -> str | None:
    """Path of a program of Postgres: of the PATH, or where Debian keeps it."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(found[-1]) if found else None)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Catalog address of a private Postgres, on a socket in its own directory."""
    initdb, server = postgres_binary("initdb"), postgres_binary("postgres")
    if initdb is None or server is None:
        pytest.skip("Postgres is not installed (Debian: apt install postgresql)")
    with tempfile.TemporaryDirectory(prefix="tickhouse-postgres-") as directory:
        home = Path(directory)
        # It refuses to run as root: then it runs as the user that such systems have for nothing else.
        other: dict[str, int] = {}
        if os.getuid() == 0:
            shutil.chown(home, "nobody")
            other = {"user": 65534, "group": 65534}
        data = home / "data"
        made = [initdb, "-D", str(data), "-U", "tickhouse", "--auth=trust", "--no-sync", "-E", "UTF8"]
        subprocess.run(made, check=True, capture_output=True, cwd=home, **other)  # type: ignore[call-overload]
        log = (home / "log").open("wb")
        run = [server, "-D", str(data), "-c", "listen_addresses=", "-k", str(home), "-c", "fsync=off"]
        process = subprocess.Popen(run, stdout=log, stderr=log, cwd=home, **other)  # type: ignore[call-overload]
        try:
            eventually((home / ".s.PGSQL.5432").exists, "Postgres listens")
            yield f"postgresql+psycopg2://tickhouse@/postgres?host={home}"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=30)
