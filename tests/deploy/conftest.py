"""A data directory of its own and tiny real services for the launcher's tests."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from deploy.local import leftovers, probes
from deploy.local.services import Service
from deploy.local.settings import DEFAULT_PORTS, LocalSettings
from deploy.local.start import stop_everything
from deploy.local.supervision import Supervisor


@pytest.fixture
def free_port() -> Callable[[], int]:
    """A function that finds a port nobody listens on."""

    def find() -> int:
        with socket.create_server(("127.0.0.1", 0)) as server:
            return int(server.getsockname()[1])

    return find


@pytest.fixture
def settings(tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> LocalSettings:
    """Settings with a fresh data directory and free ports, in the environment too."""
    monkeypatch.setenv("TICKHOUSE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("TICKHOUSE_CACHE_DIR", raising=False)
    for name in DEFAULT_PORTS:
        monkeypatch.setenv(f"TICKHOUSE_{name.upper()}", str(free_port()))
    return LocalSettings()


@pytest.fixture
def supervisor(settings: LocalSettings) -> Iterator[Supervisor]:
    """A supervisor whose processes are all gone after the test, however it ended."""
    made = Supervisor(settings)
    yield made
    stop_everything(made)


@pytest.fixture
def mark(settings: LocalSettings) -> dict[str, str]:
    """The part of the services' environment by which leftovers are recognised."""
    return {"TICKHOUSE_LAUNCHED_FROM": str(settings.root)}


@pytest.fixture
def web(free_port: Callable[[], int]) -> Callable[..., Service]:
    """A function that makes a service which is a web server of Python."""

    def make(name: str = "web", stop_step: int = 1) -> Service:
        port = free_port()
        command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
        return Service(name, command, partial(probes.serves, f"http://127.0.0.1:{port}/"), stop_step, early=True)

    return make


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., Service]:
    """A function that makes a service from the text of a Python program."""

    def make(name: str, text: str, *, stop_step: int = 1, **more: object) -> Service:
        file = tmp_path / f"{name}.py"
        file.write_text(text)
        ready = more.pop("ready", lambda: False)
        return Service(name, [sys.executable, str(file)], ready, stop_step, **more)  # type: ignore[arg-type]

    return make


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """A function that waits until a condition holds, and fails after ten seconds."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true in 10 s"

    return wait


@pytest.fixture
def alive(settings: LocalSettings) -> Callable[[], list[int]]:
    """A function that lists the pids this instance has left running."""
    return lambda: leftovers.leftovers(settings.root)
