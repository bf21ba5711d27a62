"""Rows a CPU-second from silver.trades to gold's bars and days, beside the textbook way and decoding the columns.

``textbook`` is the pandas way: the day's rows as a frame with prices as floats, sorted, grouped by symbol, one
daily table appended. ``daily`` is gold's way to the same table, by way of the minutes, committed.
``decode`` reads the columns that the bars need and adds nothing to it. ``gold`` is the whole step: four tables,
committed, the data contract checked.

    python -m tests.benchmarks.gold [--rows N] [--repeats R]

CPU time of a process for each side, all threads, without its start; medians of R rounds, sides in turn. Fails when
the daily summaries differ.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from lakehouse.batch import BatchSession
from lakehouse.days import all_days, day_sql, replace_days, window
from lakehouse.gold.spreads import SPREADS
from lakehouse.gold.step import DAILY, SOURCE, compute, day_bars, publish
from lakehouse.silver.events import refine_trades
from tests.benchmarks.lake import PANDAS, Run, fill, in_a_process, measured, of_step, report, session

MODULE = "tests.benchmarks.gold"
TARGETS = {"textbook": 7.0, "decode": 0.5}
"""Of ``daily``, which does what these do."""
COLUMNS = [
    "symbol",
    "timestamp",
    "sequence",
    "trade_id",
    "price",
    "quantity",
    "is_aggressive_buy",
    "company_name",
    "sector",
    "buyer_agent_id",
    "seller_agent_id",
]
COMPARED = (
    "symbol",
    "trading_date",
    "open_price",
    "high_price",
    "low_price",
    "close_price",
    "vwap",
    "total_volume",
    "trade_count",
)


def prepare(home: Path) -> Run:
    """Bronze to silver, in a process of its own, so that the sides begin alike."""
    return of_step(home, refine_trades)


def gold(home: Path) -> Run:
    return of_step(home, publish)


def daily(home: Path) -> Run:
    def work(lake: BatchSession) -> int:
        silver = lake.catalog.load_table(SOURCE)
        snapshot = lake.manifests.files(SOURCE, silver)
        days = all_days(snapshot)
        bars = pa.concat_tables(day_bars(lake, silver.io, snapshot, day) for day in days)
        with lake.connection.cursor() as cursor:
            rows = compute(cursor, bars, SPREADS.empty_table(), lake.clock(), [DAILY])[DAILY]
        return replace_days(lake, lake.catalog.load_table(DAILY), days, [rows], {})

    return of_step(home, work)


def decode(home: Path) -> Run:
    lake = session(home)
    snapshot = lake.manifests.files(SOURCE, lake.catalog.load_table(SOURCE))
    counted = ", ".join(f"bit_xor(hash({name}))" for name in COLUMNS)  # a count needs no decoding

    def work() -> int:
        for day in all_days(snapshot):
            lake.connection.execute(f"select {counted} from ({day_sql(snapshot, day)})").fetchall()
        return len(snapshot.files)

    return measured(work)


def textbook(home: Path) -> Run:
    import pandas as pd  # type: ignore[import-not-found,import-untyped,unused-ignore]

    lake = session(home)
    table = lake.catalog.load_table(SOURCE)
    days = all_days(lake.manifests.files(SOURCE, table))
    kinds = [pa.string(), pa.date32(), *[pa.float64()] * 6, pa.int64()]
    schema = pa.schema(list(zip(COMPARED, kinds, strict=True)))
    target = lake.catalog.create_table("gold.textbook_daily", schema)

    def work() -> int:
        for day in days:
            start, end = (moment.isoformat() for moment in window(day))
            rows = table.scan(f"timestamp >= '{start}' and timestamp < '{end}'", selected_fields=COLUMNS)
            trades = rows.to_arrow()
            for name in ("price", "quantity"):
                trades = trades.set_column(
                    trades.schema.get_field_index(name), name, trades[name].cast(pa.float64())
                )
            frame = trades.to_pandas().sort_values(["timestamp", "sequence", "trade_id"])
            frame["value"] = frame["price"] * frame["quantity"]
            by_day = (
                frame.groupby("symbol")
                .agg(
                    open_price=("price", "first"),
                    high_price=("price", "max"),
                    low_price=("price", "min"),
                    close_price=("price", "last"),
                    value=("value", "sum"),
                    total_volume=("quantity", "sum"),
                    trade_count=("trade_id", "count"),
                )
                .reset_index()
            )
            by_day["vwap"] = by_day["value"] / by_day["total_volume"]
            by_day["trading_date"] = day
            target.append(pa.Table.from_pandas(pd.DataFrame(by_day[list(COMPARED)]), schema, preserve_index=False))
        return len(days)

    return measured(work)


SIDES: dict[str, Callable[[Path], Run]] = {"textbook": textbook, "decode": decode, "daily": daily, "gold": gold}


def same_rows(home: Path) -> bool:
    """The textbook's sums are floats: equal to nine digits."""
    lake = session(home)

    def rows_of(name: str) -> list[dict[str, Any]]:
        found = lake.catalog.load_table(name).scan(selected_fields=COMPARED).to_arrow()
        rows: list[dict[str, Any]] = found.sort_by(
            [("symbol", "ascending"), ("trading_date", "ascending")]
        ).to_pylist()
        return rows

    ours, theirs = rows_of(DAILY), rows_of("gold.textbook_daily")
    return len(ours) == len(theirs) and all(
        one[name] == other[name] if index < 2 else math.isclose(one[name], other[name], rel_tol=1e-9)
        for one, other in zip(ours, theirs, strict=True)
        for index, name in enumerate(COMPARED)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", choices=[*SIDES, "prepare"], help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        report({**SIDES, "prepare": prepare}[given.side](given.home))
        return 0
    used: dict[str, list[Run]] = {name: [] for name in SIDES}
    for _ in range(given.repeats):
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            fill(home, given.rows)
            in_a_process(MODULE, "prepare", home)
            for name in SIDES:
                used[name].append(in_a_process(MODULE, name, home, (PANDAS,) if name == "textbook" else ()))
                if name in ("daily", "gold") and not same_rows(home):
                    print(f"{name} does not have the textbook's rows", file=sys.stderr)
                    return 1
    cpu = {name: statistics.median(run.cpu_s for run in runs) for name, runs in used.items()}
    for name, seconds in cpu.items():
        peak = max(run.peak_mb for run in used[name])
        print(f"bench gold.{name} value={given.rows / seconds:.0f} unit=rows/cpu-s peak={peak:.0f} MB")
    for name, target in TARGETS.items():
        print(f"daily / {name}: {cpu[name] / cpu['daily']:.2f} (target {target})")
        print(f"gold / {name}: {cpu[name] / cpu['gold']:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
