"""Whole UTC days of a table: which of them changed, what files they are in, and replacing them.

In: a table partitioned by day, and rows. Out: one commit that replaces whole days. On a crash: the commit is
there or it is not; computing a day again gives the same rows.

Which days changed is read off the data files that were added since, so that no expiry of snapshots can lose one; a
compacted file counts as added when the newest of those it replaced was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from typing import TypeVar

import pyarrow as pa
from pyiceberg.table import Table

from lakehouse.append import FastTransaction
from lakehouse.batch import BatchSession
from lakehouse.duck import files_sql
from lakehouse.snapshots import DataFileEntry, SnapshotFiles
from lakehouse.state import WATERMARK, carried, read_state, watermark_sequence
from lakehouse.tables import TABLES

DAYS_KEPT = 2
"""Days of which memory keeps what was made of them: the one that is written to, and one that something came late
for."""

T = TypeVar("T")


def window(day: date) -> tuple[datetime, datetime]:
    """First moment of the day, and of the next."""
    start = datetime.combine(day, time(), UTC)
    return start, start + timedelta(days=1)


def day_files(snapshot: SnapshotFiles, day: date) -> tuple[DataFileEntry, ...]:
    """Files with rows of the day."""
    return tuple(file for file in snapshot.files if file.overlaps(*window(day)))


def day_sql(snapshot: SnapshotFiles, day: date) -> str:
    """Select statement over the rows of the day."""
    return files_sql(snapshot, day_files(snapshot, day))


def touched_days(snapshot: SnapshotFiles, since: int) -> tuple[date, ...]:
    """Days with files committed after sequence number ``since``, in their order. Rows without a time, which a halt
    may be, belong to none.

    Raises:
        RuntimeError: a file holds rows of several days, so the table is not partitioned by day.
    """
    return _days_of(snapshot, (file for file in snapshot.files if file.sequence_number > since))


def all_days(snapshot: SnapshotFiles) -> tuple[date, ...]:
    """Days with rows, in their order. Raises: as :func:`touched_days`."""
    return _days_of(snapshot, snapshot.files)


def _days_of(snapshot: SnapshotFiles, files: Iterable[DataFileEntry]) -> tuple[date, ...]:
    column = TABLES[snapshot.name].partition_by
    timeless = column is not None and not snapshot.schema.find_field(column).required
    days = set()
    for file in files:
        if file.day is not None:
            days.add(file.day)
        elif not (timeless and file.first is None):
            raise RuntimeError(
                f"{file.path} of {snapshot.name} has no single day: the table has to be partitioned by day"
            )
    return tuple(sorted(days))


@contextmanager
def accumulated(
    session: BatchSession,
    name: str,
    snapshot: SnapshotFiles,
    day: date,
    begin: Callable[[], T],
    add: Callable[[T, Sequence[DataFileEntry]], T],
    *,
    anew: bool = False,
) -> Iterator[T]:
    """What ``add`` makes of the day's files, beginning with ``begin()``; what the session's run before has read is
    not read again. So the cost of a day that is still written to depends on what came, not on what is there.

    A file never changes. Where one that was read is gone, as after a compaction, all are read. While it is in use
    nobody else gets it, and after an exception nobody at all: they read all files, too.

    Args:
        name: of what is made.
        add: its result is handed to it again by the next run, with the files that came meanwhile.
        anew: read all of them whatever was read before.
    """
    files = day_files(snapshot, day)
    paths = frozenset(file.path for file in files)
    read, found = session.sums.pop((name, day), (frozenset(), None))
    if anew or found is None or not read <= paths:
        read, found = frozenset(), begin()
    found = add(found, [file for file in files if file.path not in read])
    yield found
    session.sums[name, day] = (paths, found)
    for old in [key for key in list(session.sums) if key[0] == name][:-DAYS_KEPT]:
        session.sums.pop(old, None)


def day_sums(
    session: BatchSession,
    name: str,
    snapshot: SnapshotFiles,
    day: date,
    schema: pa.Schema,
    select: Callable[[str], str],
    *,
    anew: bool = False,
) -> pa.Table:
    """Sums over the day's rows by symbol, to which a run adds those of what came: see :func:`accumulated`.

    Args:
        schema: symbol, trading_date, and what is summed: of exact types, so that what comes first is all the same.
        select: from a select statement over rows of the table to one that has these columns.
    """
    sums = ", ".join(f"sum({column}) as {column}" for column in schema.names[2:])

    def add(found: pa.Table, files: Sequence[DataFileEntry]) -> pa.Table:
        if not files:
            return found
        with session.connection.cursor() as cursor:
            cursor.register("found", found)
            added = cursor.execute(
                f"select symbol, trading_date, {sums} "
                f"from (from found union all by name {select(files_sql(snapshot, files))}) group by all"
            )
            return added.to_arrow_table().cast(schema)

    with accumulated(session, name, snapshot, day, schema.empty_table, add, anew=anew) as found:
        return found


def read_until(table: Table, watermark: str = WATERMARK) -> int:
    """Sequence number of the source's commit up to which a table is computed; 0 before its first commit.

    Args:
        watermark: of which source, where it follows several: see :meth:`lakehouse.spec.TableSpec.watermark`.
    """
    return watermark_sequence(read_state(table).get(watermark))


def computed_until(sequence_number: int, watermark: str = WATERMARK) -> dict[str, str]:
    """State for a commit, to be read back by :func:`read_until`."""
    return {watermark: json.dumps({"sequence_number": sequence_number})}


@contextmanager
def replacing(session: BatchSession, table: Table, days: Iterable[date]) -> Iterator[FastTransaction]:
    """A transaction without the rows of ``days``; what the block appends takes their place. The table may have no
    rows of some.

    Raises:
        CommitFailedException: another writer was faster; nothing was changed.
    """
    name = ".".join(table.name()[-2:])
    with session.changes(table) as commit:
        for expression in _present(session, name, table, days):
            commit.delete(expression, snapshot_properties=carried(table))
        yield commit


def replace_days(
    session: BatchSession,
    table: Table,
    days: Iterable[date],
    rows: Iterable[pa.Table],
    state: Mapping[str, str],
) -> int:
    """Replace the rows of ``days`` by ``rows``, which come in parts so that memory need not hold them all.

    Args:
        rows: rows of these days alone; each part is let go before the next is asked for.
        state: changes to the state that the table's snapshots carry.

    Returns: the number of rows written.

    Raises:
        CommitFailedException: another writer was faster; nothing was changed.
    """
    with replacing(session, table, days) as commit:
        files = commit.write(rows)
        commit.append_files(files, carried(table, state))
    return sum(file.record_count for file in files)


def _present(session: BatchSession, name: str, table: Table, days: Iterable[date]) -> list[str]:
    """Conditions that hold for the rows of the days that are there: one per table of dates, else one per day."""
    snapshot = session.manifests.files(name, table)
    there = [day for day in days if day_files(snapshot, day)]
    column = TABLES[name].partition_by
    if column == "trading_date":
        dates = ", ".join(f"'{day}'" for day in there)
        return [f"{column} in ({dates})"] if there else []
    return [
        f"{column} >= '{start.isoformat()}' and {column} < '{end.isoformat()}'"
        for start, end in map(window, there)
    ]
