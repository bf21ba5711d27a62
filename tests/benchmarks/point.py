"""CPU time of the API's two point queries on a silver.trades of many small files, beside reading all of them.

The newest 100 of 5 minutes of one symbol (``trades`` with a filter), and one trade by its id (``tradeById``),
through the functions that the API calls. ``full scan`` is the same question to DuckDB over every
file. Ids count up in a session, as the exchange's do; ``--random-ids`` gives each trade a random one, which the
files' bounds cannot find.

    python -m tests.benchmarks.point [--files 1000] [--rows 10000000] [--minutes 5] [--queries 40] [--random-ids]

CPU time of the whole process, all threads; medians over different minutes, symbols and ids, after one query of
each kind. Fails when an answer is not the full scan's.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from api.queries.ranges import Moment, TimeRange
from api.queries.trades import TradeFilter, trade_by_id, trade_page
from lakehouse.append import transaction
from lakehouse.catalog import open_catalog
from lakehouse.query import Lake
from lakehouse.settings import LakehouseSettings
from lakehouse.snapshots import SnapshotFiles
from lakehouse.tables import arrow_schema, create_tables

TARGET_RANGE_MS, TARGET_ID_MS = 10.0, 15.0
NAME = "silver.trades"
START = datetime(2026, 3, 2, tzinfo=UTC)
SYMBOLS = 24
FIVE_MINUTES = timedelta(minutes=5)
DAYS_A_COMMIT = 20
"""Files of the same minutes of so many days are written by one commit: it only makes the table faster to build."""
PAGE = 100
"""Trades a client asks for; the newest of those in the five minutes."""

_ROWS = """
select
    'e-0123456789ab-' || n as event_id,
    ?::timestamptz + to_days((i // ?)::int) + to_microseconds(i % ? * ? // ?) as timestamp,
    n as sequence,
    {trade_id} as trade_id,
    'S' || lpad((hash(n) % 24)::varchar, 2, '0') as symbol,
    (100 + n % 977 + n % 100 / 100)::decimal(18, 8) as price,
    (n % 500 + 1)::decimal(18, 8) as quantity,
    'o-0123456789ab-' || n as buy_order_id,
    'o-0123456789ab-' || n // 2 as sell_order_id,
    'retail-' || n % 200 as buyer_agent_id,
    'mm-' || n % 10 as seller_agent_id,
    n % 2 = 0 as is_aggressive_buy,
    'Company' as company_name,
    'Sector' as sector,
    'large' as market_cap_category,
    ?::timestamptz as _processed_at
from (select i, ((i // ?) * ? + ?) * ? + i % ? as n from range(?) r(i))
"""


def fill(settings: LakehouseSettings, files: int, rows: int, width: timedelta, random_ids: bool) -> None:
    """``rows`` trades in ``files`` files of ``width``, over DAYS_A_COMMIT days; numbered in time's order."""
    catalog = open_catalog(settings)
    create_tables(catalog)
    table = catalog.load_table(NAME)
    each, of_a_day = rows // files, files // DAYS_A_COMMIT
    microseconds = width // timedelta(microseconds=1)
    sql = _ROWS.format(trade_id="uuid()::varchar" if random_ids else "'t-0123456789ab-' || n")
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'; set threads = 2")
        for number in range(of_a_day):
            time_of = [START + number * width, each, each, microseconds, each]
            number_of = [each, of_a_day, number, each, each, DAYS_A_COMMIT * each]
            arguments = [*time_of, START, *number_of]
            made = connection.execute(sql, arguments).to_arrow_table()
            with transaction(table) as changes:
                changes.append(pa.table(made.columns, schema=arrow_schema(NAME)))


def measured(ask: Callable[[int], Any], queries: int) -> tuple[float, list[Any]]:
    """Median CPU milliseconds of ``ask(k)``, and the answers; one query before is not counted."""
    ask(queries)
    taken, answers = [], []
    for number in range(queries):
        begun = time.process_time()
        answers.append(ask(number))
        taken.append(time.process_time() - begun)
    return statistics.median(taken) * 1000, answers


def full_scan(lake: Lake) -> Callable[[str, list[Any]], list[dict[str, Any]]]:
    """Asks over every file."""

    def ask(where: str, parameters: list[Any]) -> list[dict[str, Any]]:
        return lake.rows(f"select trade_id, price, quantity from {NAME} where {where}", parameters)

    return ask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_000)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--minutes", type=int, default=5, help="of trades in a file")
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--random-ids", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        settings = LakehouseSettings(data_dir=Path(home), query_threads=1)
        width = timedelta(minutes=arguments.minutes)
        fill(settings, arguments.files, arguments.rows, width, arguments.random_ids)
        lake = Lake(settings)
        snapshot = lake.snapshot(NAME)
        print(f"{len(snapshot.files):,} files, {sum(f.rows for f in snapshot.files):,} trades", flush=True)
        compare(lake, snapshot, arguments.queries)
        lake.close()


def compare(lake: Lake, snapshot: SnapshotFiles, queries: int) -> None:
    choose = random.Random(1)
    firsts = [file.first for file in snapshot.files if file.first is not None]
    starts = [choose.choice(firsts) - timedelta(seconds=choose.randrange(120)) for _ in range(queries + 1)]
    symbols = [f"S{choose.randrange(SYMBOLS):02}" for _ in range(queries + 1)]
    sampled = lake.rows(f"select trade_id from {NAME} using sample reservoir({queries + 1} rows) repeatable (1)")
    ids = [row["trade_id"] for row in sampled]
    scan = full_scan(lake)

    def range_of(number: int) -> TradeFilter:
        begin = starts[number]
        within = TimeRange(Moment(begin, False), Moment(begin + FIVE_MINUTES, False))
        return TradeFilter(symbol=symbols[number], within=within)

    range_ms, pages = measured(lambda k: trade_page(lake, range_of(k), PAGE, None), queries)
    id_ms, found = measured(lambda k: trade_by_id(lake, ids[k]), queries)
    scans = max(3, queries // 10)
    in_range = f"symbol = ? and timestamp between ? and ? order by timestamp desc, trade_id desc limit {PAGE}"
    range_scan_ms, all_pages = measured(
        lambda k: scan(in_range, [symbols[k], starts[k], starts[k] + FIVE_MINUTES]), scans
    )
    id_scan_ms, all_found = measured(lambda k: scan("trade_id = ?", [ids[k]]), scans)

    shown = ("trade_id", "price", "quantity")
    for page, rows in zip(pages, all_pages, strict=False):
        assert [{name: row[name] for name in shown} for row in page.rows] == rows, "the page is not the scan's"
        assert rows, "the question has no answer, so nothing was compared"
    for trade, rows in zip(found, all_found, strict=False):
        assert trade is not None
        assert [{name: trade[name] for name in shown}] == rows, "the trade is not the scan's"
    assert [trade["trade_id"] for trade in found] == ids[:queries]
    print(f"5 minutes of a symbol: {range_ms:.1f} ms, full scan {range_scan_ms:.0f} ms, target {TARGET_RANGE_MS}")
    print(f"trade by id: {id_ms:.1f} ms, full scan {id_scan_ms:.0f} ms, target {TARGET_ID_MS}")
    print(f"bench point value={range_ms:.2f} unit=ms target={TARGET_RANGE_MS}")
    print(f"bench point_by_id value={id_ms:.2f} unit=ms target={TARGET_ID_MS}")


if __name__ == "__main__":
    main()
