"""One incremental step from a bronze table to a silver one: the part that trades and order books share.

In: rows appended to the bronze table since the watermark that silver's own snapshots carry. Out: new rows in
silver, once each; rows that break a rule in ``silver.rejected_records``; everything that arrived is counted
as new, duplicate or rejected.

On a crash: rejected rows are committed first and never twice; the silver rows and the new watermark become
visible in one commit, which is refused when anybody else committed to the table in between. So an interrupted
or repeated run loses nothing and doubles nothing. A long backlog is worked off in portions of whole bronze
commits, oldest first, about :data:`PORTION_ROWS` rows each; the watermark moves with every portion.

An id that was seen before is looked for among the silver rows of the days that arrived rows fall on: a
redelivered event carries the same event time.
"""

from __future__ import annotations

import importlib.resources
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta

import duckdb
import pyarrow as pa
from pyiceberg.table import Table

from lakehouse.append import expire_snapshots, transaction
from lakehouse.batch import BatchSession, compare_and_swap
from lakehouse.duck import files_sql
from lakehouse.incremental import Watermark, appended_since, read_watermark
from lakehouse.quality.gate import require
from lakehouse.silver.rejected import reject
from lakehouse.snapshots import DataFileEntry
from lakehouse.state import WATERMARK, carried
from lakehouse.tables import arrow_schema

log = logging.getLogger(__name__)

PORTION_ROWS = 200_000
"""Rows worked on at once: two CPU seconds, a few hundred MB."""


@dataclass(frozen=True, slots=True)
class SilverStep:
    """What differs from table to table."""

    source: str
    """Bronze table."""
    target: str
    """Silver table."""
    key: str
    """Column that identifies a row, in both."""
    judged: str
    """Name of the SQL file that makes ``judged`` from ``arrived`` and ``known``."""
    rows: str
    """Name of the SQL file that selects the target's rows from ``judged`` and ``dim_symbol``."""
    contract: str
    """Data contract that the new rows have to pass before they are committed."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a run did. ``arrived = new + duplicates + rejected``."""

    arrived: int = 0
    new: int = 0
    duplicates: int = 0
    rejected: int = 0
    snapshot_id: int | None = None
    """Head of the silver table after the run; None while it has no snapshot."""


def refine(session: BatchSession, step: SilverStep, portion_rows: int = PORTION_ROWS) -> StepResult:
    """Run the step until silver has what bronze had when it began.

    Raises:
        ContractViolationError: the new rows break the data contract; none of their portion is committed.
        CommitFailedException: other writers won every race; nothing is lost, run it again.
    """
    return compare_and_swap(step.target, lambda: _refine(session, step, portion_rows))


def _refine(session: BatchSession, step: SilverStep, portion_rows: int) -> StepResult:
    target = session.catalog.load_table(step.target)
    since = read_watermark(target) or Watermark()
    appended = appended_since(step.source, session.catalog.load_table(step.source), since, session.manifests)
    portions = _portions(appended.files, portion_rows)
    counts = {"new": 0, "duplicate": 0, "rejected": 0}
    for number, files in enumerate(portions, 1):
        if number == len(portions):
            until = appended.watermark
        else:  # whole commits in their order, so that everything up to the newest of them has been read
            until = replace(since, sequence_number=files[-1].sequence_number)
        with session.connection.cursor() as cursor:
            for verdict, rows in _portion(session, step, cursor, target, appended.sql(files), until).items():
                counts[verdict] += rows
    head = target.current_snapshot()
    result = StepResult(
        arrived=sum(counts.values()),
        new=counts["new"],
        duplicates=counts["duplicate"],
        rejected=counts["rejected"],
        snapshot_id=None if head is None else head.snapshot_id,
    )
    if portions:
        log.info(
            "%s: %d rows arrived, %d new, %d duplicates, %d rejected",
            step.target,
            result.arrived,
            result.new,
            result.duplicates,
            result.rejected,
        )
    return result


def _portions(files: Sequence[DataFileEntry], limit: int) -> list[tuple[DataFileEntry, ...]]:
    """Files in the order of their commits, at most ``limit`` rows together; a commit is never divided."""
    in_order = sorted(files, key=lambda f: f.sequence_number)
    portions: list[tuple[DataFileEntry, ...]] = []
    rows = 0
    for _, group in itertools.groupby(in_order, key=lambda f: f.sequence_number):
        commit = tuple(group)
        more = sum(file.rows for file in commit)
        if portions and rows + more <= limit:
            portions[-1] += commit
            rows += more
        else:
            portions.append(commit)
            rows = more
    return portions


def _portion(
    session: BatchSession,
    step: SilverStep,
    cursor: duckdb.DuckDBPyConnection,
    target: Table,
    arrived: str,
    until: Watermark,
) -> dict[str, int]:
    """Judge, check and commit the rows that ``arrived`` selects; returns the number of rows for each verdict."""
    now = session.clock()
    cursor.execute(f"create temp table arrived as {arrived}")
    _register_known(session, step, cursor, target)
    cursor.register("dim_symbol", session.catalog.load_table("dimensions.dim_symbol").scan().to_arrow())
    cursor.execute(_sql(step.judged))
    verdicts: dict[str, int] = dict(
        cursor.execute("select verdict, count(*) from judged group by verdict").fetchall()
    )
    if verdicts.get("rejected"):
        reject(session, step.source, _rejected_rows(cursor), now)
    rows = cursor.execute(_sql(step.rows), {"processed_at": now}).to_arrow_table()
    rows = rows.cast(arrow_schema(step.target))
    if rows.num_rows:
        require(session, step.contract, step.target, rows, now)
    with transaction(target) as commit:
        commit.append(rows, snapshot_properties=carried(target, {WATERMARK: until.to_json()}))
    expire_snapshots(target, at=session.settings.snapshots_expire_at, keep=session.settings.snapshots_kept)
    return verdicts


def _register_known(
    session: BatchSession, step: SilverStep, cursor: duckdb.DuckDBPyConnection, target: Table
) -> None:
    """``known``: silver rows with an id that has arrived, from the days that arrived rows fall on."""
    found = cursor.execute("select min(timestamp), max(timestamp) from arrived").fetchone()
    first, latest = found if found is not None else (None, None)
    snapshot = session.manifests.files(step.target, target)
    days = () if first is None else tuple(f for f in snapshot.files if f.overlaps(*_whole_days(first, latest)))
    cursor.execute(
        f"create temp table known as select * from ({files_sql(snapshot, days)}) "
        f"where {step.key} in (select {step.key} from arrived)"
    )


def _whole_days(first: datetime, last: datetime) -> tuple[datetime, datetime]:
    start = datetime.combine(first.astimezone(UTC).date(), time(), UTC)
    end = datetime.combine(last.astimezone(UTC).date(), time(), UTC) + timedelta(days=1)
    return start, end


def _rejected_rows(cursor: duckdb.DuckDBPyConnection) -> pa.Table:
    return cursor.execute(
        "select * exclude (verdict) from judged where verdict = 'rejected' "
        "order by _kafka_topic, _kafka_partition, _kafka_offset"
    ).to_arrow_table()


def _sql(name: str) -> str:
    return (importlib.resources.files("lakehouse.silver") / name).read_text(encoding="utf-8")
