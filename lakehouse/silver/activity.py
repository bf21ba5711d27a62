"""``silver.trader_activity``: what an agent traded of a symbol on a day, written anew for every day that changed.

A process keeps the sums of the newest days, and adds the trades that came since it last looked.

In: ``silver.trades``. Out: ``silver.trader_activity``. On a crash: the days and how far silver.trades was read are
one commit; computing a day again gives the same rows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import pyarrow as pa
from pyiceberg.table import Table

from lakehouse.batch import BatchSession, compare_and_swap
from lakehouse.days import accumulated, computed_until, read_until, replace_days, touched_days
from lakehouse.duck import files_sql, sql_file
from lakehouse.quality.gate import require
from lakehouse.quality.layer import require_sound
from lakehouse.quality.partition import TRADED, day_traded
from lakehouse.snapshots import DataFileEntry, SnapshotFiles
from lakehouse.tables import arrow_schema

log = logging.getLogger(__name__)

SOURCE, TARGET = "silver.trades", "silver.trader_activity"
_SUMS = pa.schema(
    [
        *((name, pa.string()) for name in ("agent_id", "symbol")),
        *((name, pa.int64()) for name in ("day", "buy_count", "sell_count")),
        *((name, pa.decimal128(38, 8)) for name in ("bought", "sold")),
        *((name, pa.decimal128(38, 16)) for name in ("paid", "received")),
        *((name, pa.timestamp("us", "UTC")) for name in ("first_trade_at", "last_trade_at")),
    ]
)
"""What trader_activity_sums.sql says."""


@dataclass(frozen=True, slots=True)
class ActivityResult:
    """What a run did."""

    days: tuple[date, ...] = ()
    """UTC dates computed anew."""
    rows: int = 0
    source_snapshot_id: int | None = None
    snapshot_id: int | None = None


def refine_activity(session: BatchSession, days: Sequence[date] = ()) -> ActivityResult:
    """Bring ``silver.trader_activity`` up to date, and compute ``days`` anew whether they changed or not.

    Raises:
        ContractViolationError: a day breaks the data contract; nothing is committed.
        CommitFailedException: other writers won every race; nothing is lost, run it again.
    """

    def attempt() -> ActivityResult:
        return _refine(session, session.catalog.load_table(TARGET), session.catalog.load_table(SOURCE), days)

    return compare_and_swap(TARGET, attempt)


def _refine(session: BatchSession, target: Table, source: Table, also: Sequence[date]) -> ActivityResult:
    snapshot = session.manifests.files(SOURCE, source)
    days = tuple(sorted({*touched_days(snapshot, read_until(target)), *also}))
    if not days or snapshot.snapshot_id is None:
        return ActivityResult(snapshot_id=target.metadata.current_snapshot_id)
    require_sound(session, SOURCE)
    state = computed_until(snapshot.sequence_number)
    rows = replace_days(session, target, days, _rows(session, snapshot, days, also), state)
    log.info("%s: %s computed anew, %d rows", TARGET, ", ".join(map(str, days)), rows)
    return ActivityResult(days, rows, snapshot.snapshot_id, target.metadata.current_snapshot_id)


def _rows(
    session: BatchSession, snapshot: SnapshotFiles, days: Sequence[date], also: Sequence[date]
) -> Iterator[pa.Table]:
    with session.connection.cursor() as cursor:

        def add(sums: pa.Table, files: Sequence[DataFileEntry]) -> pa.Table:
            cursor.register("sums", sums)
            cursor.execute(f"create or replace temp view trades as {files_sql(snapshot, files)}")
            return cursor.execute(sql_file("silver", "trader_activity_sums.sql")).to_arrow_table()

        for day in days:
            anew, now = day in also, session.clock()
            with accumulated(session, TARGET, snapshot, day, _SUMS.empty_table, add, anew=anew) as sums:
                cursor.register("sums", sums)
            selected = cursor.execute(sql_file("silver", "trader_activity_rows.sql"), {"processed_at": now})
            found = selected.to_arrow_table().cast(arrow_schema(TARGET))
            traded = day_traded(session, TARGET, snapshot, day, anew=anew)
            require(session, {TARGET: found}, now, {TRADED: traded}, snapshot.snapshot_id)
            yield found
