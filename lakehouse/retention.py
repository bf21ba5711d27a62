"""Which snapshots of a table are kept.

In: a table's metadata. Out: the snapshots that may be forgotten. Pure: the newest snapshot's time is the present.

Kept are the newest ones; what tags and branches point at; older ones ever more sparsely, up to a day, so that a
query ``as of`` an hour ago still finds a snapshot; and for a while the last one that shows files which a later
commit replaced, so that a query that began before goes on. So their number does not grow, whatever the rate of
commits. Steps that follow a table need none of them: they follow the sequence numbers of the head's files.
"""

from __future__ import annotations

from datetime import timedelta

from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Operation

HISTORY = timedelta(days=1)
"""Nothing older is kept: an old snapshot keeps the small files alive that compaction has long replaced."""
CLOSEST = timedelta(minutes=1)
"""Beyond the newest ones, the first snapshot of each minute is kept, until it is eight minutes old; then the first
of each four minutes, until it is eight of those old, and so on: about thirty for a day."""
READERS = timedelta(minutes=10)
"""Longer than queries and most steps work on one snapshot. What works longer, as the export of a large table, may
find a small file of the open day gone: it fails with the file's name, changes nothing, and may be tried again."""


def expirable(metadata: TableMetadata, keep: int) -> list[int]:
    """Ids of the snapshots that may be forgotten, ``keep`` being the number of newest ones that stay."""
    newest_first = sorted(metadata.snapshots, key=lambda s: s.sequence_number or 0, reverse=True)
    if len(newest_first) <= keep:
        return []
    now = newest_first[0].timestamp_ms
    kept = {reference.snapshot_id for reference in metadata.refs.values()}
    kept |= {snapshot.snapshot_id for snapshot in newest_first[:keep]}
    for snapshot in newest_first:
        replaced_files = snapshot.summary is not None and snapshot.summary.operation != Operation.APPEND
        if replaced_files and snapshot.parent_snapshot_id and now - snapshot.timestamp_ms < _ms(READERS):
            kept.add(snapshot.parent_snapshot_id)
    first_of: dict[tuple[int, int], int] = {}
    for snapshot in newest_first[keep:]:
        far_enough = newest_first[keep - 1].timestamp_ms - snapshot.timestamp_ms >= _ms(CLOSEST)
        if far_enough and now - snapshot.timestamp_ms <= _ms(HISTORY):
            width = _ms(CLOSEST)
            while now - snapshot.timestamp_ms >= 8 * width:
                width *= 4
            first_of[width, snapshot.timestamp_ms // width] = snapshot.snapshot_id
    kept |= set(first_of.values())
    return [snapshot.snapshot_id for snapshot in newest_first if snapshot.snapshot_id not in kept]


def _ms(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)
