"""Rows a CPU-second from bronze to silver, beside the textbook way and copying the file.

``textbook`` is the pandas way: batches of 50,000 rows, sorted by offset, ``drop_duplicates``, ids already written
kept in a set, merged with the current symbols, one append a batch; prices as floats. ``copy`` reads bronze's files
and writes them again with zstd, nothing else. Books: the textbook takes each row's lists apart in Python.

    python -m tests.benchmarks.silver [--rows N] [--books N] [--repeats R]

CPU time of a process for each side, all threads, without its start; medians of R rounds, sides in turn. The data
contract of the step is checked within it. Fails when the sides' rows differ. The textbook writes neither a book's
levels nor decimals.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.batch import BatchSession
from lakehouse.silver.events import refine_orderbook, refine_trades
from lakehouse.tables import arrow_schema
from tests.benchmarks.lake import PANDAS, Run, fill, in_a_process, measured, of_step, report, session

MODULE = "tests.benchmarks.silver"
TARGETS = {"textbook": 3.5, "copy": 0.45, "books_textbook": 10.0}
BATCH_ROWS = 50_000
FLOATS = ("price", "quantity")


def silver(home: Path) -> Run:
    return of_step(home, refine_trades)


def books(home: Path) -> Run:
    return of_step(home, refine_orderbook)


def copy(home: Path) -> Run:
    lake = session(home)
    files = lake.manifests.files("bronze.trades", lake.catalog.load_table("bronze.trades")).files

    def work() -> int:
        for number, file in enumerate(files):
            pq.write_table(pq.read_table(file.path), home / f"copy-{number}.parquet", compression="zstd")
        return len(files)

    return measured(work)


def current_companies(lake: BatchSession) -> Any:
    return lake.catalog.load_table("dimensions.dim_symbol").scan(row_filter="is_current = true").to_pandas()


def textbook(home: Path) -> Run:
    import pandas as pd  # type: ignore[import-not-found,import-untyped,unused-ignore]

    lake = session(home)
    source = lake.catalog.load_table("bronze.trades")
    names = [name for name in arrow_schema("silver.trades").names if name in arrow_schema("bronze.trades").names]
    schema = pa.schema(
        [
            pa.field(field.name, pa.float64() if field.name in FLOATS else field.type)
            for field in arrow_schema("silver.trades")
        ]
    )
    target = lake.catalog.create_table("silver.textbook_trades", schema)
    companies = current_companies(lake)[["symbol", "company_name", "sector", "market_cap_category"]]

    def work() -> int:
        seen: set[str] = set()
        for batch in source.scan().to_arrow_batch_reader():
            for start in range(0, batch.num_rows, BATCH_ROWS):
                part = pa.Table.from_batches([batch.slice(start, BATCH_ROWS)])
                for name in FLOATS:
                    part = part.set_column(part.schema.get_field_index(name), name, part[name].cast(pa.float64()))
                frame = part.to_pandas().sort_values("_kafka_offset").drop_duplicates("trade_id", keep="first")
                frame = frame[~frame["trade_id"].isin(seen)]
                seen.update(frame["trade_id"])
                frame = frame[names].merge(companies, on="symbol", how="left")
                frame["_processed_at"] = pd.Timestamp.now(tz="UTC").floor("us")
                target.append(pa.Table.from_pandas(frame, schema=schema, preserve_index=False))
        return len(seen)

    return measured(work)


def books_textbook(home: Path) -> Run:
    import pandas as pd

    lake = session(home)
    source = lake.catalog.load_table("bronze.orderbook_snapshots")
    as_they_are = ("event_id", "timestamp", "symbol", "sequence_number", "company_name", "sector", "_processed_at")
    counts = ("bid_levels", "ask_levels")
    kinds = {"spread": pa.float64(), "mid_price": pa.float64(), **dict.fromkeys(counts, pa.int64())}
    for side in ("bid", "ask"):
        kinds |= dict.fromkeys((f"best_{side}_price", f"best_{side}_qty", f"{side}_depth"), pa.float64())
    kinds |= {name: arrow_schema("silver.orderbook").field(name).type for name in as_they_are}
    schema = pa.schema(list(kinds.items()))
    target = lake.catalog.create_table("silver.textbook_books", schema)
    companies = current_companies(lake)[["symbol", "company_name", "sector"]]

    def work() -> int:
        seen: set[str] = set()
        for batch in source.scan().to_arrow_batch_reader():
            for start in range(0, batch.num_rows, BATCH_ROWS):
                frame = pa.Table.from_batches([batch.slice(start, BATCH_ROWS)]).to_pandas()
                frame = frame.drop_duplicates("event_id", keep="first")
                frame = frame[~frame["event_id"].isin(seen)]
                seen.update(frame["event_id"])
                for side in ("bid", "ask"):
                    levels = frame[f"{side}s"]
                    frame[f"best_{side}_price"] = levels.map(lambda of: float(of[0]["price"]))
                    frame[f"best_{side}_qty"] = levels.map(lambda of: float(of[0]["quantity"]))
                    frame[f"{side}_levels"] = levels.map(len)
                    frame[f"{side}_depth"] = levels.map(lambda of: sum(float(level["quantity"]) for level in of))
                frame["spread"] = frame["best_ask_price"] - frame["best_bid_price"]
                frame["mid_price"] = (frame["best_ask_price"] + frame["best_bid_price"]) / 2
                frame = frame.merge(companies, on="symbol", how="left")
                frame["_processed_at"] = pd.Timestamp.now(tz="UTC").floor("us")
                target.append(
                    pa.Table.from_pandas(pd.DataFrame(frame[schema.names]), schema=schema, preserve_index=False)
                )
        return len(seen)

    return measured(work)


SIDES: dict[str, Callable[[Path], Run]] = {
    "silver": silver,
    "copy": copy,
    "textbook": textbook,
    "books": books,
    "books_textbook": books_textbook,
}


def digest(home: Path, table: str, columns: str) -> Any:
    """Rows, and a sum over a hash of each: the same for the same rows in any order."""
    lake = session(home)
    iceberg = lake.catalog.load_table(table)
    files = [task.file.file_path.removeprefix("file://") for task in iceberg.scan().plan_files()]
    listed = ", ".join(f"'{path}'" for path in files)
    return lake.connection.execute(
        f"select count(*), sum(hash({columns})::hugeint) from read_parquet([{listed}])"
    ).fetchone()


def same_rows(home: Path) -> bool:
    """Prices in whole cents, because the textbook's are floats."""
    trades = (
        "trade_id, timestamp, symbol, round(price * 100)::bigint, quantity::bigint, buy_order_id, "
        "is_aggressive_buy, company_name"
    )
    books = (
        "event_id, timestamp, symbol, sequence_number, round(best_bid_price * 100)::bigint, best_bid_qty::bigint, "
        "round(best_ask_price * 100)::bigint, best_ask_qty::bigint, round(spread * 1000)::bigint, "
        "round(mid_price * 1000)::bigint, bid_depth::bigint, ask_depth::bigint, bid_levels::bigint, "
        "ask_levels::bigint, company_name, sector"
    )
    return digest(home, "silver.trades", trades) == digest(home, "silver.textbook_trades", trades) and digest(
        home, "silver.orderbook", books
    ) == digest(home, "silver.textbook_books", books)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--books", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        report(SIDES[given.side](given.home))
        return 0
    used: dict[str, list[Run]] = {name: [] for name in SIDES}
    for _ in range(given.repeats):
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            fill(home, given.rows)
            fill(home, given.books, table="bronze.orderbook_snapshots")
            for name in SIDES:
                used[name].append(in_a_process(MODULE, name, home, (PANDAS,) if "textbook" in name else ()))
            if not same_rows(home):
                print("the sides do not have the same rows", file=sys.stderr)
                return 1
    cpu = {name: statistics.median(run.cpu_s for run in runs) for name, runs in used.items()}
    for name, seconds in cpu.items():
        rows = given.books if name.startswith("books") else given.rows
        peak = max(run.peak_mb for run in used[name])
        print(f"bench silver.{name} value={rows / seconds:.0f} unit=rows/cpu-s peak={peak:.0f} MB")
    print(f"silver / textbook: {cpu['textbook'] / cpu['silver']:.2f} (target {TARGETS['textbook']})")
    print(f"silver / copy: {cpu['copy'] / cpu['silver']:.2f} (target {TARGETS['copy']})")
    print(f"books / textbook: {cpu['books_textbook'] / cpu['books']:.2f} (target {TARGETS['books_textbook']})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
