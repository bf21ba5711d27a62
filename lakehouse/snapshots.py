"""Data files of a table's snapshot, read from its manifests once.

In: a loaded table, and a snapshot of it. Out: :class:`SnapshotFiles`: the live data files with their sequence
number, day, and bounds of time and key.

Manifests never change, so each is decoded once per process and kept while a snapshot still names it: following a
table that commits every few seconds costs one small manifest a commit, whatever its size.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlparse

from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from pyiceberg.conversions import from_bytes
from pyiceberg.io import FileIO
from pyiceberg.manifest import ManifestContent, ManifestEntry, ManifestFile
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.types import DateType, NestedField, StringType, TimestamptzType
from sqlalchemy import select
from sqlalchemy.orm import Session

from lakehouse.tables import TABLES

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class DataFileEntry:
    """One live data file."""

    path: str
    """Address as DuckDB and the file system take it: a plain path, or s3://…"""
    rows: int
    sequence_number: int
    """Data sequence number: of the commit that added the file; compaction gives its files new ones."""
    first: datetime | None
    """Smallest event time in the file; None when not known."""
    last: datetime | None
    """Largest event time in the file; None when not known."""
    first_key: str | None = None
    """Not above the smallest key in the file, where the table's key is one text; None when not known."""
    last_key: str | None = None
    """Not below the largest key in the file; None when not known."""

    def may_hold(self, key: str) -> bool:
        """Whether the file may hold the row with this key; of ids that count up, as a venue's do, few may."""
        return (self.first_key is None or self.first_key <= key) and (
            self.last_key is None or key <= self.last_key
        )

    def overlaps(self, start: datetime | None, end: datetime | None) -> bool:
        """Whether the file may hold rows with start ≤ event time < end; None is unbounded."""
        if self.first is None or self.last is None:
            return True
        return (end is None or self.first < end) and (start is None or self.last >= start)

    @property
    def day(self) -> date | None:
        """UTC date of its rows, where all have the same."""
        if self.first is None or self.last is None or self.first.date() != self.last.date():
            return None
        return self.first.date()


@dataclass(frozen=True, slots=True)
class SnapshotFiles:
    """What a reader needs of one snapshot."""

    name: str
    snapshot_id: int | None
    """None: the table has no snapshot yet."""
    metadata_location: str
    schema: Schema
    files: tuple[DataFileEntry, ...]
    has_deletes: bool
    """True when delete files exist: the data files alone would show deleted rows."""
    sequence_number: int = 0
    """Of the commit that made it; 0: the table has no snapshot yet."""


class SnapshotUnknownError(ValueError):
    """No such snapshot: never there, or expired; the message says which can still be read."""


def snapshot_at(name: str, table: Table, moment: datetime) -> Snapshot | None:
    """The snapshot that was the head of ``table`` (named ``name``) at ``moment``; None where it had none yet.

    Raises:
        SnapshotUnknownError: it was expired.
    """
    milliseconds = (moment - EPOCH) // timedelta(milliseconds=1)
    found = table.snapshot_as_of_timestamp(milliseconds)
    oldest = min(table.metadata.snapshots, key=lambda s: s.sequence_number or 0, default=None)
    if found is None and oldest is not None and (oldest.sequence_number or 0) > 1:
        kept_since = EPOCH + timedelta(milliseconds=oldest.timestamp_ms)
        raise SnapshotUnknownError(
            f"{name} as of {moment.isoformat()} can no longer be read: older snapshots were expired; the oldest "
            f"that is kept is {oldest.snapshot_id}, of {kept_since.isoformat()}"
        )
    return found


class ManifestCache:
    """Decoded manifests of the tables that are followed. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, dict[str, tuple[DataFileEntry, ...]]] = {}

    def files(self, name: str, table: Table) -> SnapshotFiles:
        """Files of the table's current snapshot. ``name`` is its full name, ``bronze.trades``."""
        return self.files_of(name, table, table.current_snapshot())

    def files_of(self, name: str, table: Table, snapshot: Snapshot | None) -> SnapshotFiles:
        """Files of any snapshot of the table, under the columns that it has today; None: of no snapshot."""
        entries: dict[str, tuple[DataFileEntry, ...]] = {}
        has_deletes = False
        if snapshot is not None:
            with self._lock:
                known = self._kept.get(name, {})
            bounds = _Bounds(name, table.schema())
            for manifest in snapshot.manifests(table.io):
                if manifest.content == ManifestContent.DELETES:
                    has_deletes = has_deletes or _live_files(manifest)
                    continue
                decoded = known.get(manifest.manifest_path)
                entries[manifest.manifest_path] = (
                    _decode(manifest, table.io, bounds) if decoded is None else decoded
                )
            if snapshot.snapshot_id == table.metadata.current_snapshot_id:
                with self._lock:
                    self._kept[name] = entries
        return SnapshotFiles(
            name=name,
            snapshot_id=None if snapshot is None else snapshot.snapshot_id,
            metadata_location=local_path(table.metadata_location),
            schema=table.schema(),
            files=tuple(file for manifest_files in entries.values() for file in manifest_files),
            has_deletes=has_deletes,
            sequence_number=0 if snapshot is None else snapshot.sequence_number or 0,
        )


def metadata_locations(catalog: Catalog) -> Mapping[str, str] | None:
    """Every table's head in one cheap query: full name → metadata file; None where the catalog has no such."""
    if not isinstance(catalog, SqlCatalog):
        return None
    with Session(catalog.engine) as session:
        rows = session.execute(
            select(IcebergTables.table_namespace, IcebergTables.table_name, IcebergTables.metadata_location).where(
                IcebergTables.catalog_name == catalog.name
            )
        ).all()
    return {f"{namespace}.{table}": location for namespace, table, location in rows if location is not None}


def local_path(address: str) -> str:
    """``file:///a/b`` → ``/a/b``; other addresses stay as they are."""
    parsed = urlparse(address)
    return parsed.path if parsed.scheme == "file" else address


def _live_files(manifest: ManifestFile) -> bool:
    return (manifest.added_files_count or 0) + (manifest.existing_files_count or 0) > 0


class _Bounds:
    """Reads the bounds of event time and key out of a file's statistics."""

    def __init__(self, name: str, schema: Schema) -> None:
        self._time = _event_time_field(name, schema)
        self._key = _key_field(name, schema)

    def of(self, entry: ManifestEntry) -> DataFileEntry:
        file = entry.data_file
        lower, upper = file.lower_bounds or {}, file.upper_bounds or {}
        first = last = first_key = last_key = None
        if self._time is not None:
            field_id, field_type = self._time
            nulls = (file.null_value_counts or {}).get(field_id, 0)
            if not nulls:  # a row without a time may belong to any window
                first = _bound(lower.get(field_id), field_type)
                last = _bound(upper.get(field_id), field_type)
                if last is not None and isinstance(field_type, DateType):
                    last += timedelta(days=1, microseconds=-1)  # a date stands for all of its day
        if self._key in lower and self._key in upper:
            first_key = from_bytes(StringType(), lower[self._key])
            last_key = from_bytes(StringType(), upper[self._key])
        path, sequence_number = local_path(file.file_path), entry.sequence_number or 0
        return DataFileEntry(path, file.record_count, sequence_number, first, last, first_key, last_key)


def _decode(manifest: ManifestFile, io: FileIO, bounds: _Bounds) -> tuple[DataFileEntry, ...]:
    return tuple(bounds.of(entry) for entry in manifest.fetch_manifest_entry(io, discard_deleted=True))


def _bound(raw: bytes | None, field_type: TimestamptzType | DateType) -> datetime | None:
    if raw is None:
        return None
    value: Any = from_bytes(field_type, raw)
    if isinstance(field_type, DateType):
        return EPOCH + timedelta(days=value)
    return EPOCH + timedelta(microseconds=value)


def _event_time_field(name: str, schema: Schema) -> tuple[int, TimestamptzType | DateType] | None:
    spec = TABLES.get(name)
    found = None if spec is None or spec.event_time is None else _field(schema, spec.event_time)
    if found is not None and isinstance(found.field_type, (TimestamptzType, DateType)):
        return found.field_id, found.field_type
    return None


def _key_field(name: str, schema: Schema) -> int | None:
    """Field id of the table's key, where that is one column of text; a key is never null."""
    spec = TABLES.get(name)
    found = None if spec is None or len(spec.key) != 1 else _field(schema, spec.key[0])
    return found.field_id if found is not None and isinstance(found.field_type, StringType) else None


def _field(schema: Schema, column: str) -> NestedField | None:
    """A column of the table; None where another program renamed or dropped it."""
    return next((field for field in schema.fields if field.name == column), None)
