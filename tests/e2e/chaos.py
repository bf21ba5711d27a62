"""SIGKILL, many times: ``just chaos [--seed N] [--kills K] [--broker auto|kafka|embedded] [--brokers 1|3]``.

Starts a system of its own, kills its services at seeded moments and at named points of their code while trades
flow, runs a rival bronze writer beside the first for a while, then stops the exchange, lets everything drain, and
compares every layer with what the exchange printed:

- bronze holds each (topic, partition, offset) of Kafka once, and each event of the exchange once;
- silver holds each trade once, gold adds up to them;
- the newest revision of every one-minute window equals DuckDB's aggregate of the exchange's journal;
- alerts.price holds exactly the alerts that the rules raise over the raw topics read in one go, each once.

Prints one line a kill; ends with ``chaos: ok`` or the differences and exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition
from pyiceberg.catalog import Catalog

from dataflows.alerts import AlertLogic
from dataflows.kafka import Frames
from dataflows.sink import Output
from dataflows.topics import RAW_QUOTES, RAW_TRADES, RAW_TRADING_HALTS
from deploy.local.services import broker_services, service_environment
from tests.e2e import journal, layers
from tests.e2e.figures import Bar
from tests.e2e.instance import ROOT, Instance, free_port_block, until

VICTIMS = {
    "exchange": 2,
    "bridge": 4,
    "bronze": 4,
    "enrichment": 3,
    "vwap": 3,
    "alerts": 3,
    "orderbook": 3,
    "flows": 2,
    "api": 1,
    "broker": 1,
}
"""Service → how often it is chosen, relative to the others."""

SINK_POINTS = (
    "dataflows.sink:_SinkPartition.snapshot:before",
    "dataflows.sink:_SinkPartition.snapshot:after",
    "dataflows.kafka:_SourcePartition.snapshot:after",
    "dataflows.sink:read_back:before",
    "dataflows.sink:read_back:after",
)
COMMIT_POINTS = (
    "pyiceberg.catalog.sql:SqlCatalog.commit_table:before",
    "pyiceberg.catalog.sql:SqlCatalog.commit_table:after",
)
POINTS = {
    "exchange": ("simulator.journal:Journal.append:before", "simulator.journal:Journal.append:after"),
    "bridge": (
        "dataflows.checkpoint:save:before",
        "dataflows.checkpoint:save:after",
        "dataflows.checkpoint:read_ends:after",
    ),
    "bronze": (*COMMIT_POINTS, "lakehouse.append:expire_snapshots:before"),
    "enrichment": (*SINK_POINTS, "dataflows.sink:_SinkPartition._produce:after"),
    "vwap": SINK_POINTS,
    "alerts": SINK_POINTS,
    "orderbook": (*SINK_POINTS, "dataflows.sink:_SinkPartition._produce:before"),
    "flows": COMMIT_POINTS,
}
MODULES = {"exchange": "simulator", "flows": "flows.deployments", "api": "api"}

HEAL_SECONDS = 120.0
DRAIN_SECONDS = 240.0


def create(data_dir: Path, **settings: str) -> Instance:
    """An instance whose services can be killed at named points; not started yet."""
    orders = data_dir.parent / "crash-points"
    orders.mkdir()
    python_path = str(Path(__file__).with_name("crash_points"))
    return Instance.create(data_dir, {"PYTHONPATH": python_path, "CRASH_POINTS_DIR": str(orders), **settings})


class Storm:
    """Kills services of a running instance until ``kills`` are reached."""

    def __init__(self, instance: Instance, seed: int) -> None:
        self._instance = instance
        self._random = random.Random(seed)
        self._orders = Path(instance.environment["CRASH_POINTS_DIR"])
        self.kills: Counter[str] = Counter()
        """Service, or service and point → kills."""

    def rage(self, kills: int) -> None:
        """Raises AssertionError: a service did not come back, or never reached a point it was to die at."""
        launch = self._instance.launch
        names = [name for name in VICTIMS if name != "broker"]
        if launch.broker.kind == "kafka":  # the development one does not promise to survive
            names += [service.name for service in broker_services(launch.broker)]
        weights = [VICTIMS[name.partition("-")[0]] for name in names]
        while self.kills.total() < kills:
            name = self._random.choices(names, weights)[0]
            point = self._random.choice(POINTS.get(name, ("",))) if self._random.random() < 0.5 else ""
            self._kill(name, point)
            time.sleep(self._random.uniform(0.05, 2.0))
        self._await_orders()

    def _kill(self, name: str, point: str) -> None:
        order = self._orders / MODULES.get(name, f"dataflows.{name}")
        if point and not order.exists():
            count = 1 if "read_" in point else self._random.randint(1, 4)
            order.write_text(f"{point}:{count}")
            self._count(f"{name} {point}")  # the kill that follows from the order
        until(lambda: self._killed(name), bool, HEAL_SECONDS, f"{name} is running")
        self._count(name)

    def _killed(self, name: str) -> bool:
        """False where it is not running at this moment, or died of an order between the look and the blow."""
        pid = self._instance.health()[name].pid
        with suppress(ProcessLookupError):
            if pid:
                os.kill(pid, signal.SIGKILL)
                return True
        return False

    def _count(self, what: str) -> None:
        self.kills[what] += 1
        print(f"kill {self.kills.total():>4}  {what}", flush=True)

    def _await_orders(self) -> None:
        until(
            lambda: [path.read_text() for path in self._orders.iterdir()],
            lambda left: not left,
            HEAL_SECONDS,
            "every ordered point was reached",
        )


def rival(instance: Instance) -> subprocess.Popen[bytes]:
    """A second bronze writer on the same partitions, as after a split of the network."""
    launch = instance.launch
    environment = {
        **instance.environment,
        **service_environment(instance.settings, launch.broker),
        "TICKHOUSE_BRONZE_METRICS_PORT": str(free_port_block()),
    }
    log = (instance.data_dir / "logs" / "rival.log").open("wb")
    with log:
        return subprocess.Popen(
            [sys.executable, "-m", "dataflows.bronze"], cwd=ROOT, env=environment, stdout=log, stderr=log
        )


def drain(instance: Instance) -> None:
    """Stop the exchange for good, and wait until every service is ready and bronze holds what it printed."""
    until(
        lambda: [row.name for row in instance.health().values() if not row.ready],
        lambda names: not names,
        HEAL_SECONDS,
        "every service is ready",
    )
    instance.supervisor.stop_services(["exchange"])
    printed, events, catalog = (
        journal.totals(instance.data_dir),
        journal.events(instance.data_dir),
        instance.catalog(),
    )
    until(
        lambda: layers.bronze_differences(catalog, events),
        lambda lines: not lines,
        DRAIN_SECONDS,
        "bronze is whole",
    )
    for table in ("silver.trades", "gold.minute_bars", "gold.daily_trading_summary"):
        read = layers.gold if table.startswith("gold") else layers.trades
        until(lambda: read(catalog, table), lambda found: found == printed, DRAIN_SECONDS, f"{table} is whole")  # noqa: B023
    until(
        lambda: layers.enriched(instance.kafka), lambda t: t == printed, DRAIN_SECONDS, "processed.trades is whole"
    )
    until(lambda: layers.window_totals(instance.kafka), lambda t: t == printed, DRAIN_SECONDS, "windows are whole")


def differences(instance: Instance) -> list[str]:
    """One line for each difference between the layers and what the exchange printed; none when all is right."""
    catalog, kafka = instance.catalog(), instance.kafka
    lines = offset_differences(catalog, kafka)
    expected, found = journal.windows(instance.data_dir), layers.windows(kafka)
    lines += [
        f"window {key}: {found.get(key)}, and {bar} in the journal" for key, bar in _unequal(expected, found)
    ]
    raised, written = (
        alerts_of_raw(kafka),
        Counter(row["alert_id"] for row in layers.messages(kafka, "alerts.price")),
    )
    lines += [f"alert {alert}: {written[alert]} times, and {raised[alert]} from the raw topics"
              for alert in sorted(raised.keys() | written.keys()) if raised[alert] != written[alert]]  # fmt: skip
    dead = layers.dead_letters(kafka)
    return lines + ([f"{dead} dead letters"] if dead else [])


def _unequal(
    expected: dict[tuple[str, datetime], Bar], found: dict[tuple[str, datetime], Bar]
) -> list[tuple[tuple[str, datetime], Bar | None]]:
    keys = sorted(expected.keys() | found.keys())
    return [(key, expected.get(key)) for key in keys if expected.get(key) != found.get(key)]


def offset_differences(catalog: Catalog, bootstrap: str) -> list[str]:
    """One line for each raw partition of which bronze does not hold every offset exactly once."""
    lines = []
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "e2e-reader"})
    try:
        topics = consumer.list_topics(timeout=20).topics
        for topic, table in layers.TABLE_OF_TOPIC.items():
            stored = layers.offsets(catalog, table)
            for number in topics[topic].partitions:
                low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=20)
                rows, distinct, first, last = stored.get(number, (0, 0, 0, -1))
                if high and (rows, distinct, first, last) != (high - low, high - low, low, high - 1):
                    lines.append(
                        f"{table}: {topic}/{number} has offsets {low} to {high - 1}; stored are {rows} rows "
                        f"of {distinct} offsets from {first} to {last}"
                    )
    finally:
        consumer.close()
    return lines


def alerts_of_raw(bootstrap: str) -> Counter[str]:
    """Alert ids that the rules raise over the raw topics, each partition read in one go."""
    raised: Counter[str] = Counter()
    for topic in (RAW_TRADES, RAW_QUOTES, RAW_TRADING_HALTS):
        rules: defaultdict[int, AlertLogic] = defaultdict(lambda: AlertLogic(None))
        offsets: Counter[int] = Counter()
        for number, value in layers.values(bootstrap, topic):
            frames = Frames(topic, number, [offsets[number]], [value], [None], [0])
            offsets[number] += 1
            for _, output in rules[number].on_batch([frames])[0]:
                assert isinstance(output, Output), f"{topic}/{number}: {output}"
                raised[json.loads(output.value)["alert_id"]] += 1
    return raised


def run(instance: Instance, kills: int, seed: int) -> tuple[Counter[str], list[str]]:
    """The whole proof on an instance that runs: kills by what, and the differences."""
    catalog, storm = instance.catalog(), Storm(instance, seed)
    until(lambda: layers.trades(catalog, "bronze.trades").trades, bool, HEAL_SECONDS, "trades are in bronze")
    storm.rage(kills // 2)
    second = rival(instance)
    try:
        storm.rage(kills)
    finally:
        second.kill()
        second.wait()
    drain(instance)
    return storm.kills, differences(instance)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--broker", default="auto")
    parser.add_argument("--brokers", default="1", help="nodes of Apache Kafka: 1 or 3")
    options = parser.parse_args()
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="tickhouse-chaos-"))
    instance = create(folder / "data", TICKHOUSE_BRONZE_COMMIT_SECONDS="2")
    try:
        instance.up(f"broker={options.broker}", f"brokers={options.brokers}")
        kills, lines = run(instance, options.kills, options.seed)
        printed = journal.totals(instance.data_dir)
    except BaseException:
        print(f"{instance.log_ends()}\neverything it left is in {folder}")
        raise
    finally:
        instance.end()
    print("\n".join(lines[:50]))
    seconds = time.monotonic() - began
    print(f"{kills.total()} kills in {seconds:.0f} s, seed {options.seed}; {printed.trades:,} trades")
    if lines:
        print(f"chaos: {len(lines)} differences; everything is in {folder}")
        return 1
    shutil.rmtree(folder)
    print("chaos: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
