"""Processes of this instance that no supervisor looks after any more, and who holds a port.

Both are read from /proc, so both know nothing on systems without it: they then report no process.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

_PROC = Path("/proc")


def _processes() -> list[Path]:
    return [entry for entry in _PROC.iterdir() if entry.name.isdigit()] if _PROC.is_dir() else []


def command_line(pid: int) -> str:
    """Command line of a process, "" when it is gone or not ours to see."""
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def leftovers(root: Path) -> list[int]:
    """Pids of the live processes that a launcher started for the data directory `root`."""
    mark = f"TICKHOUSE_LAUNCHED_FROM={root}".encode()
    found = []
    for entry in _processes():
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # gone, or another user's
            continue
        if mark in environment and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return sorted(found)


def end(root: Path, within: float = 20.0) -> int:
    """Terminate all leftovers of `root`, by SIGKILL after `within` seconds; returns how many there were."""
    pids = leftovers(root)
    _signal(pids, signal.SIGTERM)
    deadline = time.monotonic() + within
    while left := leftovers(root):
        if time.monotonic() > deadline:
            _signal(left, signal.SIGKILL)
        time.sleep(0.1)
    return len(pids)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:  # ended by itself meanwhile
            continue


def port_is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:`port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT does not count
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def holder(port: int) -> str:
    """Who listens on `port`: "pid N (command)", or "another process" where that cannot be told."""
    inodes = set()
    for table in (_PROC / "net/tcp", _PROC / "net/tcp6"):
        if table.exists():
            rows = [line.split() for line in table.read_text().splitlines()[1:]]
            inodes |= {row[9] for row in rows if row[3] == "0A" and int(row[1].rsplit(":", 1)[1], 16) == port}
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for entry in _processes():
        try:
            if any(os.readlink(fd) in wanted for fd in (entry / "fd").iterdir()):
                return f"pid {entry.name} ({command_line(int(entry.name))[:120]})"
        except OSError:  # gone, or another user's
            continue
    return "another process"
