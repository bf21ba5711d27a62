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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Self

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from lakehouse.append import expire_snapshots, transaction
from lakehouse.batch import BatchSession, compare_and_swap
from lakehouse.buffers import micros, packed
from lakehouse.days import day_files, replace_days, window
from lakehouse.duck import files_sql, quoted
from lakehouse.incremental import Watermark, appended_since, read_watermark
from lakehouse.quality.gate import require
from lakehouse.quality.layer import require_sound
from lakehouse.reading import read_batches
from lakehouse.silver.rejected import RecordKey, keep_only, record_keys, reject, rejected_on
from lakehouse.snapshots import DataFileEntry, SnapshotFiles, local_path
from lakehouse.state import STATE_PREFIX, WATERMARK, carried, read_state
from lakehouse.tables import arrow_schema

log = logging.getLogger(__name__)

PORTION_ROWS = 1_000_000
"""Rows that go into one commit, and whose keys are compared at once. A portion costs some 0.1 s, whatever its size."""
HELD_ROWS = 500_000
"""Rows that memory holds at once where they do not go through in batches."""
DIM_SYMBOL = "dimensions.dim_symbol"
DIM_READ = STATE_PREFIX + "dim-symbol"
"""Summary property: snapshot of dim_symbol that all rows of the table agree with."""
TOTALS = STATE_PREFIX + "totals"
"""Summary property: JSON, what arrived since the table's first row and what became of it."""
FOREVER = datetime(9999, 12, 31, tzinfo=UTC)
_COMPANY = ("company_name", "sector", "market_cap_category")
_NOT_NEEDED = ("_kafka_timestamp", "_received_at")
_ROW = "row"
"""Column: number of a row among those that arrived."""


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
    derive: Callable[[pa.Table], pa.Table] | None = None
    """Makes more columns of those that arrived, for the rules, the target or both; one of the same name takes the
    place of what arrived."""
    batch_rows: int = 122_880
    """Rows looked at together, and written as a row group: memory holds no more of those that are plainly new."""
    observe: Mapping[str, Callable[[pa.Table], pa.Table]] = field(default_factory=dict)
    """What its data contract asks of the new rows beside them: name → what makes it of rows of the target."""


@dataclass(frozen=True, slots=True)
class Companies:
    """dim_symbol as a run reads it: once."""

    snapshot_id: str
    rows: pa.Table
    """By symbol and time, with an end for every version: comparing takes half the time of asking for null."""

    @classmethod
    def read(cls, session: BatchSession) -> Self:
        table = session.catalog.load_table(DIM_SYMBOL)
        rows = table.scan().to_arrow()
        column = rows.schema.get_field_index("valid_to")
        closed = pc.fill_null(rows["valid_to"], FOREVER)
        rows = rows.set_column(column, "valid_to", closed).sort_by("symbol").combine_chunks()
        return cls(str(table.metadata.current_snapshot_id), rows)

    def join(self, rows: pa.Table) -> pa.Table:
        """``rows``, each with name, sector and size of the company that its symbol stood for at its time, or null.

        It is what ``dim_symbol_join.sql`` says, in a third of the time: a row comes twice where two versions hold.
        """
        versions = pc.dictionary_encode(self.rows["symbol"]).combine_chunks()
        unknown = len(versions)  # behind the last version: of no symbol, and without a company
        begins = np.append(np.flatnonzero(np.diff(versions.indices, prepend=-1)), [unknown, unknown])
        symbol = pc.fill_null(pc.index_in(rows["symbol"], versions.dictionary), len(begins) - 2).to_numpy()
        moments = micros(rows["timestamp"])
        starts, ends = (np.append(micros(self.rows[name]), 0) for name in ("valid_from", "valid_to"))
        found, twice = np.full(rows.num_rows, unknown), list[NDArray[np.int64]]()
        for number in range(int(np.diff(begins).max())):
            version = np.minimum(begins[symbol] + number, begins[symbol + 1])
            holds = (version < begins[symbol + 1]) & (starts[version] <= moments) & (moments < ends[version])
            twice.append(np.flatnonzero(holds & (found < unknown)))
            found[holds] = version[holds]
        known = self.rows.select(_COMPANY)
        known = pa.concat_tables([known, pa.table([[None]] * len(_COMPANY), schema=known.schema)])
        joined = _beside(
            rows, known.take(pa.Array.from_buffers(pa.int64(), len(found), [None, pa.py_buffer(found)]))
        )
        again = np.concatenate([np.empty(0, np.int64), *twice])
        return pa.concat_tables([joined, joined.take(pa.array(again))]) if len(again) else joined


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
    session: BatchSession, step: SilverStep, day: date, portion_rows: int = HELD_ROWS
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
            judging = _Judging(session, step, cursor, target, companies, source)
            with transaction(target) as commit:
                written = commit.write(judging.rows(appended.snapshot, files, appended.where))
                with commit.removed_on_error(written):
                    judging.require(written)
                commit.append_files(
                    written,
                    _summary(target, judging.result)
                    | {WATERMARK: until.to_json(), DIM_READ: companies.snapshot_id},
                )
        expire_snapshots(target, at=session.settings.snapshots_expire_at, keep=session.settings.snapshots_kept)
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
    counts = {name: getattr(part, name) for name in ("arrived", "new", "duplicates", "rejected")}
    before = totals(target)
    sums = {name: getattr(before, name) + count for name, count in counts.items()}
    return carried(target, {TOTALS: json.dumps(sums)}) | {
        f"tickhouse.{name}": str(count) for name, count in counts.items()
    }


# --- judging rows


class _Judging:
    """A verdict for each row of some of bronze's files.

    Most rows are plainly new, and are handed on batch by batch. The few whose key came twice or is in silver, or
    that break a rule, are kept aside and judged in the end, all together.
    """

    def __init__(
        self,
        session: BatchSession,
        step: SilverStep,
        cursor: duckdb.DuckDBPyConnection,
        target: Table,
        companies: Companies,
        source: Table,
    ) -> None:
        self._session, self._step, self._cursor, self._companies = session, step, cursor, companies
        self._target = session.manifests.files(step.target, target)
        self._source = source
        self._schema, self._now = arrow_schema(step.target), session.clock()
        self.result = StepResult()
        """What became of the rows, once they have all been asked for."""
        self.rejected = set[RecordKey]()
        self._observed: dict[str, list[pa.Table]] = {name: [] for name in step.observe}

    def rows(
        self, snapshot: SnapshotFiles, files: Sequence[DataFileEntry], where: str, replaced: date | None = None
    ) -> Iterator[pa.Table]:
        """The new rows, as rows of the silver table; the others are counted, and the rejected ones kept.

        Args:
            files: of bronze, in its ``snapshot``.
            where: SQL condition: which of their rows have arrived.
            replaced: day whose silver rows are about to be replaced, and so do not count as known.
        """
        sql = f"select * from ({files_sql(snapshot, files)}) where {where}"
        arrived = _doubt(self._step, self._cursor, self._target, sql, replaced)
        names = [field.name for field in snapshot.schema.fields if field.name not in _NOT_NEEDED]
        aside: list[pa.Table] = []
        new = unknown = 0
        for batch in _filled(
            read_batches(self._source.io, snapshot, files, names, self._step.batch_rows), self._step.batch_rows
        ):
            plain, suspects = self._sifted(batch, where)
            del batch
            if suspects.num_rows:
                aside.append(suspects)
            new, unknown = new + plain.num_rows, unknown + plain["company_name"].null_count
            yield self._seen(plain)
            del plain  # memory holds one batch, not the next one as well
        rest, duplicates = self._judged(pa.concat_tables(aside)) if aside else (self._schema.empty_table(), 0)
        self.result = StepResult(
            arrived=arrived,
            new=new + rest.num_rows,
            duplicates=duplicates,
            rejected=len(self.rejected),
            unknown=unknown + rest["company_name"].null_count,
        )
        yield self._seen(rest)

    def require(self, rows: pa.Table | Sequence[DataFile]) -> None:
        """Check the new rows, in memory or in files that were written. Raises ContractViolationError."""
        if not self.result.new:
            return
        select = rows
        if not isinstance(rows, pa.Table):
            files = [DataFileEntry(local_path(file.file_path), 0, 0, None, None) for file in rows]
            select = files_sql(self._target, files)
        observed = {name: pa.concat_tables(parts) for name, parts in self._observed.items()}
        known = {DIM_SYMBOL: self._companies.rows, **observed}
        require(self._session, {self._step.target: select}, self._now, known)

    def _seen(self, rows: pa.Table) -> pa.Table:
        for name, observe in self._step.observe.items():
            self._observed[name].append(observe(rows))
        return rows

    def _sifted(self, arrived: pa.Table, where: str) -> tuple[pa.Table, pa.Table]:
        """Of the rows for which ``where`` holds: those that are plainly new, as rows of the silver table; the
        others, with the rule they break."""
        rows, key = self._show(arrived), self._step.key
        found = self._cursor.execute(
            f"select {_ROW}, broken, holds from (select {_ROW}, {key}, {_sql(self._step.rules)} as broken, "
            f"({where}) is true as holds from read) "
            f"where not holds or broken is not null or hash({key}) in (from doubtful)"
        ).to_arrow_table()
        suspects = found.filter(found["holds"])
        aside = _beside(arrived.take(suspects[_ROW]), suspects.select(["broken"]))
        return self._completed(_without(rows, found[_ROW])), aside

    def _judged(self, suspects: pa.Table) -> tuple[pa.Table, int]:
        """The suspects that are new after all, as rows of the silver table; how many are duplicates."""
        cursor, step = self._cursor, self._step
        cursor.register("suspects", _numbered(suspects))
        cursor.execute(
            f"create or replace temp view ruled as select {_ROW} as id, {step.key} as key, "
            f"{_struct(step.content)} as content, broken, "
            "_ingested_at, _kafka_topic, _kafka_partition, _kafka_offset from suspects"
        )
        cursor.execute(_sql("judged.sql"), {"key": step.key})
        rejected = cursor.execute(
            f"select suspects.* exclude ({_ROW}, broken), rule, why "
            f"from judged join suspects on suspects.{_ROW} = judged.id "
            "where verdict = 'rejected' order by _kafka_topic, _kafka_partition, _kafka_offset"
        ).to_arrow_table()
        reject(self._session, step.source, rejected, self._now)
        self.rejected = record_keys(rejected)
        rows = self._show(suspects.drop_columns(["broken"]))
        fresh = self._completed(_without(rows, cursor.execute("select id from judged").to_arrow_table()["id"]))
        return fresh, suspects.num_rows - rejected.num_rows - fresh.num_rows

    def _show(self, arrived: pa.Table) -> pa.Table:
        """Show DuckDB, as ``read``, what is no list: it decides about rows, whose columns stay as they are."""
        derive = self._step.derive
        rows = arrived if derive is None else _beside(arrived, derive(arrived))
        self._cursor.register("read", _numbered(_flat(rows)))
        return rows

    def _completed(self, rows: pa.Table) -> pa.Table:
        """Rows of the silver table."""
        rows = self._companies.join(rows)
        processed = pa.repeat(pa.scalar(self._now, self._schema.field("_processed_at").type), rows.num_rows)
        return rows.append_column("_processed_at", processed).select(self._schema.names).cast(self._schema)


def _filled(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """Small batches joined, to ``rows`` rows: looking at one costs some milliseconds, however few it has."""
    parts: list[pa.RecordBatch] = []
    for batch in batches:
        parts.append(batch)
        del batch
        if sum(part.num_rows for part in parts) >= rows:
            table = pa.Table.from_batches(parts)
            parts = []
            yield table
            del table
    if parts:
        yield pa.Table.from_batches(parts)


def _flat(rows: pa.Table) -> pa.Table:
    return rows.select([field.name for field in rows.schema if not pa.types.is_nested(field.type)])


def _numbered(rows: pa.Table) -> pa.Table:
    return rows.append_column(_ROW, pa.arange(0, rows.num_rows))


def _beside(left: pa.Table, right: pa.Table) -> pa.Table:
    """The columns of both; of two with the same name, that of the right."""
    left = left.select([name for name in left.column_names if name not in right.column_names])
    return pa.table([*left.columns, *right.columns], schema=pa.schema([*left.schema, *right.schema]))


def _without(rows: pa.Table, numbers: pa.ChunkedArray) -> pa.Table:
    """The rows but those with these numbers."""
    if not len(numbers):
        return rows
    keep = np.ones(rows.num_rows, np.bool_)
    keep[numbers.to_numpy()] = False
    return rows.filter(pa.Array.from_buffers(pa.bool_(), len(keep), [None, pa.py_buffer(packed(keep))]))


def _doubt(
    step: SilverStep,
    cursor: duckdb.DuckDBPyConnection,
    snapshot: SnapshotFiles,
    arrived: str,
    replaced: date | None,
) -> int:
    """Find the few keys among the rows that ``arrived`` selects which came twice or are in silver; how many rows
    there are.

    Keys are told apart by their hashes, which takes a fraction of the time and memory: two keys with the same hash
    are looked at closely, and found to be different.

    ``known``: key and content of silver's rows (in ``snapshot``) with a key that has arrived. ``doubtful``: hashes
    of the keys.
    """
    cursor.execute(f"create or replace temp view arrived as {arrived}")
    cursor.execute(
        f"create or replace temp table arrived_keys as select hash({step.key}) as key_hash from arrived"
    )
    # Bounds hour by hour: a late row then widens the bounds of its own hour, not those of all that arrived.
    bounds: list[tuple[str, str]] = cursor.execute(
        f"select min({step.key}), max({step.key}) from arrived group by epoch_us(timestamp) // 3600000000"
    ).fetchall()
    smallest, largest = min(bounds, default=("", ""))[0], max((last for _, last in bounds), default="")
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
    return int(cursor.execute("select count(*) from arrived_keys").fetchall()[0][0])


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
    parts = 1 + sum(file.rows for file in files) // portion_rows
    before = sum(file.rows for file in day_files(session.manifests.files(step.target, target), day))
    rejected_before, rejected = rejected_on(session, step.source, day), set[RecordKey]()
    done, sums = StepResult(), totals(target)

    def rows() -> Iterator[pa.Table]:
        """Part by part, all rows of one key in the same part."""
        nonlocal done
        for part in range(parts):
            where = (
                f"timestamp >= '{start.isoformat()}' and timestamp < '{end.isoformat()}' "
                f"and hash({step.key}) % {parts} = {part}"
            )
            with session.connection.cursor() as cursor:
                judging = _Judging(session, step, cursor, target, companies, bronze)
                found = pa.concat_tables(judging.rows(source, files, where, day))
                judging.require(found)
            done += judging.result
            rejected.update(judging.rejected)
            yield found

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
                for files in _portions(day_files(snapshot, day), HELD_ROWS):
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
