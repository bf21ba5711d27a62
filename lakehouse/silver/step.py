"""One incremental step from a bronze table to a silver one: the part that all silver tables of events share.

In: rows appended to the bronze table since the watermark that silver's own snapshots carry, and the versions of
``dimensions.dim_symbol``. Out: new rows in silver, once each; rows that break a rule in
``silver.rejected_records``; everything that arrived is counted as new, duplicate or rejected, in the result and in
the summary of silver's snapshots.

On a crash: rejected rows are committed first and never twice; the silver rows and the new watermark become
visible in one commit, which is refused when anybody else committed to the table in between. So an interrupted
or repeated run loses nothing and doubles nothing. A long backlog is worked off in portions of whole bronze
commits, oldest first, about :data:`PORTION_ROWS` rows each; the watermark moves with every portion.

An id is looked for in the whole table, whatever day it came with: the bounds of the files' ids tell which files
may hold it. Ids that count up, as an exchange's do, lie in few; of random ones every file's id column is read.

A symbol that dim_symbol does not know has a null company. When dim_symbol has learned it, or a version was changed
for times past, the next run writes the days anew whose companies are no longer right.
"""

from __future__ import annotations

import importlib.resources
import itertools
import json
import logging
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Self

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.table import Table

from lakehouse.append import expire_snapshots, transaction
from lakehouse.batch import BatchSession, compare_and_swap
from lakehouse.days import day_files, replace_days, window
from lakehouse.duck import files_sql, quoted
from lakehouse.incremental import Watermark, appended_since, read_watermark
from lakehouse.quality.gate import require
from lakehouse.quality.layer import require_sound
from lakehouse.silver.rejected import RecordKey, keep_only, record_keys, reject, rejected_on
from lakehouse.snapshots import DataFileEntry, SnapshotFiles
from lakehouse.state import STATE_PREFIX, WATERMARK, carried, read_state
from lakehouse.tables import arrow_schema

log = logging.getLogger(__name__)

PORTION_ROWS = 500_000
"""Rows worked on at once: two CPU seconds, 600 to 900 MB; twice as many take 400 MB more."""
BATCH_ROWS = 50_000
"""Rows that DuckDB hands on at once: it then need not hold all of them beside what is made of them."""

DIM_SYMBOL = "dimensions.dim_symbol"
DIM_READ = STATE_PREFIX + "dim-symbol"
"""Summary property: snapshot of dim_symbol that all rows of the table agree with."""
TOTALS = STATE_PREFIX + "totals"
"""Summary property: JSON, what arrived since the table's first row and what became of it."""
FOREVER = datetime(9999, 12, 31, tzinfo=UTC)
_COMPANY = ("company_name", "sector", "market_cap_category")
_NOT_NEEDED = ("_kafka_timestamp", "_received_at")


@dataclass(frozen=True, slots=True)
class SilverStep:
    """What differs from table to table."""

    source: str
    """Bronze table."""
    target: str
    """Silver table."""
    key: str
    """Column that identifies a row, in both."""
    content: tuple[str, ...]
    """Columns that a redelivered row repeats word for word, in both."""
    rules: str
    """Name of the SQL file that finds the rule each row of ``arrived`` breaks."""
    rows: str
    """Name of the SQL file that selects the target's rows from ``fresh`` and ``dim_symbol``."""


@dataclass(frozen=True, slots=True)
class Companies:
    """dim_symbol as a run reads it: once."""

    snapshot_id: str
    rows: pa.Table
    """With an end for every version: joining on plain comparisons takes half the time of asking for null."""

    @classmethod
    def read(cls, session: BatchSession) -> Self:
        table = session.catalog.load_table(DIM_SYMBOL)
        rows = table.scan().to_arrow()
        column = rows.schema.get_field_index("valid_to")
        closed = pc.fill_null(rows["valid_to"], FOREVER)
        return cls(str(table.metadata.current_snapshot_id), rows.set_column(column, "valid_to", closed))


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a run did. ``arrived = new + duplicates + rejected``."""

    arrived: int = 0
    new: int = 0
    duplicates: int = 0
    rejected: int = 0
    unknown: int = 0
    """Of the new rows, those with a symbol that dim_symbol does not know."""
    reenriched: tuple[date, ...] = ()
    """Days written anew, because dim_symbol had changed for them."""
    source_snapshot_id: int | None = None
    """Snapshot of the bronze table up to which was read."""
    snapshot_id: int | None = None
    """Head of the silver table after the run; None while it has no snapshot."""

    def __add__(self, other: StepResult) -> StepResult:
        return replace(
            other,
            arrived=self.arrived + other.arrived,
            new=self.new + other.new,
            duplicates=self.duplicates + other.duplicates,
            rejected=self.rejected + other.rejected,
            unknown=self.unknown + other.unknown,
        )


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
        return _rebuild_day(session, step, target, session.manifests.files(step.source, source), day, portion_rows)

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
            judged = _judge(session, step, cursor, target, companies, appended.sql(files))
            with transaction(target) as commit:
                commit.append(
                    judged.rows,
                    snapshot_properties=_summary(target, judged.result)
                    | {WATERMARK: until.to_json(), DIM_READ: companies.snapshot_id},
                )
        expire_snapshots(target, at=session.settings.snapshots_expire_at, keep=session.settings.snapshots_kept)
        done += judged.result
        del judged  # memory holds the rows of one portion, not the next one's as well
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
    counts = {name: getattr(part, name) for name in ("arrived", "new", "duplicates", "rejected")}
    before = totals(target)
    sums = {name: getattr(before, name) + count for name, count in counts.items()}
    return carried(target, {TOTALS: json.dumps(sums)}) | {
        f"tickhouse.{name}": str(count) for name, count in counts.items()
    }


# --- judging rows


@dataclass(frozen=True, slots=True)
class Judged:
    """Rows that arrived, with a verdict each."""

    result: StepResult
    rows: pa.Table
    """The new ones, as rows of the silver table."""
    rejected: set[RecordKey]


def _judge(
    session: BatchSession,
    step: SilverStep,
    cursor: duckdb.DuckDBPyConnection,
    target: Table,
    companies: Companies,
    arrived: str,
    replaced: date | None = None,
) -> Judged:
    """Judge the rows that ``arrived`` selects, keep the rejected ones, check the others.

    Args:
        replaced: day whose silver rows are about to be replaced, and so do not count as known.
    """
    now = session.clock()
    cursor.execute(
        f"create or replace temp view arrived as select * exclude ({', '.join(_NOT_NEEDED)}), "
        f"{_sql(step.rules)} as broken from ({arrived})"
    )
    _suspect(session, step, cursor, target, replaced)
    cursor.execute(
        f"create or replace temp view ruled as select rowid as id, {step.key} as key, "
        f"{_struct(step.content)} as content, broken, "
        "_ingested_at, _kafka_topic, _kafka_partition, _kafka_offset from suspects"
    )
    cursor.execute(_sql("judged.sql"), {"key": step.key})
    counts: dict[str, int] = dict(
        cursor.execute(
            "select verdict, count(*) from judged group by verdict "
            "union all select 'arrived', count(*) from arrived_keys"
        ).fetchall()
    )
    rejected = cursor.execute(
        "select suspects.* exclude broken, rule, why "
        "from judged join suspects on suspects.rowid = judged.id "
        "where verdict = 'rejected' order by _kafka_topic, _kafka_partition, _kafka_offset"
    ).to_arrow_table()
    reject(session, step.source, rejected, now)
    # Rows that are plainly new are read here for the first time, and kept nowhere but in what comes out.
    cursor.execute(
        "create or replace temp view fresh as "
        f"select * from arrived where hash({step.key}) not in (from doubtful) "
        "union all select * from suspects where rowid not in (select id from judged)"
    )
    cursor.register("dim_symbol", companies.rows)
    statement = f"{_sql(step.rows)} {_sql('dim_symbol_join.sql')}"
    batches = cursor.execute(statement, {"processed_at": now}).to_arrow_reader(BATCH_ROWS)
    rows = batches.read_all().cast(arrow_schema(step.target))
    if rows.num_rows:
        require(session, {step.target: rows}, now, {DIM_SYMBOL: companies.rows})
    duplicates = counts.get("duplicate", 0)
    result = StepResult(
        arrived=counts["arrived"],
        new=counts["arrived"] - duplicates - rejected.num_rows,
        duplicates=duplicates,
        rejected=rejected.num_rows,
        unknown=rows["company_name"].null_count,
    )
    return Judged(result, rows, record_keys(rejected))


def _suspect(
    session: BatchSession,
    step: SilverStep,
    cursor: duckdb.DuckDBPyConnection,
    target: Table,
    replaced: date | None,
) -> None:
    """Find the few rows of ``arrived`` that are to be looked at closely; all others are plainly new.

    Keys are told apart by their hashes, which takes a fraction of the time and memory: two keys with the same hash
    are looked at closely, and found to be different.

    ``suspects``: rows that break a rule, or whose key came twice or is in silver. ``known``: key and content of
    silver's rows with a key that has arrived. ``doubtful``: hashes of the suspects' keys. ``arrived_keys``: hashes
    of all.
    """
    cursor.execute(
        f"create or replace temp table arrived_keys as select hash({step.key}) as key_hash from arrived"
    )
    # Bounds hour by hour: a late row then widens the bounds of its own hour, not those of all that arrived.
    bounds: list[tuple[str, str]] = cursor.execute(
        f"select min({step.key}), max({step.key}) from arrived group by epoch_us(timestamp) // 3600000000"
    ).fetchall()
    smallest, largest = min(bounds, default=("", ""))[0], max((last for _, last in bounds), default="")
    snapshot = session.manifests.files(step.target, target)
    leave = set() if replaced is None else set(day_files(snapshot, replaced))
    held = f"({files_sql(snapshot, [file for file in _may_hold(snapshot, bounds) if file not in leave])})"
    cursor.execute(
        f"create or replace temp table hits as select {step.key} as key, timestamp from {held} "
        f"where {step.key} between {quoted(smallest)} and {quoted(largest)} "
        f"and hash({step.key}) in (from arrived_keys)"
    )
    # Mostly there are none, or what a redelivery repeats of the minutes before: few row groups are read again.
    within = cursor.execute("select min(epoch_us(timestamp)), max(epoch_us(timestamp)) from hits").fetchall()[0]
    first, last = (f"make_timestamptz({moment or 0})" for moment in within)
    cursor.execute(
        f"create or replace temp table known as select {step.key} as key, {_struct(step.content)} as content "
        f"from {held} where {step.key} in (select key from hits) and timestamp between {first} and {last}"
    )
    cursor.execute(
        "create or replace temp table doubtful as select hash(key) as key_hash from hits union "
        "select key_hash from arrived_keys group by key_hash having count(*) > 1"
    )
    cursor.execute(
        "create or replace temp table suspects as "
        f"select * from arrived where broken is not null or hash({step.key}) in (from doubtful)"
    )
    # So that a row's rules are looked at once.
    cursor.execute(f"insert into doubtful select hash({step.key}) from suspects where broken is not null")


def _may_hold(snapshot: SnapshotFiles, bounds: Sequence[tuple[str, str]]) -> list[DataFileEntry]:
    """Files whose keys reach into one of ``bounds``, (first, last) each."""
    merged: list[tuple[str, str]] = []
    for first, last in sorted(bounds):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    lasts = [last for _, last in merged]
    found = []
    for file in snapshot.files:
        place = 0 if file.first_key is None else bisect_left(lasts, file.first_key)
        if place < len(merged) and (file.last_key is None or merged[place][0] <= file.last_key):
            found.append(file)
    return found


# --- whole days


def _rebuild_day(
    session: BatchSession, step: SilverStep, target: Table, source: SnapshotFiles, day: date, portion_rows: int
) -> StepResult:
    companies = Companies.read(session)
    start, end = window(day)
    files = day_files(source, day)
    parts = 1 + sum(file.rows for file in files) // portion_rows
    before = sum(file.rows for file in day_files(session.manifests.files(step.target, target), day))
    rejected_before, rejected = rejected_on(session, step.source, day), set[RecordKey]()
    done, sums = StepResult(), totals(target)

    def rows() -> Iterator[pa.Table]:
        """Part by part, all rows of one key in the same part."""
        nonlocal done
        for part in range(parts):
            arrived = (
                f"select * from ({files_sql(source, files)}) where timestamp >= '{start.isoformat()}' "
                f"and timestamp < '{end.isoformat()}' and hash({step.key}) % {parts} = {part}"
            )
            with session.connection.cursor() as cursor:
                judged = _judge(session, step, cursor, target, companies, arrived, day)
            done += judged.result
            rejected.update(judged.rejected)
            yield judged.rows

    def state() -> dict[str, str]:
        new = sums.new + done.new - before
        refused = sums.rejected + done.rejected - len(rejected_before)
        after = {"arrived": sums.arrived, "new": new, "duplicates": sums.arrived - new - refused}
        return {TOTALS: json.dumps(after | {"rejected": refused})}

    replace_days(session, target, [day], rows(), state)
    keep_only(session, step.source, day, rejected)
    log.info("%s: %s rebuilt, %d rows before, %s", step.target, day, before, done)
    return replace(done, source_snapshot_id=source.snapshot_id, snapshot_id=target.metadata.current_snapshot_id)


def _reenrich(session: BatchSession, step: SilverStep, target: Table, companies: Companies) -> tuple[date, ...]:
    """Write the days anew whose rows have another company than dim_symbol says by now; returns them."""
    if target.current_snapshot() is None or read_state(target).get(DIM_READ) == companies.snapshot_id:
        return ()
    snapshot = session.manifests.files(step.target, target)
    schema = arrow_schema(step.target)
    names = [name for name in _COMPANY if name in schema.names]
    differs = " or ".join(f"silver.{name} is distinct from dim_symbol.{name}" for name in names)
    replaced = ", ".join(f"dim_symbol.{name} as {name}" for name in names)
    with session.connection.cursor() as cursor:
        cursor.register("dim_symbol", companies.rows)

        def joined(select: str, files: Sequence[DataFileEntry], where: str = "") -> duckdb.DuckDBPyConnection:
            silver = f"({files_sql(snapshot, files)}) as silver {_sql('dim_symbol_join.sql')}"
            return cursor.execute(f"select {select} from {silver} {where}")

        wrong = [f for f in snapshot.files if joined("1", [f], f"where {differs} limit 1").fetchone()]
        days = tuple(sorted({file.day for file in wrong if file.day is not None}))

        def rows() -> Iterator[pa.Table]:
            for day in days:
                for files in _portions(day_files(snapshot, day), PORTION_ROWS):
                    part = joined(f"silver.* replace ({replaced})", files).to_arrow_table().cast(schema)
                    if part.num_rows != sum(file.rows for file in files):
                        raise RuntimeError(f"{DIM_SYMBOL} has two versions of a symbol for the same time: mend it")
                    yield part
            yield schema.empty_table()  # that the dimension was read is written down where nothing changes, too

        replace_days(session, target, days, rows(), lambda: {DIM_READ: companies.snapshot_id})
    if days:
        log.info("%s: companies of %s corrected", step.target, ", ".join(map(str, days)))
    return days


def _struct(columns: Sequence[str]) -> str:
    return "{" + ", ".join(f"'{name}': {name}" for name in columns) + "}"


def _sql(name: str) -> str:
    return (importlib.resources.files("lakehouse.silver") / name).read_text(encoding="utf-8")
