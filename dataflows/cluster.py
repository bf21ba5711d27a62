"""One flow as several processes: ``python -m dataflows.cluster N FLOW``, or ``just cluster N FLOW``.

In: a number of processes and the name of a flow. Out: that many processes, which share the partitions and exchange
what belongs together; the same rows as one process would write. It runs until SIGTERM or Ctrl-C, then every one
takes a last snapshot; bronze, whose offsets are in its tables, commits instead.

On a crash: Bytewax's processes cannot go on without one another, so when one ends all are ended and started again,
from the newest snapshot that all had taken part in; the sink leaves out what is written already. The number of
processes may change between runs: the state is kept by key.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time

from dataflows.run import log_to_stderr, only_one, recovery_lock, recovery_store
from dataflows.settings import StreamSettings

log = logging.getLogger(__name__)

FLOWS = ("enrichment", "vwap", "alerts", "orderbook", "bronze")
MOST = 32
PORTS_APART = 20
"""Between the metrics ports of one process and the next; the first has the flow's own."""
STOP_PATIENCE_S = 20.0
LOOK_S = 0.1
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0


class Cluster:
    """The processes of one flow."""

    def __init__(self, flow: str, processes: int, settings: StreamSettings) -> None:
        self._flow = flow
        self._count = processes
        port = int(getattr(settings, f"{flow}_metrics_port"))
        self._ports = [port and port + number * PORTS_APART for number in range(processes)]
        self._running: list[subprocess.Popen[bytes]] = []

    def run(self, stop: threading.Event) -> None:
        """Until ``stop`` is set."""
        pause = FIRST_PAUSE_S
        while not stop.is_set():
            began = time.monotonic()
            self._start()
            try:
                while not stop.wait(LOOK_S) and all(process.poll() is None for process in self._running):
                    pass
            finally:
                codes = self._end(signal.SIGTERM if stop.is_set() else signal.SIGKILL)
            if stop.is_set():
                break
            pause = (
                FIRST_PAUSE_S if time.monotonic() - began > LONGEST_PAUSE_S else min(pause * 2, LONGEST_PAUSE_S)
            )
            log.error(
                "a process of %s ended (exit codes %s): starting all again in %.1f s", self._flow, codes, pause
            )
            stop.wait(pause)

    def _start(self) -> None:
        addresses = ";".join(f"127.0.0.1:{port}" for port in _free_ports(self._count))
        for number, port in enumerate(self._ports):
            environment = {
                **os.environ,
                "BYTEWAX_PROCESS_ID": str(number),
                "BYTEWAX_ADDRESSES": addresses,
                f"TICKHOUSE_{self._flow.upper()}_METRICS_PORT": str(port),
            }
            command = [sys.executable, "-m", f"dataflows.{self._flow}"]
            self._running.append(subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL))
        pids = ", ".join(str(process.pid) for process in self._running)
        log.info("%s runs as %d processes: %s", self._flow, self._count, pids)

    def _end(self, number: signal.Signals) -> list[int]:
        """Ask, then insist; the exit codes."""
        for process in self._running:
            process.send_signal(number)
        deadline = time.monotonic() + STOP_PATIENCE_S
        for process in self._running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.error("process %d did not stop; killed, it resumes from its last snapshot", process.pid)
                process.kill()
        codes = [process.wait() for process in self._running]
        self._running = []
        return codes


def _free_ports(count: int) -> list[int]:
    """Held all at once, so that they differ."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(server.getsockname()[1]) for server in servers]
    for server in servers:
        server.close()
    return ports


def main() -> int:
    parser = argparse.ArgumentParser(prog="just cluster", description="Run one flow as several processes.")
    parser.add_argument("processes", type=int, choices=range(1, MOST + 1), metavar=f"1 … {MOST}")
    parser.add_argument("flow", choices=FLOWS)
    arguments = parser.parse_args()
    log_to_stderr()
    settings = StreamSettings()
    with only_one(arguments.flow, recovery_lock(settings, arguments.flow)):
        pass  # the first of the processes will hold it: so there is none
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if arguments.flow != "bronze":
        recovery_store(settings.data_dir / "recovery" / arguments.flow)  # now, or all would make it at once
    Cluster(arguments.flow, arguments.processes, settings).run(stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
