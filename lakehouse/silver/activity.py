"""``silver.trader_activity``: what an agent traded of a symbol on a day, computed anew for every day that changed.

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
from lakehouse.days import computed_until, day_sql, read_until, replace_days, touched_days
from lakehouse.duck import sql_file
from lakehouse.quality.gate import require
from lakehouse.quality.layer import require_sound
from lakehouse.snapshots import SnapshotFiles
from lakehouse.tables import arrow_schema

log = logging.getLogger(__name__)

SOURCE, TARGET = "silver.trades", "silver.trader_activity"


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
    head = source.current_snapshot()
    if not days or head is None:
        return ActivityResult(snapshot_id=target.metadata.current_snapshot_id)
    require_sound(session, SOURCE)
    until = head.sequence_number or 0
    rows = replace_days(session, target, days, _rows(session, snapshot, days), lambda: computed_until(until))
    log.info("%s: %s computed anew, %d rows", TARGET, ", ".join(map(str, days)), rows)
    return ActivityResult(days, rows, head.snapshot_id, target.metadata.current_snapshot_id)


def _rows(session: BatchSession, snapshot: SnapshotFiles, days: Sequence[date]) -> Iterator[pa.Table]:
    statement = sql_file("silver", "trader_activity_rows.sql")
    with session.connection.cursor() as cursor:
        for day in days:
            trades, now = day_sql(snapshot, day), session.clock()
            cursor.execute(f"create or replace temp view trades as {trades}")
            found = cursor.execute(statement, {"processed_at": now}).to_arrow_table().cast(arrow_schema(TARGET))
            require(session, {TARGET: found}, now, {SOURCE: trades}, snapshot.snapshot_id)
            yield found
