"""Start services and watch each become ready; leave nothing running when that fails or is interrupted.

In: a supervisor, a list of services. Out: one line per service with the seconds it took. On Ctrl-C, a SIGTERM or a
service that keeps dying, everything that was started is stopped again.
"""

from __future__ import annotations

import signal
import time
import xmlrpc.client
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

from deploy.local import leftovers
from deploy.local.errors import LaunchError
from deploy.local.services import Service
from deploy.local.supervision import STOP_SECONDS, Supervisor

STARTS_ALLOWED = 4  # a service may give up on a broker that is not there yet; after this many it is broken
POLL_SECONDS = 0.2
ABORT_SECONDS = 5.0  # a process that is still starting may not listen yet, and has nothing to lose
EXIT_SECONDS = 3.0  # supervisord lets go of its socket before it is gone

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Report = Callable[[str], None]
Check = Callable[[], None]


def start(
    supervisor: Supervisor,
    listed: Sequence[Service],
    environment: Mapping[str, str],
    within: float,
    report: Report,
) -> None:
    """Bring all services up under a new supervisord.

    Raises:
        LaunchError: a service keeps dying, or not all are ready `within` seconds; everything was stopped.
        KeyboardInterrupt: Ctrl-C or SIGTERM; everything was stopped.
    """
    with _terminate_as_interrupt() as check:
        try:
            supervisor.write(listed)
            supervisor.start(environment)
            _wait_all_ready(supervisor, listed, within, report, check)
        except BaseException:
            report("stopping everything that was started …")
            stop_everything(supervisor, ABORT_SECONDS)
            report("nothing is left running.")
            raise


def stop_everything(supervisor: Supervisor, patience: float = STOP_SECONDS) -> int:
    """Stop all services at once, then supervisord, then whatever escaped; returns how many had escaped.

    A process that takes longer than `patience` seconds is killed.
    """
    with _deaf_to_interrupts():
        if supervisor.running():
            supervisor.shut_down(patience)
        deadline = time.monotonic() + EXIT_SECONDS
        while leftovers.leftovers(supervisor.root) and time.monotonic() < deadline:
            time.sleep(0.05)
        return leftovers.end(supervisor.root)


def await_ready(supervisor: Supervisor, service: Service, within: float, report: Report) -> None:
    """Wait for one service that was started already.

    Raises:
        LaunchError: as `start`; nothing is stopped.
    """
    _wait(supervisor, [service], time.monotonic(), within, report)


def _wait_all_ready(
    supervisor: Supervisor, listed: Sequence[Service], within: float, report: Report, check: Check
) -> None:
    begun = time.monotonic()
    early = [service for service in listed if service.early]
    late = [service for service in listed if not service.early]
    _launch(supervisor, early)
    gates = [service for service in early if service.gate]
    _wait(supervisor, gates, begun, within, report, check)
    _launch(supervisor, late)
    _wait(supervisor, [s for s in listed if s not in gates], begun, within, report, check)


def _launch(supervisor: Supervisor, listed: Sequence[Service]) -> None:
    for service in listed:
        try:
            supervisor.start_services([service.name])
        except xmlrpc.client.Fault as fault:
            raise LaunchError(
                f"{service.name} cannot be started ({fault.faultString}): {service.command[0]}"
            ) from fault


def _wait(
    supervisor: Supervisor,
    listed: Sequence[Service],
    begun: float,
    within: float,
    report: Report,
    check: Check = lambda: None,
) -> None:
    waiting = list(listed)
    starts: dict[str, set[int]] = {service.name: set() for service in listed}
    while waiting:
        check()
        processes = supervisor.processes()
        for service in list(waiting):
            process = processes.get(service.name)
            if process is not None and process.started:
                starts[service.name].add(process.started)
            if process is None or process.state == "FATAL" or len(starts[service.name]) >= STARTS_ALLOWED:
                raise LaunchError(_obituary(supervisor, service))
            # "STARTING" too: supervisord only says RUNNING two seconds after the start.
            if process.state in ("STARTING", "RUNNING") and service.ready():
                waiting.remove(service)
                report(f"  {service.name:<11} ready after {time.monotonic() - begun:5.1f} s")
        if waiting and time.monotonic() - begun > within:
            names = ", ".join(service.name for service in waiting)
            raise LaunchError(
                f"not ready after {within:.0f} s: {names}. {_obituary(supervisor, waiting[0])} "
                "A slow machine may need a larger TICKHOUSE_START_SECONDS."
            )
        if waiting:
            time.sleep(POLL_SECONDS)


def _obituary(supervisor: Supervisor, service: Service) -> str:
    last = supervisor.last_log_line(service.name)
    process = supervisor.processes().get(service.name)
    ended = f" (it ended with status {process.exit_status})" if process is not None and not process.pid else ""
    return f"{service.name} does not come up{ended}; its last words: {last} - see `just logs {service.name}`."


@contextmanager
def _terminate_as_interrupt() -> Iterator[Check]:
    """Ctrl-C, SIGTERM and SIGHUP raise KeyboardInterrupt, once: an impatient second must not cut the cleaning up
    short. The function given raises it again where it got lost: libraries swallow it in a bare `except`, and
    Python itself in a destructor."""
    caught = False

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal caught
        if not caught:
            caught = True
            raise KeyboardInterrupt

    def check() -> None:
        if caught:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in _INTERRUPTS}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """A second, impatient Ctrl-C must not leave half of the processes behind."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
