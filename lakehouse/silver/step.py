"""One incremental step from a bronze table to a silver one: the part that all silver tables of events share.

In: rows appended to the bronze table since the watermark that silver's own snapshots carry, and the versions of
``dimensions.dim_symbol``. Out: new rows in silver, once each; rows that break a rule in
``silver.rejected_records``; everything that arrived is counted as new, duplicate or rejected, in the result and in
the summary of silver's snapshots.

Rows go through in batches: read, judged and written to a file, which is then checked against the data contract.

On a crash: rejected rows are committed first and never twice; the silver rows and the new watermark become
visible in one commit, which is refused when anybody else committed to the table in between. So an interrupted
or repeated run loses nothing and doubles nothing; a file that nothing refers to may be left for upkeep to remove.
A long backlog is worked off in portions of whole bronze commits, oldest first, about :data:`PORTION_ROWS` rows
each; the watermark moves with every portion.

A symbol that dim_symbol does not know has a null company. When dim_symbol has learned it, or a version was changed
for times past, the next run writes the days anew whose companies are no longer right.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date

import pyarrow as pa
from pyiceberg.table import Table

from lakehouse.batch import BatchSession, compare_and_swap
from lakehouse.days import day_files, replace_days, replacing, window
from lakehouse.incremental import Watermark, appended_since, read_watermark
from lakehouse.quality.layer import require_sound
from lakehouse.reading import read_batches
from lakehouse.silver.companies import COMPANY, DIM_SYMBOL, Companies
from lakehouse.silver.judging import Judging, SilverStep, StepResult
from lakehouse.silver.rejected import keep_only, rejected_on
from lakehouse.snapshots import DataFileEntry, SnapshotFiles
from lakehouse.state import STATE_PREFIX, WATERMARK, carried, read_state
from lakehouse.tables import arrow_schema

log = logging.getLogger(__name__)

PORTION_ROWS = 1_000_000
"""Rows that go into one commit, and of those kept aside what memory holds. Any portion costs some 0.1 s."""
DIM_READ = STATE_PREFIX + "dim-symbol"
"""Summary property: snapshot of dim_symbol that all rows of the table agree with."""
TOTALS = STATE_PREFIX + "totals"
"""Summary property: JSON, what arrived since the table's first row and what became of it."""
COUNTS = ("arrived", "new", "duplicates", "rejected")


def refine(session: BatchSession, step: SilverStep, portion_rows: int = PORTION_ROWS) -> StepResult:
    """Run the step until silver has what bronze had when it began.

    Raises:
        ContractViolationError: the new rows, or bronze, break the data contract; none of their portion is
            committed.
        CommitFailedException: other writers won every race; nothing is lost, run it again.
    """

    def attempt() -> StepResult:
        target = session.catalog.load_table(step.target)
        return _refine(session, step, target, session.catalog.load_table(step.source), portion_rows)

    return compare_and_swap(step.target, attempt)


def rebuild_day(
    session: BatchSession, step: SilverStep, day: date, portion_rows: int = PORTION_ROWS
) -> StepResult:
    """Judge and enrich all rows of a UTC day anew, and replace the day in one commit.

    The step is brought up to date first, so that the day holds what the incremental way would have put there.

    Raises: see :func:`refine`.
    """

    def attempt() -> StepResult:
        target = session.catalog.load_table(step.target)
        source = session.catalog.load_table(step.source)
        _refine(session, step, target, source, portion_rows)
        snapshot = session.manifests.files(step.source, source)
        return _rebuild_day(session, step, target, source, snapshot, day, portion_rows)

    return compare_and_swap(step.target, attempt)


def totals(table: Table) -> StepResult:
    """What arrived at a silver table since its first row, and what became of it: the sums of all its runs."""
    return StepResult(**json.loads(read_state(table).get(TOTALS, "{}")))


# --- the incremental way


def _refine(
    session: BatchSession, step: SilverStep, target: Table, source: Table, portion_rows: int
) -> StepResult:
    companies = Companies.read(session)
    reenriched = _reenrich(session, step, target, companies)
    since = read_watermark(target) or Watermark()
    appended = appended_since(step.source, source, since, session.manifests)
    portions = _portions(appended.files, portion_rows)
    if portions:
        require_sound(session, step.source)
    done = StepResult()
    for number, files in enumerate(portions, 1):
        if number == len(portions):
            until = appended.watermark
        else:  # whole commits in their order, so that everything up to the newest of them has been read
            until = replace(since, sequence_number=files[-1].sequence_number)
        with session.connection.cursor() as cursor:
            judging = Judging(session, step, cursor, target, companies, source, portion_rows)
            with session.changes(target) as commit:
                written = commit.write(judging.rows(appended.snapshot, files, appended.where))
                judging.require(written)
                commit.append_files(
                    written,
                    _summary(target, judging.result)
                    | {WATERMARK: until.to_json(), DIM_READ: companies.snapshot_id},
                )
        done += judging.result
    result = replace(
        done,
        reenriched=reenriched,
        source_snapshot_id=appended.snapshot.snapshot_id,
        snapshot_id=target.metadata.current_snapshot_id,
    )
    if portions:
        log.info("%s: %s", step.target, result)
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


def _summary(target: Table, part: StepResult) -> dict[str, str]:
    """Properties for the snapshot that brings ``part``: its counts, and the sums so far as state."""
    counts = {f"tickhouse.{name}": str(getattr(part, name)) for name in COUNTS}
    return carried(target, _as_state(totals(target) + part)) | counts


def _as_state(sums: StepResult) -> dict[str, str]:
    """As :func:`totals` reads it back."""
    return {TOTALS: json.dumps({name: getattr(sums, name) for name in COUNTS})}


# --- whole days


def _rebuild_day(
    session: BatchSession,
    step: SilverStep,
    target: Table,
    bronze: Table,
    source: SnapshotFiles,
    day: date,
    portion_rows: int,
) -> StepResult:
    companies = Companies.read(session)
    start, end = window(day)
    files = day_files(source, day)
    before = sum(file.rows for file in day_files(session.manifests.files(step.target, target), day))
    rejected_before, sums = rejected_on(session, step.source, day), totals(target)
    with session.connection.cursor() as cursor:
        judging = Judging(session, step, cursor, target, companies, bronze, portion_rows)
        where = f"timestamp >= '{start.isoformat()}' and timestamp < '{end.isoformat()}'"
        with replacing(session, target, [day]) as commit:
            written = commit.write(judging.rows(source, files, where, day))
            judging.require(written)
            done = judging.result
            new = sums.new + done.new - before
            refused = sums.rejected + done.rejected - len(rejected_before)
            after = StepResult(sums.arrived, new, sums.arrived - new - refused, refused)
            commit.append_files(written, carried(target, _as_state(after)))
    keep_only(session, step.source, day, judging.rejected)
    log.info("%s: %s rebuilt, %d rows before, %s", step.target, day, before, done)
    head = target.metadata.current_snapshot_id
    return replace(done, source_snapshot_id=source.snapshot_id, snapshot_id=head)


def _reenrich(session: BatchSession, step: SilverStep, target: Table, companies: Companies) -> tuple[date, ...]:
    """Write the days anew whose rows have another company than dim_symbol says by now; returns them."""
    if target.current_snapshot() is None or read_state(target).get(DIM_READ) == companies.snapshot_id:
        return ()
    snapshot = session.manifests.files(step.target, target)
    schema = arrow_schema(step.target)
    enriched = [name for name in schema.names if name in ("symbol", "timestamp", *COMPANY)]

    def as_it_should_be(files: Sequence[DataFileEntry], names: Sequence[str]) -> Iterator[tuple[pa.Table, bool]]:
        """Batches of rows with their right companies, and whether these are others than before."""
        for batch in read_batches(target.io, snapshot, files, names, step.batch_rows):
            rows = pa.Table.from_batches([batch])
            right = companies.join(rows).select(names).cast(rows.schema)
            if right.num_rows != rows.num_rows:
                raise RuntimeError(f"{DIM_SYMBOL} has two versions of a symbol for the same time: mend it")
            yield right, not right.equals(rows)

    wrong = [file for file in snapshot.files if any(other for _, other in as_it_should_be([file], enriched))]
    days = tuple(sorted({file.day for file in wrong if file.day is not None}))
    rows = (right for day in days for right, _ in as_it_should_be(day_files(snapshot, day), schema.names))
    replace_days(session, target, days, rows, {DIM_READ: companies.snapshot_id})
    if days:
        log.info("%s: companies of %s corrected", step.target, ", ".join(map(str, days)))
    return days
