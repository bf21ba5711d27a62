"""Reading tables as they were: a moment of the past, or a snapshot.

In: what a person writes, ``2026-03-02``, ``2026-03-02T12:00:00Z`` or a snapshot's id. Out: :class:`AsOf`, which
names the snapshot to read of any table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from lakehouse.snapshots import EPOCH, SnapshotUnknownError, snapshot_at

_SNAPSHOT_ID = re.compile(r"\d{5,19}")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True, slots=True)
class AsOf:
    """A moment in the past; of the table with this snapshot, that snapshot."""

    moment: datetime
    snapshot_id: int | None = None

    def snapshot(self, name: str, table: Table) -> Snapshot | None:
        """The snapshot to read of ``table`` (named ``name``); None where it had none yet.

        Raises:
            SnapshotUnknownError: it was expired.
        """
        own = None if self.snapshot_id is None else table.snapshot_by_id(self.snapshot_id)
        return snapshot_at(name, table, self.moment) if own is None else own


def parse_as_of(text: str) -> datetime | int:
    """A snapshot's id, or a time; a date stands for its last moment, and a time without zone is UTC.

    Raises:
        ValueError: neither.
    """
    if _SNAPSHOT_ID.fullmatch(text):
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
        if _DATE.fullmatch(text):
            moment += timedelta(days=1, microseconds=-1)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text[:40]!r} is no snapshot's id, date (2026-03-02) or time (2026-03-02T12:00:00Z)"
        ) from None


def find_as_of(catalog: Catalog, wanted: datetime | int, tables: Iterable[str]) -> AsOf:
    """The moment, or that of the snapshot with this id, which is looked for in ``tables``.

    Raises:
        SnapshotUnknownError: none of ``tables`` has a snapshot of that id.
    """
    if isinstance(wanted, datetime):
        return AsOf(wanted)
    searched = []
    for name in tables:
        searched.append(name)
        try:
            found = catalog.load_table(name).snapshot_by_id(wanted)
        except NoSuchTableError:
            continue
        if found is not None:
            return AsOf(EPOCH + timedelta(milliseconds=found.timestamp_ms), wanted)
    of = searched[0] if len(searched) == 1 else "any table"
    raise SnapshotUnknownError(f"{wanted} is no snapshot of {of}: it never was one, or it was expired")
