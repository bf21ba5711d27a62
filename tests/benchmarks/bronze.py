"""Rows a CPU-second from a topic to committed Iceberg rows, beside the textbook writer and one bare append.

Trades go into raw.trades of a real broker, as the bridge writes them; the writer is the real one (``python -m
dataflows.bronze``), idle before. ``textbook`` is the obvious writer: one ``poll``, ``json.loads`` and dict a
message, ``Table.append`` and an offset commit every 1,000 rows. ``append`` is one pyiceberg ``Table.append`` of
the Arrow table that the writer made, nothing else.

Then the cost of a commit: small commits one after another, the last ones in turns with those after the 100th of a
second table.

    python -m tests.benchmarks.bronze [--rows N] [--repeats N] [--commits N] [--without-textbook]
        [--broker auto|kafka|embedded]

CPU time of the whole process, all threads, after its start and its first 1,000 rows, which load what is loaded
once; medians of the repeats. Fails when a side's rows are not the others'.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from confluent_kafka import Consumer, Producer
from pyiceberg.table import Table

from dataflows.settings import StreamSettings
from dataflows.topics import RAW_TRADES, ensure_topics
from lakehouse.append import append_exactly_once, expire_snapshots
from lakehouse.catalog import open_catalog
from lakehouse.frames import FrameParser, Records
from lakehouse.settings import LakehouseSettings
from lakehouse.tables import arrow_schema, create_tables
from lakehouse.texts import Keys, Texts
from simulator.events import format_timestamp
from tests.benchmarks.brokers import ROOT, a_broker

TARGET_TEXTBOOK, TARGET_APPEND, TARGET_GROWTH = 10.0, 0.3, 1.3
TABLE = "bronze.trades"
START_US = 1_770_000_000_000_000
COMMITS_AT_ONCE = 100
FIRST = 1_000
"""Rows of every side before it is measured."""
DEADLINE_S = 600


def frame(number: int) -> bytes:
    return (
        f'{{"event_type":"TradeExecuted","data":{{"event_id":"e-0123456789ab-{number}","timestamp":'
        f'"{format_timestamp(START_US + 997 * number)}","sequence":{number},"trade_id":"t-0123456789ab-{number}",'
        f'"symbol":"S{number % 24:02d}","price":{100 + number % 977}.{number % 100:02d},'
        f'"quantity":{number % 500 + 1},'
        f'"buy_order_id":"o-0123456789ab-{number}","sell_order_id":"o-0123456789ab-{number // 2}",'
        f'"buyer_agent_id":"retail-{number % 200:04d}","seller_agent_id":"mm-{number % 10:03d}",'
        f'"is_aggressive_buy":{"true" if number % 2 else "false"}}}}}'
    ).encode()


def produce(bootstrap: str, numbers: range) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "compression.type": "lz4"})
    for number in numbers:
        headers = [("event_type", "TradeExecuted"), ("source", "BENCH"), ("received_at", str(time.time_ns()))]
        while True:
            try:
                producer.produce(RAW_TRADES, frame(number), f"S{number % 24:02d}", headers=headers)
                break
            except BufferError:
                producer.poll(0.05)
    assert producer.flush(60) == 0


def table(home: Path) -> Table:
    catalog = open_catalog(LakehouseSettings(data_dir=home))
    create_tables(catalog)
    return catalog.load_table(TABLE)


def rows_of(home: Path) -> pa.Table:
    rows: pa.Table = table(home).scan().to_arrow()
    return rows.sort_by("sequence")


def meaning(rows: pa.Table) -> pa.Table:
    return rows.select([name for name in rows.schema.names if name not in ("_ingested_at", "_received_at")])


# --- the sides, each a process


def textbook(bootstrap: str, home: Path, rows: int) -> float:
    """CPU seconds."""
    target, schema = table(home), arrow_schema(TABLE)
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": f"textbook-{home.name}", "auto.offset.reset": "earliest"}
        | {"enable.auto.commit": False, "receive.message.max.bytes": 1_000_000_000}
    )
    consumer.subscribe([RAW_TRADES])
    buffer: list[dict[str, Any]] = []
    began, done = 0.0, 0
    while done < rows:
        message = consumer.poll(1.0)
        if message is None or message.error():
            continue
        data = json.loads(message.value(), parse_float=Decimal)["data"]
        received = dict(message.headers() or [])["received_at"]
        buffer.append(
            {
                **data,
                "timestamp": datetime.fromisoformat(data["timestamp"]),
                "price": Decimal(data["price"]),
                "quantity": Decimal(data["quantity"]),
                "_kafka_topic": message.topic(),
                "_kafka_partition": message.partition(),
                "_kafka_offset": message.offset(),
                "_kafka_timestamp": datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC),
                "_received_at": datetime.fromtimestamp(int(received) / 1e9, UTC),
                "_ingested_at": datetime.now(UTC),
            }
        )
        if len(buffer) == FIRST or done + len(buffer) == rows:
            target.append(pa.Table.from_pylist(buffer, schema=schema))
            consumer.commit(message, asynchronous=False)
            done += len(buffer)
            buffer = []
            began = began or time.process_time()
    used = time.process_time() - began
    consumer.close()
    return used


def bare_append(source: Path, home: Path) -> float:
    rows = rows_of(source).cast(arrow_schema(TABLE)).combine_chunks()
    target = table(home)
    target.append(rows[:FIRST])
    began = time.process_time()
    target.append(rows[FIRST:])
    return time.process_time() - began


def in_a_process(*arguments: str) -> float:
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.bronze", *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=DEADLINE_S)
    return float(done.stdout.split()[-1])


def until(condition: Callable[[], Any], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert process.poll() is None, "the writer died"
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.2)


def cpu_seconds(pid: int) -> float:
    """Of all threads of a running process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def committed(target: Table) -> int:
    """Rows of the table now."""
    head = target.refresh().current_snapshot()
    return 0 if head is None or head.summary is None else int(head.summary["total-records"] or 0)


def written(bootstrap: str, home: Path, rows: int) -> float:
    """CPU seconds of the real writer; it stands still while the rows are produced."""
    target = table(home)
    log = home / "bronze.log"
    environment = {
        "TICKHOUSE_DATA_DIR": str(home),
        "TICKHOUSE_KAFKA_BOOTSTRAP": bootstrap,
        "TICKHOUSE_BRONZE_METRICS_PORT": "0",
        "TICKHOUSE_BRONZE_COMMIT_SECONDS": "1",  # the last commit comes sooner, with less idle time before it
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "dataflows.bronze"],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
        )
    try:
        produce(bootstrap, range(FIRST))
        until(lambda: committed(target) == FIRST, process)
        before = cpu_seconds(process.pid)
        process.send_signal(signal.SIGSTOP)  # so that it finds a full topic, as the other sides do
        produce(bootstrap, range(FIRST, rows))
        process.send_signal(signal.SIGCONT)
        until(lambda: committed(target) == rows, process)
        return cpu_seconds(process.pid) - before
    finally:
        process.terminate()
        process.wait(timeout=30)


class Commits:
    """Small commits to a table of its own, one after another."""

    def __init__(self, home: Path) -> None:
        self._settings = LakehouseSettings(data_dir=home)
        self._target, self._parser = table(home), FrameParser(TABLE)
        self._done = 0

    def make(self, count: int) -> float:
        """CPU seconds of a commit, its expiry included."""
        used = 0.0
        for number in range(self._done, self._done + count):
            offsets = np.arange(10 * number, 10 * number + 10)
            nothing = np.full(10, -1)
            frames = Texts.of([frame(offset) for offset in offsets.tolist()])
            records = Records(
                RAW_TRADES, np.zeros_like(offsets), offsets, nothing, nothing, Keys.of([None] * 10), frames
            )
            rows, _ = self._parser.parse(records, datetime.now(UTC))
            began = time.process_time()
            append_exactly_once(self._target, rows, {RAW_TRADES: {0: 10 * number + 10}})
            expire_snapshots(
                self._target, at=self._settings.snapshots_expire_at, keep=self._settings.snapshots_kept
            )
            used += time.process_time() - began
        self._done += count
        return used / count


def growth(commits: int) -> tuple[float, float]:
    """CPU seconds of a commit after the 100th, and after ``commits``; in turns, so on a machine as busy."""
    with tempfile.TemporaryDirectory() as young, tempfile.TemporaryDirectory() as old:
        early, late = Commits(Path(young)), Commits(Path(old))
        late.make(commits)
        early.make(COMMITS_AT_ONCE)
        costs = [(early.make(COMMITS_AT_ONCE // 10), late.make(COMMITS_AT_ONCE // 10)) for _ in range(10)]
        first, last = map(statistics.mean, zip(*costs, strict=True))
        return first, last


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--commits", type=int, default=1000)
    parser.add_argument("--without-textbook", action="store_true", help="which grows dear with its commits")
    parser.add_argument("--broker", default="auto")
    parser.add_argument("--textbook", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--append", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.textbook:
        print(textbook(given.textbook[0], Path(given.textbook[1]), given.rows))
        return 0
    if given.append:
        print(bare_append(*map(Path, given.append)))
        return 0
    sides = ("bronze", "append") if given.without_textbook else ("bronze", "append", "textbook")
    used: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(given.repeats):
        with a_broker(given.broker) as bootstrap, tempfile.TemporaryDirectory() as folder:
            ensure_topics(StreamSettings(kafka_bootstrap=bootstrap))
            homes = {side: Path(folder) / side for side in sides}
            for home in homes.values():
                home.mkdir()
            used["bronze"].append(written(bootstrap, homes["bronze"], given.rows))
            used["append"].append(in_a_process("--append", str(homes["bronze"]), str(homes["append"])))
            if "textbook" in homes:
                of_textbook = ("--textbook", bootstrap, str(homes["textbook"]), "--rows", str(given.rows))
                used["textbook"].append(in_a_process(*of_textbook))
            rows = meaning(rows_of(homes["bronze"]))
            if rows.num_rows != given.rows or any(meaning(rows_of(home)) != rows for home in homes.values()):
                print("the sides do not have the same rows", file=sys.stderr)
                return 1
    rate = {side: (given.rows - FIRST) / statistics.median(seconds) for side, seconds in used.items()}
    for side, figure in rate.items():
        print(f"bench bronze.{side} value={figure:.0f} unit=rows/cpu-s")
    if "textbook" in rate:
        print(f"bronze / textbook: {rate['bronze'] / rate['textbook']:.2f} (target {TARGET_TEXTBOOK})")
    print(f"bronze / append: {rate['bronze'] / rate['append']:.2f} (target {TARGET_APPEND})")
    early, late = growth(given.commits)
    print(f"bench bronze.commit value={late * 1000:.1f} unit=ms")
    print(f"commit {given.commits} / commit 100: {late / early:.2f} (target at most {TARGET_GROWTH})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
