"""What becomes of the rows that arrive from bronze: new, duplicate or rejected.

In: rows of bronze's data files, and the silver table as it is. Out: the new rows, as rows of the silver table. The
rejected ones are committed on the way, never twice; nothing else is written.

An id is looked for in the whole table, whatever day it came with: the bounds of the files' ids tell which files
may hold it. Ids that count up, as an exchange's do, lie in few; of random ones every file's id column is read.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

import duckdb
import numpy as np
import pyarrow as pa
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from lakehouse.batch import BatchSession
from lakehouse.buffers import column, packed
from lakehouse.days import day_files
from lakehouse.duck import data_files_sql, files_sql, quoted, sql_file
from lakehouse.quality.gate import require
from lakehouse.reading import ROW_GROUP, read_batches
from lakehouse.silver.aside import Aside
from lakehouse.silver.companies import DIM_SYMBOL, Companies, beside
from lakehouse.silver.rejected import RecordKey, record_keys, reject
from lakehouse.snapshots import DataFileEntry, SnapshotFiles
from lakehouse.tables import arrow_schema

KEYS_AT_ONCE = 4_000_000
"""Keys compared at once: some 100 MB of hashes."""
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
    batch_rows: int = ROW_GROUP
    """Rows looked at together, and written as a row group: memory holds no more of those that are plainly new."""
    observe: Mapping[str, Callable[[pa.Table], pa.Table]] = field(default_factory=dict)
    """What its data contract asks of the new rows beside them: name → what makes it of rows of the target."""


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


class Judging:
    """A verdict for each row of some of bronze's files.

    Most rows are plainly new, and are handed on batch by batch. The few whose key came twice or is in silver, or
    that break a rule, are kept aside and judged in the end, all of one key together.
    """

    def __init__(
        self,
        session: BatchSession,
        step: SilverStep,
        cursor: duckdb.DuckDBPyConnection,
        target: Table,
        companies: Companies,
        source: Table,
        held_rows: int,
    ) -> None:
        """``held_rows``: that memory may hold, of those kept aside."""
        self._session, self._step, self._cursor, self._companies = session, step, cursor, companies
        self._target = session.manifests.files(step.target, target)
        self._source, self._held_rows = source, held_rows
        self._schema, self._now = arrow_schema(step.target), session.clock()
        self._rules = sql_file("silver", step.rules)
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
        total = sum(file.rows for file in files)
        arrived = _doubt(self._step, self._cursor, self._target, sql, replaced, math.ceil(total / KEYS_AT_ONCE))
        names = [field.name for field in snapshot.schema.fields if field.name not in _NOT_NEEDED]
        read = read_batches(self._source.io, snapshot, files, names, self._step.batch_rows)
        buckets = math.ceil(total / self._held_rows)
        new = unknown = duplicates = 0
        with Aside() as aside:
            for batch in _filled(read, self._step.batch_rows):
                rows = self._sifted(batch, where, aside, buckets)
                del batch
                new, unknown = new + rows.num_rows, unknown + rows["company_name"].null_count
                yield self._seen(rows)
                del rows  # memory holds one batch, not the next one as well
            for suspects in aside:
                rows, repeated = self._judged(suspects)
                new, unknown = new + rows.num_rows, unknown + rows["company_name"].null_count
                duplicates += repeated
                yield self._seen(rows)
        self.result = StepResult(
            arrived=arrived, new=new, duplicates=duplicates, rejected=len(self.rejected), unknown=unknown
        )

    def require(self, written: Sequence[DataFile]) -> None:
        """Check the new rows in the files that were written. Raises ContractViolationError."""
        if not self.result.new:
            return
        observed = {name: pa.concat_tables(parts) for name, parts in self._observed.items()}
        known = {DIM_SYMBOL: self._companies.rows, **observed}
        require(self._session, {self._step.target: data_files_sql(self._target, written)}, self._now, known)

    def _seen(self, rows: pa.Table) -> pa.Table:
        for name, observe in self._step.observe.items():
            self._observed[name].append(observe(rows))
        return rows

    def _sifted(self, arrived: pa.Table, where: str, aside: Aside, buckets: int) -> pa.Table:
        """Of the rows for which ``where`` holds those that are plainly new, as rows of the silver table; the
        others go into ``aside``, with the rule they break."""
        rows, key = self._show(arrived), self._step.key
        found = self._cursor.execute(
            f"select {_ROW}, broken, holds, hash({key}) % {buckets} as bucket "
            f"from (select {_ROW}, {key}, {self._rules} as broken, ({where}) is true as holds from read) "
            f"where not holds or broken is not null or hash({key}) in (from doubtful)"
        ).to_arrow_table()
        suspects = found.filter(found["holds"])
        if suspects.num_rows:
            aside.add(beside(arrived.take(suspects[_ROW]), suspects.select(["broken"])), suspects["bucket"])
        return self._completed(_without(rows, found[_ROW]))

    def _judged(self, suspects: pa.Table) -> tuple[pa.Table, int]:
        """The suspects that are new after all, as rows of the silver table; how many are duplicates."""
        cursor, step = self._cursor, self._step
        cursor.register("suspects", _numbered(suspects))
        cursor.execute(
            f"create or replace temp view ruled as select {_ROW} as id, {step.key} as key, "
            f"{_struct(step.content)} as content, broken, "
            "_ingested_at, _kafka_topic, _kafka_partition, _kafka_offset from suspects"
        )
        cursor.execute(sql_file("silver", "judged.sql"), {"key": step.key})
        rejected = cursor.execute(
            f"select suspects.* exclude ({_ROW}, broken), rule, why "
            f"from judged join suspects on suspects.{_ROW} = judged.id "
            "where verdict = 'rejected' order by _kafka_topic, _kafka_partition, _kafka_offset"
        ).to_arrow_table()
        reject(self._session, step.source, rejected, self._now)
        self.rejected |= record_keys(rejected)
        rows = self._show(suspects.drop_columns(["broken"]))
        fresh = self._completed(_without(rows, cursor.execute("select id from judged").to_arrow_table()["id"]))
        return fresh, suspects.num_rows - rejected.num_rows - fresh.num_rows

    def _show(self, arrived: pa.Table) -> pa.Table:
        """Show DuckDB, as ``read``, what is no list: it decides about rows, whose columns stay as they are."""
        derive = self._step.derive
        rows = arrived if derive is None else beside(arrived, derive(arrived))
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


def _without(rows: pa.Table, numbers: pa.ChunkedArray) -> pa.Table:
    """The rows but those with these numbers."""
    if not len(numbers):
        return rows
    keep = np.ones(rows.num_rows, np.bool_)
    keep[numbers.to_numpy()] = False
    return rows.filter(column(pa.bool_(), packed(keep), len(keep)))


def _doubt(
    step: SilverStep,
    cursor: duckdb.DuckDBPyConnection,
    snapshot: SnapshotFiles,
    arrived: str,
    replaced: date | None,
    parts: int,
) -> int:
    """Find the few keys among the rows that ``arrived`` selects which came twice or are in silver; how many rows
    there are.

    Keys are told apart by their hashes, which takes a fraction of the time and memory: two keys with the same hash
    are looked at closely, and found to be different. ``parts`` of them are looked at one after the other.

    ``known``: key and content of silver's rows (in ``snapshot``) with a key that has arrived. ``doubtful``: hashes
    of the keys.
    """
    cursor.execute(f"create or replace temp view arrived as {arrived}")
    # Bounds hour by hour: a late row then widens the bounds of its own hour, not those of all that arrived.
    bounds: list[tuple[str, str]] = cursor.execute(
        f"select min({step.key}), max({step.key}) from arrived group by epoch_us(timestamp) // 3600000000"
    ).fetchall()
    smallest, largest = min(bounds, default=("", ""))[0], max((last for _, last in bounds), default="")
    leave = set() if replaced is None else set(day_files(snapshot, replaced))
    held = f"({files_sql(snapshot, [file for file in _may_hold(snapshot, bounds) if file not in leave])})"
    cursor.execute("create or replace temp table hits (key varchar, timestamp timestamptz)")
    cursor.execute("create or replace temp table doubtful (key_hash ubigint)")
    arrived_rows = 0
    for part in range(parts):
        cursor.execute(
            f"create or replace temp table arrived_keys as select hash({step.key}) as key_hash from arrived "
            f"where hash({step.key}) % {parts} = {part}"
        )
        cursor.execute(
            f"insert into hits select {step.key}, timestamp from {held} "
            f"where {step.key} between {quoted(smallest)} and {quoted(largest)} "
            f"and hash({step.key}) in (from arrived_keys)"
        )
        cursor.execute("insert into doubtful select key_hash from arrived_keys group by all having count(*) > 1")
        arrived_rows += int(cursor.execute("select count(*) from arrived_keys").fetchall()[0][0])
    cursor.execute("insert into doubtful select hash(key) from hits")
    # Mostly there are none, or what a redelivery repeats of the minutes before: few row groups are read again.
    within = cursor.execute("select min(epoch_us(timestamp)), max(epoch_us(timestamp)) from hits").fetchall()[0]
    first, last = (f"make_timestamptz({moment or 0})" for moment in within)
    cursor.execute(
        f"create or replace temp table known as select {step.key} as key, {_struct(step.content)} as content "
        f"from {held} where {step.key} in (select key from hits) and timestamp between {first} and {last}"
    )
    return arrived_rows


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


def _struct(columns: Sequence[str]) -> str:
    return "{" + ", ".join(f"'{name}': {name}" for name in columns) + "}"
