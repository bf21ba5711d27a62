"""Real supervisord, tiny real services: they start, come back, say why they do not, and leave nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.local import leftovers, status
from deploy.local.errors import LaunchError
from deploy.local.services import Service
from deploy.local.settings import LocalSettings
from deploy.local.start import start
from deploy.local.stop import drain_and_stop
from deploy.local.supervision import Supervisor

Alive = Callable[[], list[int]]
Eventually = Callable[[Callable[[], bool]], None]
Make = Callable[..., Service]


def test_up_waits_for_readiness_and_down_leaves_no_process(
    supervisor: Supervisor, web: Make, mark: dict[str, str], alive: Alive
) -> None:
    lines: list[str] = []
    service = web()
    start(supervisor, [service], mark, 20, lines.append)
    assert service.ready()
    assert [line.split()[:2] for line in lines] == [["web", "ready"]]
    assert len(alive()) == 2  # supervisord and the service

    drain_and_stop(supervisor, [service], 5, lines.append)
    assert alive() == []
    assert not supervisor.running()
    assert not service.ready()


def test_a_service_killed_with_sigkill_comes_back(
    supervisor: Supervisor, web: Make, mark: dict[str, str], eventually: Eventually
) -> None:
    service = web()
    start(supervisor, [service], mark, 20, print)
    before = supervisor.processes()["web"].pid
    os.kill(before, signal.SIGKILL)
    eventually(lambda: supervisor.processes()["web"].pid not in (0, before) and service.ready())


def test_a_service_that_keeps_dying_is_quoted_and_everything_stops(
    supervisor: Supervisor, web: Make, script: Make, mark: dict[str, str], alive: Alive
) -> None:
    dying = script("dying", "raise SystemExit('the frobnicator is missing')\n", early=True)
    with pytest.raises(LaunchError, match=r"dying .* the frobnicator is missing - see `just logs dying`"):
        start(supervisor, [web(), dying], mark, 30, print)
    assert alive() == []


def test_a_service_that_is_never_ready_is_named_and_everything_stops(
    supervisor: Supervisor, web: Make, script: Make, mark: dict[str, str], alive: Alive
) -> None:
    slow = script("slow", "import signal; print('still thinking', flush=True); signal.pause()\n", early=True)
    with pytest.raises(LaunchError, match=r"not ready after 2 s: slow\..* still thinking"):
        start(supervisor, [web(), slow], mark, 2, print)
    assert alive() == []


def test_a_command_that_does_not_exist_is_named(
    supervisor: Supervisor, mark: dict[str, str], alive: Alive
) -> None:
    missing = Service("missing", ["/nowhere/program"], lambda: True, 1, early=True)
    with pytest.raises(LaunchError, match=r"missing cannot be started .*/nowhere/program"):
        start(supervisor, [missing], mark, 5, print)
    assert alive() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_start_leaves_nothing(
    number: signal.Signals, settings: LocalSettings, tmp_path: Path, alive: Alive, eventually: Eventually
) -> None:
    program = tmp_path / "starter.py"
    program.write_text(
        "import sys\n"
        "from deploy.local.services import Service\n"
        "from deploy.local.settings import LocalSettings\n"
        "from deploy.local.start import start\n"
        "from deploy.local.supervision import Supervisor\n"
        "settings = LocalSettings()\n"
        "sleeper = [sys.executable, '-c', 'import signal; signal.pause()']\n"
        "services = [Service(name, sleeper, lambda: False, 1, early=True) for name in ('a', 'b')]\n"
        "mark = {'TICKHOUSE_LAUNCHED_FROM': str(settings.root)}\n"
        "start(Supervisor(settings), services, mark, 60, print)\n"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    starter = subprocess.Popen([sys.executable, str(program)], env=environment, stderr=subprocess.PIPE)
    eventually(lambda: len(alive()) == 3)
    starter.send_signal(number)
    starter.send_signal(number)  # an impatient second one must not cut the cleaning up short
    _, stderr = starter.communicate(timeout=60)
    assert starter.returncode != 0
    assert b"KeyboardInterrupt" in stderr
    assert alive() == []


def test_processes_whose_supervisor_was_killed_are_found_and_ended(
    supervisor: Supervisor, web: Make, mark: dict[str, str], alive: Alive, settings: LocalSettings
) -> None:
    service = web()
    start(supervisor, [service], mark, 20, print)
    pid = supervisor.processes()["web"].pid
    (daemon,) = set(alive()) - {pid}
    os.kill(daemon, signal.SIGKILL)
    assert pid in alive()
    assert leftovers.end(settings.root) >= 1
    assert alive() == []
    assert not supervisor.running()


def test_services_stop_in_the_order_of_their_steps(
    supervisor: Supervisor, script: Make, mark: dict[str, str], tmp_path: Path
) -> None:
    order = tmp_path / "order"
    text = (
        "import signal, sys\n"
        f"order = open({str(order)!r}, 'a')\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print({name!r}, file=order, flush=True), sys.exit(0)))\n"
        "open({flag!r}, 'w').close()\n"
        "while True: signal.pause()\n"
    )
    services = []
    for name, step in [("last", 9), ("first", 1), ("second", 4)]:
        flag = tmp_path / f"{name}.up"
        services.append(
            script(name, text.format(name=name, flag=str(flag)), stop_step=step, ready=flag.exists, early=True)
        )
    start(supervisor, services, mark, 20, print)
    drain_and_stop(supervisor, services, 5, print)
    assert order.read_text().split() == ["first", "second", "last"]


def test_environment_values_arrive_unchanged(supervisor: Supervisor, script: Make, mark: dict[str, str]) -> None:
    odd = {"ODD": "100% of $HOME, it's", "JSON": '{"a": "b,c"}'}
    service = script(
        "environment",
        "import json, os, signal\n"
        "print(json.dumps([os.environ['ODD'], os.environ['JSON']]), flush=True)\n"
        "signal.pause()\n",
        ready=lambda: "100%" in supervisor.last_log_line("environment"),
        environment=odd,
        early=True,
    )
    start(supervisor, [service], mark, 20, print)
    assert supervisor.last_log_line("environment") == '["100% of $HOME, it\'s", "{\\"a\\": \\"b,c\\"}"]'


def test_a_deep_data_directory_still_has_a_control_socket(settings: LocalSettings, tmp_path: Path) -> None:
    deep = Supervisor(settings.model_copy(update={"data_dir": tmp_path / ("d" * 120)}))
    other = Supervisor(settings.model_copy(update={"data_dir": tmp_path / ("e" * 120)}))
    assert len(os.fsencode(deep.socket)) <= 100
    assert deep.socket != other.socket


def test_status_tells_the_living_from_the_dead(
    supervisor: Supervisor, web: Make, mark: dict[str, str], eventually: Eventually
) -> None:
    up, gone = web("up"), web("gone", stop_step=2)
    start(supervisor, [up, gone], mark, 20, print)
    supervisor.stop_services(["gone"])
    eventually(lambda: supervisor.processes()["up"].state == "RUNNING")
    rows = {row.name: row for row in status.read(supervisor, [up, gone])}
    assert (rows["up"].state, rows["up"].ready) == ("RUNNING", True)
    assert (rows["gone"].state, rows["gone"].ready, rows["gone"].pid) == ("STOPPED", False, 0)
    assert status.as_json(rows.values())[0]["name"] == "up"


def test_replacing_a_service_restarts_it_alone_with_its_new_environment(
    supervisor: Supervisor, web: Make, script: Make, mark: dict[str, str], eventually: Eventually
) -> None:
    text = "import os, signal\nprint('feed', os.environ['FEED'], flush=True)\nsignal.pause()\n"

    def exchange(feed: str) -> Service:
        said = f"feed {feed}"
        return script(
            "exchange",
            text,
            ready=lambda: supervisor.last_log_line("exchange") == said,
            environment={"FEED": feed},
            early=True,
        )

    other, first, second = web(), exchange("simulated"), exchange("replay")
    start(supervisor, [other, first], mark, 20, print)
    before = supervisor.processes()
    supervisor.replace(second, [other, second])
    eventually(second.ready)
    after = supervisor.processes()
    assert after["web"].pid == before["web"].pid
    assert after["exchange"].pid != before["exchange"].pid


def test_an_interrupt_that_a_library_swallows_still_stops_everything(
    supervisor: Supervisor, web: Make, mark: dict[str, str], alive: Alive
) -> None:
    def swallowing() -> bool:
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        return False

    with pytest.raises(KeyboardInterrupt):
        start(supervisor, [dataclasses.replace(web(), ready=swallowing)], mark, 20, print)
    assert alive() == []
