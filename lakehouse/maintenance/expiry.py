"""Expiry: old snapshots are forgotten, and the files that only they needed deleted.

In: a table. Out: one metadata commit, then deletions; an :class:`Expired` report. Which snapshots stay says
:mod:`lakehouse.retention`; among them are those that show files replaced a short while ago, so that a query that
began before goes on. Steps that follow the table lose nothing: rows they have not read are in the head's files.

Run it before a writer has to forget snapshots itself (``TICKHOUSE_SNAPSHOTS_EXPIRE_AT``): the files of those are
left to the sweep of orphans, a day later.

On a crash, before the commit: nothing happened. After it: the files not deleted yet are orphans. What to delete is
decided by the metadata that the commit left, other writers' commits included.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from pyiceberg.catalog import Catalog

from lakehouse.append import expire_snapshots
from lakehouse.maintenance.metrics import observed, removed
from lakehouse.maintenance.reachable import Known, delete, files_of
from lakehouse.retention import expirable

log = logging.getLogger(__name__)

OPERATION = "expiry"


@dataclass(frozen=True, slots=True)
class Expired:
    """What a run did, or would do."""

    table: str
    snapshots: int = 0
    """Snapshots forgotten."""
    kept: int = 0
    """Snapshots that stay."""
    manifest_files: int = 0
    """Manifest lists and manifests deleted."""
    data_files: int = 0
    data_bytes: int = 0


def expire(
    catalog: Catalog, name: str, *, keep: int, dry_run: bool = False, known: Known | None = None
) -> Expired:
    """Forget old snapshots of table ``name``, ``keep`` being the number of newest ones that stay.

    Args:
        known: what the run before has read of the table, which is not read again; None: nothing.

    Raises:
        StateLostError: another program's commit does not carry the writers' state; see
            :func:`lakehouse.append.expire_snapshots`.
    """
    with observed(name, OPERATION):
        table = catalog.load_table(name)
        before = {snapshot.snapshot_id: snapshot for snapshot in table.metadata.snapshots}
        old = expirable(table.metadata, keep)
        if not old or (not dry_run and not expire_snapshots(table, at=0, keep=keep)):
            return Expired(name, kept=len(before))
        stay = [s for s in table.metadata.snapshots if not dry_run or s.snapshot_id not in old]
        known = Known() if known is None else known
        needed = files_of(table.io, stay, known=known)
        gone = files_of(table.io, (before[i] for i in old), needed.manifests, known)
        known.forget(needed)
        lists, manifests = gone.lists - needed.lists, gone.manifests
        data = {path: size for path, size in gone.data.items() if path not in needed.data}
        if not dry_run:
            for path in (*data, *manifests, *lists):
                delete(table.io, path)
        report = Expired(name, len(old), len(stay), len(lists) + len(manifests), len(data), sum(data.values()))
    if not dry_run:
        removed(name, OPERATION, report.manifest_files + report.data_files, report.data_bytes)
        log.info("%s", report)
    return report
