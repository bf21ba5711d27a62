"""supervisord, which keeps the services alive: its configuration, its life and its control socket.

In: a list of services. Out: a supervisord in its own session (a Ctrl-C in the terminal does not reach it), one
rotated log file per service. On a crash of a service it is started again, for ever; on a crash of supervisord the
services run on, and `leftovers` finds them by the data directory in their environment.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import Faults, SupervisorTransport

from deploy.local.errors import LaunchError
from deploy.local.services import Service
from deploy.local.settings import LocalSettings

TEMPLATE = Path(__file__).parent / "supervisord.conf.template"
STOP_SECONDS = 20  # then SIGKILL; every service promises to flush and exit within 10
KILL_SECONDS = 10  # for the kernel and supervisord to notice that a process is gone
LONGEST_SOCKET_PATH = 100  # the kernel's limit is 108, and supervisord adds its pid while it binds


@dataclass(frozen=True)
class Process:
    """supervisord's view of one service."""

    name: str
    state: str
    """RUNNING, STARTING, BACKOFF, STOPPED, STOPPING, EXITED or FATAL."""
    pid: int
    started: int
    """Unix time of the last start, 0 if never."""
    uptime: int
    """Seconds since then while it runs."""
    exit_status: int
    """How it last ended by itself; -1: by a signal."""


def _value(text: str) -> str:
    """Quote a value for supervisor's `environment=` and escape its expansion sign."""
    quote = "'" if '"' in text else '"'
    if quote in text or "\n" in text:
        raise LaunchError(f"{text!r} has both kinds of quotes or a line break in it: choose a simpler name.")
    return f"{quote}{text}{quote}".replace("%", "%%")


def program(service: Service, log_dir: Path) -> str:
    """Section of one service in supervisord's configuration."""
    environment = ",".join(f"{name}={_value(value)}" for name, value in service.environment.items())
    lines = {
        "command": shlex.join(service.command).replace("%", "%%"),
        "environment": environment,
        "stdout_logfile": str(log_dir / f"{service.name}.log").replace("%", "%%"),
        "stopwaitsecs": str(STOP_SECONDS),
        # supervisord stops the highest first; this is what happens when it is asked to go down by itself.
        "priority": str(1000 - service.stop_step),
    }
    fixed = "autostart=false\nautorestart=true\nstartsecs=2\nstartretries=1000000\nstopsignal=TERM\n"
    fixed += "stopasgroup=true\nkillasgroup=true\nredirect_stderr=true\n"
    fixed += "stdout_logfile_maxbytes=10MB\nstdout_logfile_backups=3\n"  # pragma: allowlist secret
    return f"[program:{service.name}]\n" + "".join(f"{k}={v}\n" for k, v in lines.items() if v) + fixed


class Supervisor:
    """The supervisord of one data directory."""

    def __init__(self, settings: LocalSettings) -> None:
        self.root = settings.root
        self.run_dir = settings.run_dir
        self.log_dir = settings.log_dir
        self.configuration = self.run_dir / "supervisord.conf"

    @property
    def socket(self) -> Path:
        """Control socket, readable by this user only; in the temporary directory where the path is too long."""
        path = self.run_dir / "supervisor.sock"
        if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
            return path
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"tickhouse-{os.getuid()}-{digest}.sock"

    @property
    def rpc(self) -> Any:
        """supervisor's XML-RPC interface; a new connection for each use."""
        transport = SupervisorTransport(None, None, f"unix://{self.socket}")
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor

    def write(self, listed: Iterable[Service]) -> None:
        """Write the configuration."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self.log_dir.mkdir(parents=True, exist_ok=True)
        head = TEMPLATE.read_text().format(
            socket=str(self.socket).replace("%", "%%"),
            run_dir=str(self.run_dir).replace("%", "%%"),
            log_dir=str(self.log_dir).replace("%", "%%"),
        )
        self.configuration.write_text(head + "\n".join(program(s, self.log_dir) for s in listed))

    def running(self) -> bool:
        """Whether a supervisord answers on the control socket."""
        try:
            self.rpc.getState()
        except OSError:  # no socket, or nobody behind it
            return False
        return True

    def start(self, environment: Mapping[str, str], within: float = 15.0) -> None:
        """Start supervisord, without any service yet.

        Its services get this process's environment and `environment`.

        Raises:
            LaunchError: it ended at once or does not answer within `within` seconds.
        """
        self.socket.unlink(missing_ok=True)
        command = [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(self.configuration)]
        said = self.log_dir / "supervisord.err"
        with said.open("wb") as errors:
            process = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
            )
        deadline = time.monotonic() + within
        while not self.running():
            if process.poll() is not None:
                reason = said.read_text(errors="replace").strip().splitlines()[-1:]
                raise LaunchError(f"supervisord ended at once: {''.join(reason)} (see {self.log_dir})")
            if time.monotonic() > deadline:
                process.kill()
                raise LaunchError(f"supervisord does not answer on {self.socket}: see {self.log_dir}.")
            time.sleep(0.05)
        process.returncode = 0  # it is to outlive this process, and Python is not to warn about that

    def processes(self) -> dict[str, Process]:
        """All services as supervisord sees them, {} when it does not run."""
        try:
            listed = self.rpc.getAllProcessInfo()
        except OSError:
            return {}
        return {
            p["name"]: Process(
                name=p["name"],
                state=p["statename"],
                pid=p["pid"],
                started=p["start"],
                uptime=max(0, p["now"] - p["start"]) if p["pid"] else 0,
                exit_status=p["exitstatus"],
            )
            for p in listed
        }

    def start_services(self, names: Iterable[str]) -> None:
        """Start services without waiting for them."""
        for name in names:
            self.rpc.startProcess(name, False)

    def stop_services(self, names: Iterable[str], patience: float = STOP_SECONDS) -> None:
        """Ask all of `names` to stop, wait until each has, and kill what has not after `patience` seconds.

        Raises:
            LaunchError: one of them did not go, not even by SIGKILL.
        """
        wanted = set(names)
        for name, process in self.processes().items():
            if name in wanted and process.state in ("RUNNING", "STARTING", "BACKOFF"):
                self._ignoring_gone("stopProcess", name, False)
        begun, asked, killed = time.monotonic(), 1.0, False
        while left := [p.name for p in self.processes().values() if p.name in wanted and p.pid]:
            waited = time.monotonic() - begun
            if waited > asked and not killed:
                asked += 1.0  # a process that was just being born may have lost the first request
                for name in left:
                    self._ignoring_gone("signalProcess", name, "TERM")
            if waited > patience and not killed:
                killed = True
                for name in left:
                    self._ignoring_gone("signalProcess", name, "KILL")
            if waited > patience + KILL_SECONDS:
                raise LaunchError(f"{', '.join(left)} did not stop: see `just logs {left[0]}`.")
            time.sleep(0.1)

    def _ignoring_gone(self, method: str, name: str, argument: bool | str) -> None:
        """Call a method on a process that may end by itself at the same moment."""
        try:
            getattr(self.rpc, method)(name, argument)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != Faults.NOT_RUNNING:
                raise

    def replace(self, service: Service, all_services: Iterable[Service]) -> None:
        """Stop one service and start it again as it now stands in `all_services`."""
        self.stop_services([service.name])
        self.write(all_services)
        self.rpc.reloadConfig()
        self.rpc.removeProcessGroup(service.name)
        self.rpc.addProcessGroup(service.name)
        self.start_services([service.name])

    def shut_down(self, patience: float = STOP_SECONDS) -> None:
        """Stop what still runs, all at once, then supervisord itself.

        Raises:
            LaunchError: something did not go.
        """
        self.stop_services(self.processes(), patience)
        self.rpc.shutdown()
        deadline = time.monotonic() + KILL_SECONDS
        while self.running():
            if time.monotonic() > deadline:
                raise LaunchError(f"supervisord did not stop: see {self.log_dir / 'supervisord.log'}.")
            time.sleep(0.05)

    def last_log_line(self, name: str) -> str:
        """Last line that says something in the service's log."""
        path = self.log_dir / f"{name}.log"
        if not path.exists():
            return "(it wrote nothing)"
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - 16_384))
            lines = [line.strip() for line in log.read().decode(errors="replace").splitlines()]
        return next((line for line in reversed(lines) if line), "(it wrote nothing)")
