"""Half an hour of the whole system: is the memory of each process flat, and the latency the same at the end?

Starts an instance of its own, as the benchmark e2e does, reads every trade, quote and book of its live stream,
and looks at the resident memory of each service, its child processes included, every few seconds. It grows when
it takes more in the last third of the time than in the first, by more than 5 % and more than 5 MB. Prometheus is
shown but not judged: it keeps two to three hours of samples in memory, and then writes a block of them.

    python -m tests.benchmarks.soak [--minutes M] [--rate EVENTS_PER_SECOND] [--broker auto|kafka|embedded]

Fails when a process grew or was started again, when the exchange printed fewer events a second than wanted, or
when the reader did not get exactly the events that stand in the exchange's journal.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, linear_regression

from deploy.local.supervision import Supervisor
from tests.benchmarks.e2e import EVENTS_AT_ACTIVITY_1, MARGIN, measure, percentile
from tests.e2e.instance import Instance

LOOK_S = 5.0
GROWTH, GROWTH_MB = 0.05, 5.0
"""What a process may grow by; less is noise of the allocator."""
NOT_JUDGED = {"prometheus"}
JOURNAL_MB = 16_384
"""More than an hour prints: the journal is what the reader's events are compared with."""


@dataclass
class Memory:
    """Of one service, over the time."""

    name: str
    samples: list[tuple[float, float]] = field(default_factory=list)
    """Seconds since the start, resident MB."""
    pids: set[int] = field(default_factory=set)

    def third(self, number: int) -> float:
        """Mean MB in the ``number``-th third (0, 1, 2)."""
        count = len(self.samples)
        return fmean(mb for _, mb in self.samples[number * count // 3 : (number + 1) * count // 3])

    def slope(self) -> float:
        """MB an hour, by least squares."""
        times, sizes = zip(*self.samples, strict=True)
        return 3600 * linear_regression(times, sizes).slope

    def fault(self) -> str:
        """What is wrong with it; empty when nothing is."""
        if len(self.pids) > 1:
            return "was started again"
        first, last = self.third(0), self.third(2)
        if self.name in NOT_JUDGED:
            return ""
        return "grew" if last - first > max(GROWTH_MB, GROWTH * first) else ""


def watch(supervisor: Supervisor, warm_up: float, stop: threading.Event, found: dict[str, Memory]) -> None:
    """Sample every service from ``warm_up`` seconds on, until ``stop`` is set."""
    begun = time.monotonic()
    if stop.wait(warm_up):
        return
    while not stop.wait(LOOK_S):
        for process in supervisor.processes().values():
            memory = found.setdefault(process.name, Memory(process.name))
            memory.pids.add(process.pid)
            if process.pid:
                memory.samples.append((time.monotonic() - begun, resident_mb(process.pid)))


def resident_mb(pid: int) -> float:
    """Own memory of a process and its children, without pages of the files that they map: these are the kernel's
    cache. 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        tasks = Path(f"/proc/{pid}/task").iterdir()
        children = [child for task in tasks for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    own = sum(int(line.split()[1]) for line in status.splitlines() if line.startswith(("RssAnon", "RssShmem")))
    return own / 1024 + sum(resident_mb(int(child)) for child in children)


def report_memory(memories: list[Memory]) -> bool:
    """Print a line for each service; whether all are flat."""
    print(f"{'service':<12}{'first third':>14}{'last third':>14}{'slope':>14}")
    for memory in memories:
        print(
            f"{memory.name:<12}{memory.third(0):>11.1f} MB{memory.third(2):>11.1f} MB"
            f"{memory.slope():>9.1f} MB/h  {memory.fault()}"
        )
    worst = max(memory.third(2) / memory.third(0) for memory in memories)
    print(f"bench soak value={worst:.3f} unit=of_first_third")
    return not any(memory.fault() for memory in memories)


def report_latency(latencies: dict[str, list[float]]) -> None:
    """p50 and p99 in each third of the events."""
    for number in range(3):
        third = sorted(
            latency
            for found in latencies.values()
            for latency in found[number * len(found) // 3 : (number + 1) * len(found) // 3]
        )
        shown = ", ".join(f"p{100 * p:g} {1e3 * percentile(third, p):.1f} ms" for p in (0.5, 0.99))
        print(f"third {number + 1}: {len(third):,} events, {shown}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30, help="length of the measurement")
    parser.add_argument("--warm-up", type=float, default=180, help="seconds before it")
    parser.add_argument("--rate", type=float, default=5_000, help="events/s that the exchange has to print")
    parser.add_argument("--broker", default="auto", help="auto, kafka, embedded or HOST:PORT")
    arguments = parser.parse_args()
    settings = {
        "TICKHOUSE_EXCHANGE_ACTIVITY": f"{arguments.rate * MARGIN / EVENTS_AT_ACTIVITY_1:.3f}",
        "TICKHOUSE_EXCHANGE_JOURNAL_MAX_MB": str(JOURNAL_MB),
    }
    memories: dict[str, Memory] = {}
    stop = threading.Event()
    with tempfile.TemporaryDirectory(prefix="tickhouse-soak-") as directory:
        instance = Instance.create(Path(directory) / "data", settings)
        watcher = threading.Thread(target=watch, args=(instance.supervisor, arguments.warm_up, stop, memories))
        try:
            print(instance.up(f"broker={arguments.broker}"))
            watcher.start()
            latencies, rate = measure(instance, arguments.warm_up, 60 * arguments.minutes, when_read=stop.set)
        finally:
            stop.set()
            instance.end()
    print(
        f"exchange printed {rate:,.0f} events/s for {arguments.minutes:g} minutes; the reader got all of its kinds"
    )
    report_latency(latencies)
    flat = report_memory(list(memories.values()))
    if rate < arguments.rate:
        print(f"only {rate:,.0f} events/s were printed, {arguments.rate:,.0f} are wanted", file=sys.stderr)
    return 0 if flat and rate >= arguments.rate else 1


if __name__ == "__main__":
    sys.exit(main())
