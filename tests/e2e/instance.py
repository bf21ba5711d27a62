"""A whole Tickhouse of its own: started and stopped by the commands a user types, on its own ports and data."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pyiceberg.catalog import Catalog

from deploy.local import leftovers, status
from deploy.local.launch import Launch
from deploy.local.settings import DEFAULT_PORTS, LocalSettings
from deploy.local.supervision import Supervisor
from lakehouse.catalog import open_catalog
from lakehouse.settings import LakehouseSettings

ROOT = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.5
UP_SECONDS = 240
DOWN_SECONDS = 180

Value = TypeVar("Value")


def until(read: Callable[[], Value], done: Callable[[Value], bool], seconds: float, what: str) -> Value:
    """Read again and again until the value is ``done``; the value.

    Raises:
        AssertionError: it is not after ``seconds``; says what was waited for and the last value.
    """
    deadline = time.monotonic() + seconds
    while not done(value := read()):
        assert time.monotonic() < deadline, f"after {seconds:.0f} s still not: {what}; it is {value}"
        time.sleep(POLL_SECONDS)
    return value


def free_port_block() -> int:
    """First of as many free ports in a row as an instance needs, below those that the kernel hands out."""
    for base in range(20_000 + os.getpid() % 97 * 50, 32_000, 50):
        if all(leftovers.port_is_free(base + offset) for offset in range(len(DEFAULT_PORTS))):
            return base
    raise AssertionError("no free block of ports between 20000 and 32000")


@dataclass
class Instance:
    """One instance; ``settings`` are those that its launcher reads from ``environment``."""

    data_dir: Path
    environment: dict[str, str]
    settings: LocalSettings

    @classmethod
    def create(cls, data_dir: Path, extra: Mapping[str, str] | None = None) -> Instance:
        """An instance that is not started yet; ``extra``: more settings, as environment variables."""
        base = free_port_block()
        cache = os.environ.get("TICKHOUSE_CACHE_DIR") or str(ROOT / ".tickhouse" / "cache")
        # Settings of the person who runs the tests must not reach it.
        own = {name: value for name, value in os.environ.items() if not name.startswith("TICKHOUSE_")}
        own |= {
            "TICKHOUSE_DATA_DIR": str(data_dir),
            "TICKHOUSE_PORT_BASE": str(base),
            "TICKHOUSE_CACHE_DIR": cache,
            "TICKHOUSE_BROKER": os.environ.get("TICKHOUSE_TEST_BROKER") or "auto",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            **(extra or {}),
        }
        settings = LocalSettings(data_dir=data_dir, port_base=base)
        return cls(data_dir, own, settings)

    def just(self, *arguments: str, seconds: float) -> str:
        """Run ``just …`` as a user does; what it printed.

        Raises:
            AssertionError: it failed, or took longer than ``seconds``.
        """
        # Without the .env of the person who runs the tests.
        process = subprocess.Popen(
            ["just", "--dotenv-path", os.devnull, *arguments],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            said, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
            said, _ = process.communicate(timeout=60)
            said += f"\nstopped after {seconds:.0f} s"
        words = " ".join(arguments)
        assert process.returncode == 0, f"just {words} failed ({process.returncode}):\n{said}\n{self.log_ends()}"
        return said

    def up(self, *options: str) -> str:
        """``just up``: returns when every service is ready."""
        return self.just("up", *options, seconds=UP_SECONDS)

    def watch(self, seconds: float) -> str:
        """``just up watch=1`` in a terminal, left by Ctrl-C once it shows services; what was on the screen.

        Raises:
            AssertionError: it did not show it, or did not end, within ``seconds``.
        """
        keyboard, terminal = os.openpty()
        process = subprocess.Popen(
            ["just", "--dotenv-path", os.devnull, "up", "watch=1"],
            cwd=ROOT,
            env={**self.environment, "TERM": "xterm"},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
        os.close(terminal)
        shown, interrupted, deadline = b"", False, time.monotonic() + seconds
        try:
            while process.poll() is None:
                assert time.monotonic() < deadline, f"just up watch=1 still runs:\n{shown.decode()}"
                if select.select([keyboard], [], [], POLL_SECONDS)[0]:
                    shown += _read_terminal(keyboard)
                if not interrupted and b"api" in shown.partition(b"Next:")[2]:
                    interrupted = True
                    os.killpg(process.pid, signal.SIGINT)
            return (shown + _read_terminal(keyboard)).decode()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            os.close(keyboard)

    def down(self) -> str:
        """``just down``: drains, stops, and leaves no process."""
        return self.just("down", seconds=DOWN_SECONDS)

    def end(self) -> None:
        """Whatever happened: no process of this instance is left."""
        try:
            self.just("down", "drain=0", seconds=DOWN_SECONDS)
        finally:
            leftovers.end(self.settings.root)

    @property
    def supervisor(self) -> Supervisor:
        return Supervisor(self.settings)

    @property
    def launch(self) -> Launch:
        """How it was started."""
        launch = Launch.load(self.settings)
        assert launch is not None, f"nothing was started in {self.data_dir}"
        return launch

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.settings.api_port}"

    @property
    def kafka(self) -> str:
        return self.launch.broker.address

    def catalog(self) -> Catalog:
        """The lakehouse's catalog."""
        return open_catalog(LakehouseSettings(data_dir=self.data_dir))

    def health(self) -> dict[str, status.Health]:
        """Every service by name, as ``just status`` shows it."""
        return {row.name: row for row in status.read(self.supervisor, self.launch.services())}

    def kill_and_await(self, name: str, seconds: float) -> float:
        """SIGKILL a service and wait until it is ready again under another pid; seconds that took."""
        killed = self.health()[name].pid
        begun = time.monotonic()
        os.kill(killed, signal.SIGKILL)
        until(
            lambda: self.health()[name],
            lambda row: row.ready and row.pid not in (0, killed),
            seconds,
            f"{name} is ready again after SIGKILL",
        )
        return time.monotonic() - begun

    def orphans(self) -> list[str]:
        """Processes of this instance that its supervisor does not look after: children of services that died."""
        mine = set(leftovers.leftovers(self.settings.root))
        parents = {pid: _parent(pid) for pid in mine}
        supervised = {int((self.settings.run_dir / "supervisord.pid").read_text())}
        while grown := {pid for pid in mine - supervised if parents[pid] in supervised}:
            supervised |= grown
        lost = sorted(pid for pid in mine - supervised if parents[pid])
        return [f"{pid}: {leftovers.command_line(pid)[:200]}" for pid in lost]

    def log_ends(self) -> str:
        """The last lines of every service's log, for the message of a failure."""
        ends = []
        for log in sorted((self.data_dir / "logs").glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()[-8:]
            ends.append(f"--- {log.name}\n" + "\n".join(lines))
        return "\n".join(ends)


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has ended
        return 0


def _read_terminal(keyboard: int) -> bytes:
    try:
        return os.read(keyboard, 1 << 16)
    except OSError:  # how Linux says that nobody has the other side open
        return b""


def listening(port: int) -> bool:
    """Whether anybody takes connections on 127.0.0.1:``port``."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
