"""What the batch side costs: its schedules in an idle minute, and the micro-batch of every minute under load.

``idle``: Prefect's server and the batch process on an empty lakehouse beside an idle broker, all schedules on; CPU
time of both, all threads, as a share of one core; target 5 %. ``batch``: a whole system whose exchange prints at
least the wanted rate; from the moment a run of silver was due to the end of it and of the run of gold that it set
going; target 10 s.

    python -m tests.benchmarks.flows [idle|batch] [--minutes M] [--rate EVENTS_PER_SECOND]

Fails when a run failed, or fewer events than wanted arrived.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from flows.settings import prefect_environment
from lakehouse.batch import BatchSession
from lakehouse.settings import LakehouseSettings
from tests.benchmarks.e2e import EVENTS_AT_ACTIVITY_1, MARGIN
from tests.brokers import LocalBroker, free_ports
from tests.e2e.instance import Instance, until
from tests.flows.conftest import Service

SETTLE_S = 70
"""Until the first runs have been, and what they imported is there."""
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / TICKS


def runs(api: str, since: datetime, *flows: str) -> list[dict[str, Any]]:
    """Runs that were due since then, of some flows or of all."""
    body: dict[str, Any] = {"flow_runs": {"expected_start_time": {"after_": since.isoformat()}}, "limit": 200}
    if flows:
        body["flows"] = {"name": {"any_": flows}}
    found: list[dict[str, Any]] = httpx.post(f"{api}/flow_runs/filter", json=body, timeout=30).json()
    return found


def idle(minutes: int) -> float:
    """Per cent of a core."""
    with tempfile.TemporaryDirectory(prefix="tickhouse-bench-") as directory:
        home = Path(directory)
        broker = LocalBroker("embedded", home, {})
        broker.start()
        port, metrics = free_ports(2)
        environment = prefect_environment(home, port) | {
            "TICKHOUSE_DATA_DIR": str(home),
            "TICKHOUSE_PREFECT_PORT": str(port),
            "TICKHOUSE_FLOWS_METRICS_PORT": str(metrics),
            "TICKHOUSE_KAFKA_BOOTSTRAP": broker.address,
        }
        services = [Service.start(name, environment, home) for name in ("flows.server", "flows.deployments")]
        try:
            url = f"http://127.0.0.1:{metrics}/metrics"
            services[1].eventually("readiness", lambda: "tickhouse_service_ready 1.0" in httpx.get(url).text)
            time.sleep(SETTLE_S)
            since = datetime.now(UTC)
            before = [cpu_seconds(service.process.pid) for service in services]
            time.sleep(60 * minutes)
            used = [cpu_seconds(s.process.pid) - was for s, was in zip(services, before, strict=True)]
            states = [run["state_type"] for run in runs(environment["PREFECT_API_URL"], since)]
        finally:
            for service in reversed(services):
                service.stop()
            broker.stop()
    assert "FAILED" not in states
    ended = states.count("COMPLETED")
    print(f"{ended} runs in {minutes} idle minutes: server {used[0]:.1f}, batch {used[1]:.1f} CPU-s")
    return 100 * sum(used) / (60 * minutes)


def batch(minutes: int, rate: float) -> list[float]:
    """Seconds that each minute's batch took."""
    with tempfile.TemporaryDirectory(prefix="tickhouse-bench-") as directory:
        activity = rate * MARGIN / EVENTS_AT_ACTIVITY_1
        instance = Instance.create(Path(directory) / "data", {"TICKHOUSE_EXCHANGE_ACTIVITY": f"{activity:.3f}"})
        try:
            instance.up()
            api = f"http://127.0.0.1:{instance.settings.prefect_port}/api"
            time.sleep(SETTLE_S)
            since = datetime.now(UTC)
            lake = BatchSession.open(LakehouseSettings(data_dir=instance.data_dir))
            began, arrived = time.monotonic(), bronze_rows(lake)
            time.sleep(60 * minutes)
            printed = (bronze_rows(lake) - arrived) / (time.monotonic() - began)
            last = datetime.now(UTC) - timedelta(seconds=1)
            found = until(lambda: pairs(api, since, last), lambda pairs: len(pairs) >= minutes - 1, 120, "runs")
        finally:
            instance.end()
    assert printed >= rate, f"only {printed:,.0f} events/s came"
    print(f"batch at {printed:,.0f} events/s: " + ", ".join(f"{seconds:.1f}" for seconds in found) + " s")
    return found


def bronze_rows(lake: BatchSession) -> int:
    tables = lake.catalog.list_tables("bronze")
    loaded = {".".join(name): lake.catalog.load_table(name) for name in tables}
    return sum(f.rows for name, table in loaded.items() for f in lake.manifests.files(name, table).files)


def pairs(api: str, since: datetime, last: datetime) -> list[float]:
    """From when silver was due to the end of it and of its gold, for each minute of which both have ended."""
    golds = [run for run in runs(api, since, "gold") if not run["auto_scheduled"]]
    seconds = []
    for silver in runs(api, since, "silver"):
        if not silver["auto_scheduled"] or silver["state_type"] == "CANCELLED" or silver["end_time"] is None:
            continue
        began, ended = (datetime.fromisoformat(silver[name]) for name in ("start_time", "end_time"))
        due = datetime.fromisoformat(silver["expected_start_time"])
        for gold in golds:
            asked = datetime.fromisoformat(gold["expected_start_time"])
            if began <= asked <= ended and gold["end_time"] is not None and due <= last:
                assert gold["state_type"] == silver["state_type"] == "COMPLETED"
                seconds.append((max(ended, datetime.fromisoformat(gold["end_time"])) - due).total_seconds())
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["idle", "batch"], help="default: both")
    parser.add_argument("--minutes", type=int, default=5, help="how long each part measures")
    parser.add_argument("--rate", type=float, default=2_000, help="events/s that the exchange has to print")
    arguments = parser.parse_args()
    if arguments.part != "batch":
        print(f"bench flows_idle value={idle(arguments.minutes):.2f} unit=percent_of_core")
    if arguments.part != "idle":
        seconds = batch(arguments.minutes, arguments.rate)
        print(f"bench flows_batch value={statistics.median(seconds):.1f} unit=s")
        print(f"bench flows_batch value={max(seconds):.1f} unit=s_worst")
    return 0


if __name__ == "__main__":
    sys.exit(main())
