"""Data files of a table's snapshot, read from its manifests once.

In: a loaded table. Out: :class:`SnapshotFiles`: the live data files with their sequence number, day and time
bounds.

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
from pyiceberg.types import DateType, TimestamptzType
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


class ManifestCache:
    """Decoded manifests of the tables that are followed. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, dict[str, tuple[DataFileEntry, ...]]] = {}

    def files(self, name: str, table: Table) -> SnapshotFiles:
        """Files of the table's current snapshot. ``name`` is its full name, ``bronze.trades``."""
        snapshot = table.current_snapshot()
        entries: dict[str, tuple[DataFileEntry, ...]] = {}
        has_deletes = False
        if snapshot is not None:
            with self._lock:
                known = self._kept.get(name, {})
            time_field = _event_time_field(name, table.schema())
            for manifest in snapshot.manifests(table.io):
                if manifest.content == ManifestContent.DELETES:
                    has_deletes = has_deletes or _live_files(manifest)
                    continue
                decoded = known.get(manifest.manifest_path)
                entries[manifest.manifest_path] = (
                    _decode(manifest, table.io, time_field) if decoded is None else decoded
                )
            with self._lock:
                self._kept[name] = entries
        return SnapshotFiles(
            name=name,
            snapshot_id=None if snapshot is None else snapshot.snapshot_id,
            metadata_location=local_path(table.metadata_location),
            schema=table.schema(),
            files=tuple(file for manifest_files in entries.values() for file in manifest_files),
            has_deletes=has_deletes,
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


def _decode(
    manifest: ManifestFile, io: FileIO, time_field: tuple[int, TimestamptzType | DateType] | None
) -> tuple[DataFileEntry, ...]:
    return tuple(_entry(e, time_field) for e in manifest.fetch_manifest_entry(io, discard_deleted=True))


def _entry(entry: ManifestEntry, time_field: tuple[int, TimestamptzType | DateType] | None) -> DataFileEntry:
    file = entry.data_file
    first = last = None
    if time_field is not None:
        field_id, field_type = time_field
        nulls = (file.null_value_counts or {}).get(field_id, 0)
        if not nulls:  # a row without a time may belong to any window
            first = _bound((file.lower_bounds or {}).get(field_id), field_type)
            last = _bound((file.upper_bounds or {}).get(field_id), field_type)
            if last is not None and isinstance(field_type, DateType):
                last += timedelta(days=1, microseconds=-1)  # a date stands for all of its day
    return DataFileEntry(local_path(file.file_path), file.record_count, entry.sequence_number or 0, first, last)


def _bound(raw: bytes | None, field_type: TimestamptzType | DateType) -> datetime | None:
    if raw is None:
        return None
    value: Any = from_bytes(field_type, raw)
    if isinstance(field_type, DateType):
        return EPOCH + timedelta(days=value)
    return EPOCH + timedelta(microseconds=value)


def _event_time_field(name: str, schema: Schema) -> tuple[int, TimestamptzType | DateType] | None:
    spec = TABLES.get(name)
    if spec is None or spec.event_time is None:
        return None
    found = schema.find_field(spec.event_time)
    if isinstance(found.field_type, (TimestamptzType, DateType)):
        return found.field_id, found.field_type
    return None
