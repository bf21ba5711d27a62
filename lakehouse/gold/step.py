"""Gold: bars, daily summaries, sectors and the market, written anew for every day that silver touched.

In: ``silver.trades``, and ``silver.quotes`` for the market's spread. Out: ``gold.minute_bars``,
``gold.daily_trading_summary``, ``gold.market_overview``, ``gold.sector_daily``. One pass over a day's trades makes
the minute bars, with exact sums; the rest follows from them. A process keeps the bars of the newest days, and adds
the trades that came since it last looked.

On a crash: each table is brought up to date by one commit that replaces whole days and carries how far silver
was read; it is refused when anybody else committed in between. Computing a day again gives the same rows, so
a table that a crash left behind is caught up by the next run, and running twice changes nothing. The days to
be published are checked against the tables' data contracts before the first commit: when one is broken, no gold
table changes.

Days are UTC dates. A late trade of a past day touches that day only. Which days are touched is read off the
data files that silver has added since, so that no expiry of snapshots can lose one; a compacted file counts as
added when the newest of those it replaced was.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import duckdb
import pyarrow as pa
from pyiceberg.io import FileIO

from lakehouse.batch import BatchSession, compare_and_swap
from lakehouse.days import accumulated, computed_until, day_files, read_until, replace_days, touched_days
from lakehouse.duck import sql_file
from lakehouse.gold.bars import COLUMNS, STRINGS, DayBars
from lakehouse.gold.spreads import day_spreads
from lakehouse.memory import give_back
from lakehouse.quality.gate import require
from lakehouse.quality.layer import require_sound
from lakehouse.quality.partition import TRADED, day_traded
from lakehouse.reading import ROW_GROUP, read_batches
from lakehouse.snapshots import DataFileEntry, SnapshotFiles
from lakehouse.tables import TABLES as DECLARED
from lakehouse.tables import arrow_schema

log = logging.getLogger(__name__)

SOURCE, QUOTES = "silver.trades", "silver.quotes"
DAILY, MARKET = "gold.daily_trading_summary", "gold.market_overview"
TABLES = ("gold.minute_bars", DAILY, MARKET, "gold.sector_daily")
"""In the order they are committed; each later one is computed from the ones before."""
_QUOTES_READ = DECLARED[MARKET].watermark(QUOTES)
DAYS_AT_ONCE = 7
"""Memory holds the bars of so many days, a quarter of a million with 24 symbols; then they are committed."""


@dataclass(frozen=True, slots=True)
class GoldResult:
    """What a run did."""

    days: tuple[date, ...] = ()
    """UTC dates computed anew."""
    rows: dict[str, int] | None = None
    """Table → rows written; None when there was nothing to do."""
    source_snapshot_id: int | None = None
    """Snapshot of silver.trades that was read."""


def publish(session: BatchSession, days: Sequence[date] = ()) -> GoldResult:
    """Bring the daily tables up to date with silver, and compute ``days`` anew, changed or not.

    Raises:
        ContractViolationError: a table's rows, or silver's, break the data contract; no gold table was changed.
        CommitFailedException: other writers won every race; nothing is lost, run it again.
    """
    return compare_and_swap("gold", lambda: _publish(session, days))


def _publish(session: BatchSession, also: Sequence[date]) -> GoldResult:
    silver = session.catalog.load_table(SOURCE)
    trades = session.manifests.files(SOURCE, silver)
    quoted = session.manifests.files(QUOTES, session.catalog.load_table(QUOTES))
    targets = {name: session.catalog.load_table(name) for name in TABLES}
    read = {name: read_until(table) for name, table in targets.items()}
    requoted = touched_days(quoted, read_until(targets[MARKET], _QUOTES_READ))
    days = tuple(sorted({*touched_days(trades, min(read.values())), *requoted, *also}))
    if not days:
        return GoldResult()
    require_sound(session, SOURCE, QUOTES)
    now = session.clock()
    states = {name: computed_until(trades.sequence_number) for name in TABLES}
    states[MARKET] |= computed_until(quoted.sequence_number, _QUOTES_READ)
    behind = [
        name for name in TABLES if also or read[name] < trades.sequence_number or (name == MARKET and requoted)
    ]
    written = dict.fromkeys(TABLES, 0)
    for first in range(0, len(days), DAYS_AT_ONCE):
        some = days[first : first + DAYS_AT_ONCE]
        bars = pa.concat_tables(day_bars(session, silver.io, trades, day, anew=day in also) for day in some)
        sums = pa.concat_tables(day_traded(session, "gold", trades, day, anew=day in also) for day in some)
        spreads = pa.concat_tables(day_spreads(session, quoted, day, anew=day in also) for day in some)
        with session.connection.cursor() as cursor:
            rows = compute(cursor, bars, spreads, now, behind)
        require(session, rows, now, {TRADED: sums}, trades.snapshot_id)
        for name in behind:
            state = states[name] if some[-1] == days[-1] else {}
            written[name] += replace_days(session, targets[name], some, [rows[name]], state)
        del bars, sums, rows
        give_back()  # else the C library keeps these days' memory, and takes new for the next ones'
    result = GoldResult(days, written, trades.snapshot_id)
    log.info("gold: %s computed anew, %s", ", ".join(map(str, days)), result.rows)
    return result


def day_bars(
    session: BatchSession, io: FileIO, snapshot: SnapshotFiles, day: date, *, anew: bool = False
) -> pa.Table:
    """Minute bars of a day of silver.trades. Memory holds the bars, and of the trades a batch."""

    def columns(files: Sequence[DataFileEntry], names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return read_batches(io, snapshot, files, names, ROW_GROUP, dictionaries=STRINGS)

    def add(bars: DayBars, files: Sequence[DataFileEntry]) -> DayBars:
        bars.add(columns(files, COLUMNS))
        bars.settle(lambda names: columns(day_files(snapshot, day), names))
        return bars

    with accumulated(session, "bars", snapshot, day, lambda: DayBars(day), add, anew=anew) as bars:
        return bars.table()


def compute(
    cursor: duckdb.DuckDBPyConnection,
    bars: pa.Table,
    spreads: pa.Table,
    now: datetime,
    tables: Collection[str] = TABLES,
) -> dict[str, pa.Table]:
    """Rows of gold's tables.

    Args:
        cursor: a cursor of its own; views are made in it.
        bars: of whole days, see :func:`minute_bars`.
        spreads: of the same days, see :func:`lakehouse.gold.spreads.day_spreads`.
        now: written to ``_aggregated_at``.
        tables: which ones.
    """
    cursor.register("bars", bars)
    cursor.register("spreads", spreads)
    rows: dict[str, pa.Table] = {}
    for name in TABLES:
        if name not in {*tables, DAILY}:  # the tables after the daily one are computed from it
            continue
        selected = cursor.execute(sql_file("gold", f"{name.split('.')[1]}_rows.sql"), {"aggregated_at": now})
        rows[name] = selected.to_arrow_table().cast(arrow_schema(name))
        if name == DAILY:
            cursor.register("daily", rows[name])
    return {name: rows[name] for name in tables}
