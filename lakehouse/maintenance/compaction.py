"""Compaction: small files of a partition into sorted ones near a target size.

In: a table. Out: one OVERWRITE commit for each group of files, with the same rows in fewer files, sorted as the
table declares; a :class:`Compacted` report.

A past day becomes files of about the target size, each holding a range of the sort order. Of the day that is still
written to, a file is rewritten only together with at least as many bytes of smaller ones: so a row is rewritten a
few times at most, and the number of files stays logarithmic in the day's bytes.

Beside writers: an append that comes between reading and committing is kept, the commit is built again on top of
it. When another writer replaced one of the files, the group is given up and reported, the table untouched.
Beside readers: what a step that follows the table has not read yet is left as it was written, and the new files
take the sequence number of the newest they replace, so that no follower takes old rows for new ones.

On a crash, and when it gives up: the new files are named by no commit, so they are orphans and the table is as it
was. Memory: a DuckDB of its own sorts a group within :data:`SORT_BYTES`, and hands it on a row group at a time.
"""

from __future__ import annotations

import itertools
import logging
import math
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

import duckdb
import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.manifest import (
    DataFile,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
)
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _OverwriteFiles
from pyiceberg.types import DateType, TimestamptzType

from lakehouse.append import transaction
from lakehouse.batch import BatchSession
from lakehouse.days import read_until
from lakehouse.duck import connect, data_files_sql
from lakehouse.maintenance.metrics import YIELDED, observed, removed
from lakehouse.reading import ROW_GROUP
from lakehouse.snapshots import EPOCH, SnapshotFiles, local_path
from lakehouse.state import carried
from lakehouse.tables import TABLES
from lakehouse.writing import FileWriter

log = logging.getLogger(__name__)

TARGET_BYTES = 128 * 1024 * 1024
"""A few seconds to write, and a day of the busiest table is a few dozen files."""
GROUP_BYTES = 16 * TARGET_BYTES
"""Most that one commit rewrites: the minutes of work a crash can cost, and the disk that sorting takes."""
SORT_BYTES = 300_000_000
"""Memory of a sort, where a batch step may use no less: with 1 GB four million trades took a third more CPU
time, and four times the memory."""
FEWEST_FILES = 8
"""Files of the open day worth a commit."""
ATTEMPTS = 20
"""Commits that others may slip in front of ours; each attempt takes a fraction of the second between theirs."""
OPERATION = "compaction"
NAMED = {"tickhouse.maintenance": OPERATION}


@dataclass(frozen=True, slots=True)
class Compacted:
    """What a run did."""

    table: str
    groups: int = 0
    """Commits."""
    rows: int = 0
    """Rows rewritten."""
    files_before: int = 0
    files_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    yielded: int = 0
    """Groups given up: another writer had replaced one of the files, or won every race."""


@dataclass(frozen=True, slots=True)
class Group:
    """Files of one partition to be rewritten together."""

    entries: tuple[ManifestEntry, ...]

    @property
    def files(self) -> list[DataFile]:
        return [entry.data_file for entry in self.entries]

    @property
    def rows(self) -> int:
        return sum(file.record_count for file in self.files)

    @property
    def size(self) -> int:
        return sum(file.file_size_in_bytes for file in self.files)


def compact(
    session: BatchSession, name: str, *, target_bytes: int = TARGET_BYTES, fewest_files: int = FEWEST_FILES
) -> Compacted:
    """Rewrite the small files of table ``name``.

    Raises:
        NotImplementedError: another program wrote delete files; compact the table with that one first.
        RuntimeError: a file did not hold what its manifest says; nothing of its group was committed.
    """
    with observed(name, OPERATION):
        table = session.catalog.load_table(name)
        entries = live_entries(table)
        groups = plan(
            table,
            entries,
            followed_until=_followed_until(session, name),
            today=session.clock().date(),
            target_bytes=target_bytes,
            fewest_files=fewest_files,
        )
        report = Compacted(name)
        for group in groups:
            report = _compact_group(session, table, group, target_bytes, report)
    if groups:
        log.info("%s", report)
    return report


def live_entries(table: Table) -> list[ManifestEntry]:
    """Entries of the head's data files.

    Raises:
        NotImplementedError: there are delete files, which a list of data files cannot honour.
    """
    snapshot = table.current_snapshot()
    entries: list[ManifestEntry] = []
    for manifest in [] if snapshot is None else snapshot.manifests(table.io):
        found = manifest.fetch_manifest_entry(table.io, discard_deleted=True)
        if manifest.content == ManifestContent.DELETES and found:
            raise NotImplementedError(
                f"{'.'.join(table.name())} has delete files of another program: compact it with that one first"
            )
        entries += found
    return entries


def plan(
    table: Table,
    entries: Sequence[ManifestEntry],
    *,
    followed_until: int | None,
    today: date,
    target_bytes: int,
    fewest_files: int,
) -> list[Group]:
    """Groups of files to rewrite.

    Args:
        table: says how it is partitioned and sorted.
        entries: its live data files.
        followed_until: files of later commits are left alone; None: no step follows the table.
        today: days before it, and before the newest day with rows, are complete but for what comes late.
        target_bytes: size of the files to be.
        fewest_files: files of an open partition worth a commit.
    """
    partitions: dict[int | None, list[ManifestEntry]] = {}
    for entry in entries:
        file = entry.data_file
        if file.spec_id == table.spec().spec_id and (
            followed_until is None or (entry.sequence_number or 0) <= followed_until
        ):
            partitions.setdefault(file.partition[0] if table.spec().fields else None, []).append(entry)
    days = [day for day in (_day(table, value) for value in partitions) if day is not None]
    open_day = min(today, max(days, default=today))
    groups = []
    for value, members in sorted(partitions.items(), key=lambda item: -1 if item[0] is None else item[0]):
        day = _day(table, value)
        unsettled = [entry for entry in members if not _settled(table, entry.data_file, target_bytes)]
        if day is not None and day < open_day:
            worth = len(unsettled) > 1 or any(not is_sorted(table, entry.data_file) for entry in unsettled)
            chosen = unsettled if worth else []
        else:
            by_size = sorted(unsettled, key=lambda entry: entry.data_file.file_size_in_bytes)
            sizes = [entry.data_file.file_size_in_bytes for entry in by_size]
            chosen = by_size[: worth_joining(sizes, fewest_files)]
        groups += [Group(part) for part in _parts(chosen)]
    return groups


def _settled(table: Table, file: DataFile, target_bytes: int) -> bool:
    return is_sorted(table, file) and file.file_size_in_bytes >= target_bytes // 2


def is_sorted(table: Table, file: DataFile) -> bool:
    """Whether the file is in the table's sort order, as far as its manifest says."""
    return not table.sort_order().fields or file.sort_order_id == table.sort_order().order_id


def worth_joining(sizes: Sequence[int], fewest: int) -> int:
    """How many of the files, given by their ascending sizes, are worth one new file; 0: not yet.

    The most of which the largest is not larger than the others together. So a file is rewritten only into one that
    takes at least twice its bytes: n files cost n·log2(n) rewrites, and about log2(n) of them are left.
    """
    joined, together = 0, 0
    for number, size in enumerate(sizes, 1):
        if size <= together:
            joined = number
        together += size
    return joined if joined >= fewest else 0


def _parts(entries: Sequence[ManifestEntry]) -> Iterator[tuple[ManifestEntry, ...]]:
    """Parts of about :data:`GROUP_BYTES`, in the order of their commits."""
    part: list[ManifestEntry] = []
    size = 0
    for entry in sorted(entries, key=lambda entry: entry.sequence_number or 0):
        part.append(entry)
        size += entry.data_file.file_size_in_bytes
        if size >= GROUP_BYTES:
            yield tuple(part)
            part, size = [], 0
    if part:
        yield tuple(part)


def _day(table: Table, value: int | None) -> date | None:
    """UTC date of a partition, where the table is partitioned by one."""
    if value is None:
        return None
    kind = table.schema().find_type(table.spec().fields[0].source_id)
    return (EPOCH + timedelta(days=value)).date() if isinstance(kind, (DateType, TimestamptzType)) else None


def _followed_until(session: BatchSession, name: str) -> int | None:
    """Sequence number up to which every step that follows the table has read it; None: no step does.

    Dimensions are not waited for: they look once a week, and a row that they read again changes nothing.
    """
    followers = [spec for spec in TABLES.values() if name in spec.follows and spec.namespace != "dimensions"]
    read = [read_until(session.catalog.load_table(spec.name), spec.watermark(name)) for spec in followers]
    return min(read, default=None)


def _compact_group(
    session: BatchSession, table: Table, group: Group, target_bytes: int, report: Compacted
) -> Compacted:
    written = list(_rewrite(session, table, group, target_bytes))
    rows = sum(file.record_count for file in written)
    if rows != group.rows:
        raise RuntimeError(
            f"{report.table}: {len(group.entries)} files hold {rows} rows, and their manifests say {group.rows}; "
            f"they are left as they are. The first is {group.files[0].file_path}"
        )
    if not _replace(table, group, written):
        YIELDED.labels(report.table).inc()
        return replace(report, yielded=report.yielded + 1)
    removed(report.table, OPERATION, len(group.entries), group.size)
    return replace(
        report,
        groups=report.groups + 1,
        rows=report.rows + group.rows,
        files_before=report.files_before + len(group.entries),
        files_after=report.files_after + len(written),
        bytes_before=report.bytes_before + group.size,
        bytes_after=report.bytes_after + sum(file.file_size_in_bytes for file in written),
    )


def _rewrite(session: BatchSession, table: Table, group: Group, target_bytes: int) -> Iterator[DataFile]:
    """Write the group's rows, sorted, into files of about the target size; yields each when it is complete."""
    schema = table.schema()
    name = ".".join(table.name())
    source = SnapshotFiles(name, None, local_path(table.metadata_location), schema, (), False)
    by = [f'"{schema.find_column_name(f.source_id)}" asc nulls first' for f in table.sort_order().fields]
    order = f" order by {', '.join(by)}" if by else ""
    arrow_schema = schema_to_pyarrow(schema)
    rows_a_file = math.ceil(group.rows / max(1, round(group.size / target_bytes)))
    rows_a_file = math.ceil(rows_a_file / ROW_GROUP) * ROW_GROUP
    with _sorter(session) as connection:
        rows = f"select * from ({data_files_sql(source, group.files)}){order}"
        batches = connection.execute(rows).to_arrow_reader(ROW_GROUP)
        in_file = itertools.groupby(_numbered(batches), key=lambda numbered: numbered[0] // rows_a_file)
        for number, (_, numbered) in enumerate(in_file):
            in_order = (pa.Table.from_batches([batch]).cast(arrow_schema) for _, batch in numbered)
            yield _write(table, group.files[0], in_order, number)


def _sorter(session: BatchSession) -> duckdb.DuckDBPyConnection:
    """The session's would keep to its own limit, which the steps beside this one need."""
    limit = "select parse_formatted_bytes(current_setting('memory_limit'))"
    (allowed,) = session.connection.cursor().execute(limit).fetchone() or (SORT_BYTES,)
    least = f"{min(allowed, SORT_BYTES)}B"
    settings = session.settings.model_copy(update={"query_memory_limit": least, "query_threads": 1})
    return connect(settings, ("httpfs",))


def _numbered(batches: pa.RecordBatchReader) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Each batch with the number of the row it begins with."""
    row = 0
    for batch in batches:
        if batch.num_rows:
            yield row, batch
            row += batch.num_rows


def _write(table: Table, like: DataFile, rows: Iterator[pa.Table], number: int) -> DataFile:
    """A data file of the partition that ``like`` is in."""
    schema, spec = table.schema(), table.spec()
    name = f"compacted-{uuid.uuid4()}-{number:05d}.parquet"
    partition = f"{spec.partition_to_path(like.partition, schema)}/" if spec.fields else ""
    path = table.location_provider().new_data_location(f"{partition}{name}")
    writer = FileWriter(table.io, table.metadata, path, like.partition, table.sort_order().order_id)
    with writer:
        for part in rows:
            writer.write(part)
        return writer.finish()


class _ReplaceFiles(_OverwriteFiles):
    """Files in place of others, with the data sequence number of the newest of those, as Iceberg's own rewrite."""

    data_sequence_number: int

    def _manifests(self) -> list[ManifestFile]:
        added, self._added_data_files = self._added_data_files, []
        others = super()._manifests()
        self._added_data_files = added
        with self.new_manifest_writer(self._transaction.table_metadata.spec()) as writer:
            for file in added:
                writer.add(
                    ManifestEntry.from_args(
                        status=ManifestEntryStatus.ADDED,
                        snapshot_id=self._snapshot_id,
                        sequence_number=self.data_sequence_number,
                        data_file=file,
                    )
                )
        return [writer.to_manifest_file(), *others]


def _replace(table: Table, group: Group, written: Sequence[DataFile]) -> bool:
    """Commit; False when it did not happen and never will."""
    for attempt in range(ATTEMPTS):
        if attempt:
            table.refresh()
            live = {entry.data_file.file_path for entry in live_entries(table)}
            if written[0].file_path in live:
                return True  # the last attempt had arrived, only its answer was lost
            if not all(file.file_path in live for file in group.files):
                log.warning("%s: another writer replaced files meanwhile; left to it", ".".join(table.name()))
                return False
        try:
            with transaction(table) as changes:
                change = _ReplaceFiles(
                    operation=Operation.OVERWRITE,
                    transaction=changes,
                    io=table.io,
                    snapshot_properties={**carried(table), **NAMED},
                )
                change.data_sequence_number = max(entry.sequence_number or 0 for entry in group.entries)
                for file in group.files:
                    change.delete_data_file(file)
                for file in written:
                    change.append_data_file(file)
                change.commit()
            return True
        except CommitFailedException as error:
            log.info("%s: %s; committing on top of it", ".".join(table.name()), error)
        except CommitStateUnknownException:
            if attempt == ATTEMPTS - 1:
                raise
    log.warning("%s: other writers won every race; trying again with the next run", ".".join(table.name()))
    return False
