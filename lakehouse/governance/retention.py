"""How long rows that point at a person are kept.

In: a table's tags, and the present. Out: past that time, whole days deleted in one commit; a dry run only says
which. On a crash: the commit is there or it is not; run it again. The rows leave the disk when the snapshots
that still show them are expired, a day later at most, and upkeep has deleted their files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import pyarrow as pa

from lakehouse.batch import BatchSession, compare_and_swap
from lakehouse.days import all_days, day_files, replace_days
from lakehouse.tables import TABLES

RETENTION_DAYS: Mapping[str, int] = {"Confidential": 90, "Restricted": 365}
"""Tag → days that rows are kept. Without such a tag a table keeps its rows for ever, and so does one without days:
a dimension's rows are what facts refer to."""


@dataclass(frozen=True, slots=True)
class Purged:
    """What was deleted, or for a dry run would be."""

    table: str
    keep_days: int
    days: tuple[date, ...]
    rows: int
    snapshot_id: int | None


def retention_of(name: str) -> int | None:
    """Days that rows of the table are kept; None: for ever. Of several tags the shortest time holds.

    Raises:
        KeyError: no such table.
    """
    spec = TABLES[name]
    found = [RETENTION_DAYS[tag] for tag in spec.tags if tag in RETENTION_DAYS and spec.partition_by]
    return min(found, default=None)


def purge(
    session: BatchSession, name: str, now: datetime, *, keep_days: int | None = None, dry_run: bool = False
) -> Purged | None:
    """Delete the days of table ``name`` that are over before ``keep_days`` days ago; None where it has no limit.

    Args:
        keep_days: in place of what the table's tags say.

    Raises:
        ValueError: fewer than one day is to be kept: rows of today would go.
        CommitFailedException: other writers won every race; nothing is lost, run it again.
    """
    limit = retention_of(name)
    keep = limit if keep_days is None or limit is None else keep_days
    if keep is None:
        return None
    if keep < 1:
        raise ValueError(f"{name}: at least one day has to be kept, not {keep}")
    first_kept = now.date() - timedelta(days=keep)

    def attempt() -> Purged:
        table = session.catalog.load_table(name)
        snapshot = session.manifests.files(name, table)
        days = tuple(day for day in all_days(snapshot) if day < first_kept)
        rows = sum(file.rows for day in days for file in day_files(snapshot, day))
        if days and not dry_run:
            replace_days(session, table, days, list[pa.Table](), {})
        return Purged(name, keep, days, rows, table.metadata.current_snapshot_id)

    return compare_and_swap(name, attempt)
