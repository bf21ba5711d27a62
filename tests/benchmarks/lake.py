"""What the benchmarks of the lakehouse share: bronze tables to work on, and sides that run in their own processes.

Trades: eleven and a half a second, so a million a UTC day, of 24 symbols by 210 agents; of fifty rows one repeats
an earlier one word for word. Books: ten levels a side, one in fifty repeated.
"""

from __future__ import annotations

import importlib.util
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from lakehouse.append import append_exactly_once
from lakehouse.batch import BatchSession
from lakehouse.dimensions.dim_symbol import read_symbols, seed_dim_symbol
from lakehouse.gold.step import publish
from lakehouse.settings import LakehouseSettings
from lakehouse.silver.activity import refine_activity
from lakehouse.silver.events import refine_orderbook, refine_trades
from lakehouse.tables import arrow_schema, create_tables
from tests.benchmarks.brokers import ROOT

START_US = 1_770_000_000_000_000 // 86_400_000_000 * 86_400_000_000
STEP_US = 86_400
"""Between two trades: a million a day."""
COMMIT_ROWS = 250_000
PANDAS = "pandas==2.3.3"

TRADES = """
select
    'e-8f3a12cd90ab-' || (7 * k) as event_id,
    make_timestamptz({start} + k * {step}) as timestamp,
    7 * k as sequence,
    't-8f3a12cd90ab-' || k as trade_id,
    symbols.symbol,
    cast(100 + (k * 7919 % 5000) / 100.0 as decimal(18, 8)) as price,
    cast(1 + k * 31 % 500 as decimal(18, 8)) as quantity,
    'o-8f3a12cd90ab-' || (13 * k) as buy_order_id,
    'o-8f3a12cd90ab-' || (11 * k) as sell_order_id,
    printf('retail-%04d', k * 7907 % 200) as buyer_agent_id,
    printf('mm-%04d', k * 7901 % 10) as seller_agent_id,
    k * 31 % 7 < 3 as is_aggressive_buy,
    'raw.trades' as _kafka_topic,
    cast(k % 6 as integer) as _kafka_partition,
    place as _kafka_offset,
    make_timestamptz({start} + place * {step}) as _kafka_timestamp,
    make_timestamptz({start} + place * {step}) as _received_at,
    make_timestamptz({start} + place * {step}) as _ingested_at
from places
join symbols on symbols.number = k % 24
order by place
"""
BOOKS = """
select
    'e-8f3a12cd90ab-' || k as event_id,
    make_timestamptz({start} + k * {step}) as timestamp,
    k as sequence,
    symbols.symbol,
    [{{
        price: cast(100 - level / 100.0 as decimal(18, 8)),
        quantity: cast(1 + (k + level) % 300 as decimal(18, 8)),
        order_count: level + 1
    }} for level in range(10)] as bids,
    [{{
        price: cast(100.01 + level / 100.0 as decimal(18, 8)),
        quantity: cast(1 + (k * level) % 300 as decimal(18, 8)),
        order_count: level + 1
    }} for level in range(10)] as asks,
    k as sequence_number,
    'raw.orderbook-snapshots' as _kafka_topic,
    cast(k % 3 as integer) as _kafka_partition,
    place as _kafka_offset,
    make_timestamptz({start} + place * {step}) as _kafka_timestamp,
    make_timestamptz({start} + place * {step}) as _received_at,
    make_timestamptz({start} + place * {step}) as _ingested_at
from places
join symbols on symbols.number = k % 24
order by place
"""


@dataclass(frozen=True, slots=True)
class Run:
    """What a side used."""

    cpu_s: float
    """Of all threads, without the process's start."""
    peak_mb: float
    """Largest resident memory."""
    result: Any


def session(home: Path) -> BatchSession:
    return BatchSession.open(LakehouseSettings(data_dir=home))


def fill(home: Path, rows: int, first: int = 0, table: str = "bronze.trades", step_us: int = STEP_US) -> None:
    """Append rows ``first`` to ``first + rows`` to bronze, in commits of :data:`COMMIT_ROWS`."""
    lake = session(home)
    create_tables(lake.catalog)
    seed_dim_symbol(lake.catalog, read_symbols(), as_of=datetime.now(UTC))
    target, schema = lake.catalog.load_table(table), arrow_schema(table)
    statement = (TRADES if table == "bronze.trades" else BOOKS).format(start=START_US, step=step_us)
    names = [info.symbol for info in read_symbols()]
    with duckdb.connect(config={"threads": 2, "memory_limit": "1GB"}) as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.register("symbols", pa.table({"symbol": names, "number": range(24)}))
        for start in range(first, first + rows, COMMIT_ROWS):
            end = min(start + COMMIT_ROWS, first + rows)
            connection.execute(
                "create or replace temp view places as select place, "
                "greatest(0, if(place % 50 = 49, place - 1 - place * 7919 % 1000, place)) as k "
                f"from range({start}, {end}) as places (place)"
            )
            content = connection.execute(statement).to_arrow_table().cast(schema)
            topic = content["_kafka_topic"][0].as_py()
            append_exactly_once(target, content, {topic: dict.fromkeys(range(6), end)})


def measured(work: Callable[[], Any]) -> Run:
    began = time.process_time()
    result = work()
    used = time.process_time() - began
    return Run(used, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, result)


def of_step(home: Path, step: Callable[[BatchSession], object]) -> Run:
    """What a batch step uses in a process that has run the steps already, on a few rows: Soda, the contracts, and
    compiled code are loaded then, which takes seconds."""
    with tempfile.TemporaryDirectory() as folder:
        for table in ("bronze.trades", "bronze.orderbook_snapshots"):
            fill(Path(folder), 100, table=table)
        warm = session(Path(folder))
        for each in (refine_trades, refine_orderbook, refine_activity, publish):
            each(warm)
    lake = session(home)
    return measured(lambda: str(step(lake)))


def in_a_process(module: str, side: str, home: Path, extra: tuple[str, ...] = (), *arguments: str) -> Run:
    """Run one side of a benchmark; ``extra`` are packages it gets beside the project's."""
    needed = [name for name in extra if importlib.util.find_spec(name.split("==")[0]) is None]
    beside = [part for name in needed for part in ("--with", name)]
    python = ["uv", "run", "--no-sync", *beside, "python"] if beside else [sys.executable]
    command = [*python, "-W", "ignore", "-m", module, "--side", side, "--home", str(home), *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=3600)
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def report(run: Run) -> None:
    """The last line of a side's process."""
    print(json.dumps({"cpu_s": run.cpu_s, "peak_mb": run.peak_mb, "result": run.result}))
