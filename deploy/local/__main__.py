"""The commands behind `just up`, `status`, `logs`, `down`, `reset` and `replay`.

In: words and NAME=VALUE options. Out: lines for a person, and the exit code: 0, 1 with one line of reason, or
130 on Ctrl-C.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from rich.console import Console
from rich.live import Live

from deploy.local import broker, kafka, leftovers, object_storage, preflight, prometheus, status
from deploy.local.errors import LaunchError
from deploy.local.launch import Launch
from deploy.local.services import Feed, exchange, feed_from
from deploy.local.settings import LocalSettings, kafka_port_names
from deploy.local.start import await_ready, start
from deploy.local.stop import drain_and_stop
from deploy.local.supervision import Supervisor

Options = dict[str, str]
SETTINGS_OPTIONS = {"brokers", "storage"}
FEED_OPTIONS = {"feed", "file", "speed"}
YES = ("1", "yes", "true")
_OPTION = re.compile(r"(?:--)?([a-z]+)=(.*)")  # anything else with a "=" is a file name


def say(line: str) -> None:
    """Print a progress line at once."""
    print(line, flush=True)


def up(words: list[str], options: Options) -> None:
    """Start everything: up [watch=1] [broker=auto|kafka|embedded|HOST:PORT] [brokers=1|3] [storage=files|s3]
    [feed=replay file=PATH speed=N]."""
    _only(words, options, 0, {"watch", "broker"} | SETTINGS_OPTIONS | FEED_OPTIONS)
    settings = preflight.read_settings(**{name: options[name] for name in SETTINGS_OPTIONS & options.keys()})
    supervisor = Supervisor(settings)
    if supervisor.running():
        say("Tickhouse is already running (`just down` stops it).")
        _print_addresses(_launched(settings))
    else:
        begun = time.monotonic()
        launch = _start(settings, options.get("broker"), feed_from(options))
        say(f"\nTickhouse is up after {time.monotonic() - begun:.0f} s.")
        _print_addresses(launch)
    if options.get("watch", "") in YES:
        _watch(settings)


def _start(settings: LocalSettings, wanted: str | None, feed: Feed) -> Launch:
    preflight.check_python()
    preflight.check_disk(settings)
    orphans = leftovers.leftovers(settings.root)
    if orphans:
        raise LaunchError(
            f"{len(orphans)} processes of an earlier start still run without their supervisor "
            f"(pids {', '.join(map(str, orphans))}): `just down` ends them."
        )
    settings = settings.model_copy(update={"storage": _same_storage(settings)})
    wanted = wanted or (settings.kafka_bootstrap if settings.broker == "auto" else None) or settings.broker
    kind, nodes = _same_broker(settings, wanted, broker.resolve(wanted, settings.cache))
    say(f"Starting Tickhouse in {settings.root} (broker: {kind}{f', {nodes} nodes' if nodes > 1 else ''})")
    number = settings.ports()
    ports = [kafka.Ports(*map(number.__getitem__, kafka_port_names(node))) for node in range(1, nodes + 1)]
    chosen = broker.prepare(kind, settings.cache, settings.root, ports)
    launch = Launch(settings, chosen, feed)
    listed = launch.services()
    os.environ.update(launch.environment())
    preflight.check_settings()
    preflight.check_ports(settings, listed)
    launch.save()
    prometheus.write(settings, listed)
    start(Supervisor(settings), listed, launch.environment(), settings.start_seconds, say)
    return launch


def _same_broker(settings: LocalSettings, wanted: str, kind: str) -> tuple[str, int]:
    """Keep to the broker that this data directory knows: the tables remember offsets of its topics. Its kind, and
    how many nodes of it are started here.

    Raises:
        LaunchError: another one was asked for. Its offsets start at 0, and what it brings would be skipped.
    """
    before = Launch.load(settings)
    if before is None:
        return kind, settings.brokers or 1
    known, nodes = before.broker.kind, max(1, len(before.broker.commands))
    if settings.brokers not in (None, nodes):
        raise LaunchError(
            f"the topics in {settings.root} were made on brokers={nodes}, and have so many copies: start with "
            f"brokers={nodes}, set another TICKHOUSE_DATA_DIR, or `just reset` first."
        )
    if wanted == "auto" and known in ("kafka", "embedded"):
        return broker.resolve(known, settings.cache), nodes
    if known != (kind if kind in ("kafka", "embedded") else "external"):
        raise LaunchError(
            f"the tables in {settings.root} were filled through broker={known}, and its offsets mean nothing "
            f"to {kind}: start with the same broker, set another TICKHOUSE_DATA_DIR, or `just reset` first."
        )
    return kind, nodes


def _same_storage(settings: LocalSettings) -> str:
    """Keep to where this data directory has its tables.

    Raises:
        LaunchError: another place was asked for. The tables would be empty there, and Kafka's offsets start anew.
    """
    before = Launch.load(settings)
    known = None if before is None else before.settings.storage or "files"
    if known is not None and settings.storage not in (None, known):
        raise LaunchError(
            f"the tables of {settings.root} are in storage={known}, and would not be found in "
            f"storage={settings.storage}: start with the same, set another TICKHOUSE_DATA_DIR, or `just reset` "
            "first."
        )
    return settings.storage or known or "files"


def _launched(settings: LocalSettings) -> Launch:
    launch = Launch.load(settings)
    if launch is None:
        raise LaunchError(f"nothing was started in {settings.root} yet: `just up` starts everything.")
    return launch


def _print_addresses(launch: Launch) -> None:
    for what, where in launch.addresses().items():
        say(f"  {what:<14} {where}")
    say(f"\nBroker: {launch.broker.promise}")
    say("Next: `just status` shows health, `just logs NAME` a log, `just down` stops everything.")


def _watch(settings: LocalSettings) -> None:
    supervisor, listed = Supervisor(settings), _launched(settings).services()
    try:
        with Live(console=Console(), auto_refresh=False) as live:
            while supervisor.running():
                live.update(status.table(status.read(supervisor, listed)), refresh=True)
                time.sleep(1)
        say("Tickhouse was stopped.")
    except KeyboardInterrupt:
        say("Everything runs on in the background; `just down` stops it.")


def show_status(words: list[str], options: Options) -> None:
    """Each service's state, readiness, age of its last event and lag: status [--json]."""
    _only(words, options, 0, {"json"})
    settings = preflight.read_settings()
    supervisor = Supervisor(settings)
    rows = status.read(supervisor, _launched(settings).services()) if supervisor.running() else []
    if options.get("json", "") in YES:
        say(json.dumps(status.as_json(rows), indent=2))
    elif rows:
        Console().print(status.table(rows))
    if not rows:
        raise LaunchError(f"Tickhouse does not run in {settings.root}: `just up` starts it.")
    if not all(row.ready for row in rows):
        raise SystemExit(1)


def logs(words: list[str], options: Options) -> None:
    """The end of a service's log: logs [NAME] [lines=N] [follow=1]."""
    _only(words, options, 1, {"lines", "follow"})
    directory = preflight.read_settings().log_dir
    names = sorted(path.stem for path in directory.glob("*.log"))
    if not words:
        say(f"`just logs NAME`, one of: {', '.join(names) or '(none yet: `just up` starts everything)'}")
        return
    if words[0] not in names:
        raise LaunchError(f"there is no log of {words[0]}; there is: {', '.join(names) or 'none yet'}.")
    follow = ["-F"] if options.get("follow", "") in YES else []
    lines = options.get("lines", "100")
    if not lines.isdigit():
        raise LaunchError(f"lines={lines} is not a number.")
    subprocess.run(["tail", "-n", lines, *follow, str(directory / f"{words[0]}.log")], check=True)


def down(words: list[str], options: Options) -> None:
    """Drain and stop everything: down [drain=SECONDS]."""
    _only(words, options, 0, {"drain"})
    settings = preflight.read_settings()
    drain = options.get("drain", str(settings.drain_seconds))
    if not drain.replace(".", "", 1).isdigit():
        raise LaunchError(f"drain={drain} is not a number of seconds.")
    supervisor = Supervisor(settings)
    if supervisor.running():
        begun = time.monotonic()
        drain_and_stop(supervisor, _launched(settings).services(), float(drain), say)
        say(f"Tickhouse is down after {time.monotonic() - begun:.0f} s; no process is left.")
        return
    ended = leftovers.end(settings.root)
    say(f"ended {ended} processes whose supervisor was gone" if ended else "Tickhouse was not running.")


def reset(words: list[str], options: Options) -> None:
    """Delete all data but the downloads: reset [yes=1]."""
    _only(words, options, 0, {"yes"})
    settings = preflight.read_settings()
    if Supervisor(settings).running() or leftovers.leftovers(settings.root):
        raise LaunchError("Tickhouse is running: `just down` first.")
    held = sorted(settings.root.glob("*")) if settings.root.is_dir() else []
    doomed = [path for path in held if path.resolve() != settings.cache]
    if not doomed:
        say(f"{settings.root} holds no data.")
        return
    if not (settings.root / "run" / "launch.json").exists():
        raise LaunchError(f"{settings.root} was never started by `just up`: remove it by hand if you mean it.")
    if options.get("yes", "") not in YES:
        say(f"This deletes {', '.join(p.name for p in doomed)} in {settings.root}.")
        try:
            answer = input("Delete it? [y/N] ")
        except EOFError:
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            raise LaunchError("nothing was deleted.")
    # The mark of a data directory goes last: a reset cut short can be repeated.
    for path in sorted(doomed, key=lambda p: p.name == "run"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    say(f"deleted the data in {settings.root}.")


def replay(words: list[str], options: Options) -> None:
    """Feed the system from a recorded capture: replay FILE [speed=N]."""
    if len(words) != 1:
        raise LaunchError("usage: just replay FILE [speed=N] (0: as fast as it goes).")
    _only(words, options, 1, {"speed"})
    feed = feed_from({"feed": "replay", "file": words[0], **options})
    settings = preflight.read_settings()
    supervisor = Supervisor(settings)
    if not supervisor.running():
        _print_addresses(_start(settings, None, feed))
        return
    before = _launched(settings)
    launch = Launch(before.settings, before.broker, feed)
    swapped = exchange(launch.settings, feed)
    supervisor.replace(swapped, launch.services())
    launch.save()
    await_ready(supervisor, swapped, settings.start_seconds, say)
    say(f"The exchange now replays {feed.file} (speed {feed.speed:g}).")
    say("`just down` and `just up` bring the simulated market back.")


def run(arguments: list[str]) -> NoReturn:
    """Become another module of the project, with the settings that lead to this machine's tables and services."""
    settings = preflight.read_settings()
    launch = Launch.load(settings)
    if launch is not None:
        settings = launch.settings
    os.environ.update(settings.port_environment())
    if launch is not None and settings.storage == "s3":
        os.environ.update(object_storage.environment(settings))
    os.execv(sys.executable, [sys.executable, "-m", *arguments])  # noqa: S606


def _only(words: list[str], options: Options, most_words: int, known: set[str]) -> None:
    strange = [*words[most_words:], *sorted(options.keys() - known)]
    if strange:
        allowed = ", ".join(f"{name}=" for name in sorted(known))
        raise LaunchError(f"{strange[0]} is not understood here; there is {allowed}.")


COMMANDS: dict[str, Callable[[list[str], Options], None]] = {
    "up": up,
    "status": show_status,
    "logs": logs,
    "down": down,
    "reset": reset,
    "replay": replay,
}


def parse(arguments: list[str]) -> tuple[list[str], Options]:
    """Split into words and options: `name=value`, `--name=value`, and `--name` for `name=1`."""
    words: list[str] = []
    options: Options = {}
    for argument in arguments:
        if option := _OPTION.match(argument):
            options[option.group(1)] = option.group(2)
        elif argument.startswith("--"):
            options[argument.removeprefix("--")] = "1"
        else:
            words.append(argument)
    return words, options


def main(arguments: list[str]) -> int:
    """Run one command; returns the exit code."""
    try:
        if arguments[:1] == ["run"] and len(arguments) > 1:
            run(arguments[1:])
        if not arguments or arguments[0] not in COMMANDS:
            say("\n".join(f"  {name:<8} {command.__doc__}" for name, command in COMMANDS.items()))
            return 2
        words, options = parse(arguments[1:])
        COMMANDS[arguments[0]](words, options)
    except LaunchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
