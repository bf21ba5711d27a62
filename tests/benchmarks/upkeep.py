"""A day of small commits on bronze.trades with upkeep running: files, metadata, a commit and a query stay flat.

Commits come a second apart on a clock of the benchmark's own, or further where there are fewer than 86,400, each
with ``--rows`` trades, through the writer's exactly-once append and the expiry it does itself; the day begins at
noon, so midnight closes a partition. Every ``--every`` commits silver reads what came, then both tables are
compacted and expired. Midway between two such runs the last commits and a query (the last five minutes of one
symbol) are measured in CPU time.

Growth is from the median of the first third to that of the last, as in the soak, after a tenth of the run: a table
that has just begun has fewer snapshots than are kept, and one line alone scatters by a fifth.

    python -m tests.benchmarks.upkeep [--commits N] [--rows N] [--every N] [--without]

``--without`` leaves upkeep out, to show what it is for. Fails when a trade is missing or doubled in bronze or
silver, a snapshot that is kept cannot be read, or what can be counted grows beyond the target.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from unittest import mock

import pyarrow as pa
from pyiceberg.table import Table

from lakehouse.append import append_exactly_once, expire_snapshots
from lakehouse.batch import BatchSession
from lakehouse.dimensions.dim_symbol import read_symbols, seed_dim_symbol
from lakehouse.maintenance.compaction import compact
from lakehouse.maintenance.expiry import expire
from lakehouse.maintenance.orphans import remove_orphans
from lakehouse.maintenance.statistics import table_statistics
from lakehouse.query import Hints, Lake
from lakehouse.settings import LakehouseSettings
from lakehouse.silver.events import refine_trades
from lakehouse.snapshots import local_path
from lakehouse.tables import arrow_schema, create_tables

TABLE, TOPIC = "bronze.trades", "raw.trades"
CHECKPOINTS = 10
"""Lines of the table, the first one aside."""
MEASURED = 50
"""Commits and queries that a checkpoint's figure is the median of."""
TARGET = 1.3
"""Largest growth of what is timed."""
COUNTED = {"files": TARGET, "snapshots": TARGET, "metadata_bytes": TARGET, "on_disk": 1.5}
"""Largest growth of what is counted. Each of some thirty old snapshots keeps its small files, and so many there
are only when the day is full; what grew with every commit would come to three and a half."""
TIMED = ("commit_ms", "query_ms")
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Checkpoint:
    commits: int
    files: int
    """Data files of the head."""
    on_disk: int
    """Files below the table, metadata and what old snapshots need included."""
    snapshots: int
    metadata_bytes: int
    commit_ms: float
    query_ms: float
    upkeep_ms: float
    """CPU of both tables' upkeep at its last run, for each commit since the one before."""


def rows_of(commit: int, rows: int, at: datetime) -> pa.Table:
    numbers = range(commit * rows, (commit + 1) * rows)
    columns = {
        "event_id": [f"e-{n:012d}" for n in numbers],
        "timestamp": [at + timedelta(microseconds=n % rows) for n in numbers],
        "sequence": list(numbers),
        "trade_id": [f"t-{n:012d}" for n in numbers],
        "symbol": [("AAPL", "MSFT", "TSLA", "NVDA")[n % 4] for n in numbers],
        "price": [Decimal(100 + n % 977) for n in numbers],
        "quantity": [Decimal(n % 500 + 1) for n in numbers],
        "is_aggressive_buy": [n % 2 == 0 for n in numbers],
        "_kafka_topic": [TOPIC] * rows,
        "_kafka_partition": [0] * rows,
        "_kafka_offset": list(numbers),
        "_ingested_at": [at] * rows,
    } | {
        name: [f"{name[:4]}-{n * 7919 % 10_000:04d}" for n in numbers]
        for name in ("buy_order_id", "sell_order_id", "buyer_agent_id", "seller_agent_id")
    }
    schema = arrow_schema(TABLE)
    nothing = [None] * rows
    return pa.table([pa.array(columns.get(f.name, nothing), f.type) for f in schema], schema=schema)


def measured_query(lake: Lake, now: datetime, commit_every_s: int) -> float:
    """CPU milliseconds of the last five minutes (at least two commits) of one symbol, median."""
    window = (now - timedelta(seconds=max(300, 2 * commit_every_s)), now)
    sql = f"select count(*) as n, sum(quantity) from {TABLE} where symbol = 'AAPL' and timestamp >= ?"
    spent = []
    for _ in range(MEASURED // 5):
        began = time.process_time()
        assert lake.rows(sql, [window[0]], hints=Hints(window))[0]["n"]
        spent.append(time.process_time() - began)
    return 1000 * statistics.median(spent)


def run(home: Path, commits: int, rows: int, every: int, upkeep: bool) -> list[Checkpoint]:
    settings = LakehouseSettings(data_dir=home, query_refresh_seconds=0)
    noon = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=2)
    with mock.patch("time.time", return_value=noon.timestamp()) as clock:
        session = BatchSession.open(settings)
        create_tables(session.catalog)
        seed_dim_symbol(session.catalog, read_symbols(), as_of=noon)
        lake = Lake(settings, session.catalog)
        table = session.catalog.load_table(TABLE)
        checkpoints: list[Checkpoint] = []
        spent: deque[float] = deque(maxlen=MEASURED)
        upkeep_s = 0.0
        for number in range(commits):
            event_time = noon + timedelta(seconds=number * DAY_S // commits)
            clock.return_value = event_time.timestamp()
            batch = rows_of(number, rows, event_time)
            began = time.process_time()
            append_exactly_once(table, batch, {TOPIC: {0: (number + 1) * rows}})
            expire_snapshots(table, at=settings.snapshots_expire_at, keep=settings.snapshots_kept)
            spent.append(time.process_time() - began)
            if upkeep and number % every == every - 1:
                refine_trades(session)
                began = time.process_time()
                for name in (TABLE, "silver.trades"):
                    compact(session, name)
                    expire(session.catalog, name, keep=settings.snapshots_kept, known=session.known[name])
                upkeep_s = time.process_time() - began
            if number % every == every // 2 and number // every % max(1, commits // every // CHECKPOINTS) == 0:
                query_ms = measured_query(lake, event_time, DAY_S // commits)
                checkpoints.append(checkpoint(session, table, number + 1, spent, query_ms, upkeep_s / every))
                print(row(checkpoints[-1]), flush=True)
        check(session, commits * rows)
        left = remove_orphans(session.catalog, TABLE, now=datetime.now(UTC) + timedelta(days=2), dry_run=True)
        print(f"files that nothing names at the end: {len(left.paths)}")
    return checkpoints


def checkpoint(
    session: BatchSession, table: Table, commits: int, spent: Iterable[float], query_ms: float, upkeep_s: float
) -> Checkpoint:
    found = table_statistics(session.catalog, TABLE)
    root = Path(local_path(table.location()))
    return Checkpoint(
        commits,
        found.files,
        sum(path.is_file() for path in root.rglob("*")),
        found.snapshots,
        found.metadata_size,
        1000 * statistics.median(spent),
        query_ms,
        1000 * upkeep_s,
    )


def growth_of(checkpoints: list[Checkpoint]) -> dict[str, float]:
    """From the first third to the last, the first checkpoint left out."""
    running = checkpoints[1:]
    third = max(1, len(running) // 3)

    def median(of: list[Checkpoint], what: str) -> float:
        return statistics.median(getattr(each, what) for each in of)

    return {what: median(running[-third:], what) / median(running[:third], what) for what in (*COUNTED, *TIMED)}


def check(session: BatchSession, trades: int) -> None:
    refine_trades(session)
    for name in (TABLE, "silver.trades"):
        found = session.catalog.load_table(name)
        ids = found.scan(selected_fields=("trade_id",)).to_arrow()["trade_id"]
        assert len(ids) == len(ids.unique()) == trades, f"{name}: {len(ids)} rows, {len(ids.unique())} of {trades}"
        for snapshot in found.metadata.snapshots:
            assert found.scan(snapshot_id=snapshot.snapshot_id, selected_fields=("sequence",)).count() >= 0


def row(c: Checkpoint) -> str:
    return (
        f"| {c.commits:,} | {c.files} | {c.on_disk:,} | {c.snapshots} | {c.metadata_bytes / 1024:,.0f} KiB "
        f"| {c.commit_ms:.1f} ms | {c.query_ms:.1f} ms | {c.upkeep_ms:.1f} ms |"
    )


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--commits", type=int, default=2_000)
    parser.add_argument("--rows", type=int, default=20)
    parser.add_argument("--every", type=int, default=60, help="commits between two runs of upkeep")
    parser.add_argument("--without", action="store_true", help="no upkeep but what the writer does itself")
    arguments = parser.parse_args()
    print("| commits | data files | on disk | snapshots | metadata | commit, CPU | query, CPU | upkeep a commit |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as home:
        found = run(Path(home), arguments.commits, arguments.rows, arguments.every, not arguments.without)
    growth = growth_of(found)
    print("growth:", ", ".join(f"{what} {by:.2f}" for what, by in growth.items()))
    print(f"bench upkeep value={max(growth[what] for what in TIMED):.2f} unit=growth target<={TARGET}")
    return int(any(growth[what] > most for what, most in COUNTED.items()) and not arguments.without)


if __name__ == "__main__":
    sys.exit(main())
