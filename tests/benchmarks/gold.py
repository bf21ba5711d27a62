"""Rows a CPU-second from silver.trades to gold's bars and days, beside the textbook way and decoding the columns.

``gold`` is the whole step: four tables, committed, the data contract checked. ``textbook`` is the pandas way: the
day's rows as a frame with prices as floats, sorted, grouped by symbol, one daily table deleted and appended.
``decode`` reads the columns that the bars need and adds nothing to it.

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

from lakehouse.days import all_days, day_sql, window
from lakehouse.gold.step import SOURCE, publish
from lakehouse.silver.events import refine_trades
from tests.benchmarks.lake import PANDAS, Run, fill, in_a_process, measured, of_step, report, session

MODULE = "tests.benchmarks.gold"
TARGETS = {"textbook": 7.0, "decode": 0.5}
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
]
DAILY = (
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
    schema = pa.schema(list(zip(DAILY, kinds, strict=True)))
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
            daily = (
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
            daily["vwap"] = daily["value"] / daily["total_volume"]
            daily["trading_date"] = day
            target.append(pa.Table.from_pandas(pd.DataFrame(daily[list(DAILY)]), schema, preserve_index=False))
        return len(days)

    return measured(work)


SIDES: dict[str, Callable[[Path], Run]] = {"gold": gold, "decode": decode, "textbook": textbook}


def same_rows(home: Path) -> bool:
    """The textbook's sums are floats: equal to nine digits."""
    lake = session(home)

    def daily(name: str) -> list[dict[str, Any]]:
        found = lake.catalog.load_table(name).scan(selected_fields=DAILY).to_arrow()
        rows: list[dict[str, Any]] = found.sort_by(
            [("symbol", "ascending"), ("trading_date", "ascending")]
        ).to_pylist()
        return rows

    ours, theirs = daily("gold.daily_trading_summary"), daily("gold.textbook_daily")
    return len(ours) == len(theirs) and all(
        one[name] == other[name] if index < 2 else math.isclose(one[name], other[name], rel_tol=1e-9)
        for one, other in zip(ours, theirs, strict=True)
        for index, name in enumerate(DAILY)
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
            if not same_rows(home):
                print("the sides do not have the same rows", file=sys.stderr)
                return 1
    cpu = {name: statistics.median(run.cpu_s for run in runs) for name, runs in used.items()}
    for name, seconds in cpu.items():
        peak = max(run.peak_mb for run in used[name])
        print(f"bench gold.{name} value={given.rows / seconds:.0f} unit=rows/cpu-s peak={peak:.0f} MB")
    for name, target in TARGETS.items():
        print(f"gold / {name}: {cpu[name] / cpu['gold']:.2f} (target {target})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
