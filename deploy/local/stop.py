"""Bring the system down without losing anything: the source first, then everything downstream once it is empty.

In: a running supervisor. Out: no process, and the words for what was done. What had not reached the next stage
when the time was up is not lost either: the exchange's journal or Kafka has it, and the next start reads it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path

from deploy.local import probes
from deploy.local.services import Service
from deploy.local.start import Report, stop_everything
from deploy.local.supervision import Supervisor

POLL_SECONDS = 0.5
QUIET_POLLS = 3  # lag is measured about once a second; a single zero may be older than the last message


def drain_and_stop(
    supervisor: Supervisor, listed: Iterable[Service], drain_seconds: float, report: Report
) -> None:
    """Stop services in rising `stop_step`, waiting for the bridge and then the flows to catch up.

    Raises:
        LaunchError: a process did not go, not even by SIGKILL.
    """
    running = {p.name for p in supervisor.processes().values() if p.pid}
    up = sorted((s for s in listed if s.name in running), key=lambda s: s.stop_step)
    deadline = time.monotonic() + drain_seconds
    for step, group in groupby(up, key=lambda s: s.stop_step):
        stopping = list(group)
        if step == 2:
            report(_drained_bridge(supervisor.root, stopping, deadline))
        if step == 3:
            report(_drained_flows(stopping, deadline))
        begun = time.monotonic()
        supervisor.stop_services(service.name for service in stopping)
        names = ", ".join(service.name for service in stopping)
        report(f"  stopped {names} in {time.monotonic() - begun:.1f} s")
    escaped = stop_everything(supervisor)
    if escaped:
        report(f"  ended {escaped} more processes that nobody looked after")


def journal_end(root: Path) -> int | None:
    """Last sequence in the newest session of the exchange's journal, None when there is none."""
    segments = sorted(
        (root / "exchange" / "journal").glob("*/*.jsonl"), key=lambda s: (s.stat().st_mtime_ns, s.name)
    )
    for segment in reversed(segments):
        with segment.open("rb") as lines:
            lines.seek(max(0, segment.stat().st_size - 1_000_000))
            complete = [line for line in lines.read().split(b"\n")[:-1] if line.endswith(b"}")]
        if complete:
            sequence = json.loads(complete[-1]).get("data", {}).get("sequence")
            return None if sequence is None else int(sequence)
    return None


def _drained_bridge(root: Path, bridge: list[Service], deadline: float) -> str:
    wanted = journal_end(root)
    port = next((service.metrics_port for service in bridge if service.metrics_port), None)
    if wanted is None or port is None:
        return "  bridge: nothing to wait for"

    def acknowledged() -> float | None:
        metrics = probes.scrape(port)
        return None if metrics is None else metrics.total("tickhouse_bridge_acknowledged_sequence")

    # The exchange is gone, so what it never sent cannot arrive: standing still is as good as reaching the end.
    reached = _until(acknowledged, lambda seen: seen[-1] == wanted or _still(seen, 3 * QUIET_POLLS), deadline)
    rest = 0 if reached is None else wanted - int(reached)
    if reached is None or rest > 0:
        return f"  bridge: acknowledged {reached or 0:.0f} of {wanted}; the rest waits in the exchange's journal"
    return f"  bridge: all {wanted} events of the session are in Kafka"


def _drained_flows(flows: list[Service], deadline: float) -> str:
    ports = [service.metrics_port for service in flows if service.metrics_port]

    def lag() -> float | None:
        read = [metrics for metrics in map(probes.scrape, ports) if metrics is not None]
        return sum(metrics.total("tickhouse_flow_lag_messages") or 0.0 for metrics in read) if read else None

    left = _until(lag, lambda seen: seen[-1] == 0 and _still(seen, QUIET_POLLS), deadline)
    if left:
        return f"  flows: {left:.0f} messages were not read in time; they wait in Kafka for the next start"
    return "  flows: every message was read"


def _still(seen: list[float], polls: int) -> bool:
    return len(seen) >= polls and len(set(seen[-polls:])) == 1


def _until(read: Callable[[], float | None], done: Callable[[list[float]], bool], deadline: float) -> float | None:
    """Poll `read` until `done` with the values so far, the deadline, or nobody answers; the last value."""
    seen: list[float] = []
    while (value := read()) is not None:
        seen.append(value)
        if done(seen) or time.monotonic() > deadline:
            break
        time.sleep(POLL_SECONDS)
    return seen[-1] if seen else None
