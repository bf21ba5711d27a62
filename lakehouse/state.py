"""State that travels inside Iceberg snapshots: consumed Kafka offsets, watermarks of batch steps.

In: a loaded table. Out: the state its newest snapshot carries, and the summary properties that carry it on.

Rows and the state that covers them become visible in one commit, so no crash can separate them. Every snapshot
carries the whole state, so that expiring older snapshots cannot lose it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

STATE_PREFIX = "tickhouse.state."
OFFSETS = STATE_PREFIX + "offsets"
RESETS = STATE_PREFIX + "offset-resets"
WATERMARK = STATE_PREFIX + "watermark"

Offsets = dict[str, dict[int, int]]
"""topic → partition → next offset to read."""


class StateLostError(RuntimeError):
    """The snapshots that carried the state are gone; going on would repeat or skip rows."""


def read_state(table: Table) -> dict[str, str]:
    """State of the newest snapshot that carries any: summary property → value; empty when none does."""
    for snapshot in _history(table):
        summary = snapshot.summary
        found = {} if summary is None else summary.additional_properties
        state = {key: value for key, value in found.items() if key.startswith(STATE_PREFIX)}
        if state:
            return state
    return {}


def carried(table: Table, changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """Summary properties for the next snapshot of any writer: the state as it is, with ``changes``.

    Every commit to a table passes them (``snapshot_properties=carried(table)``), compaction too.
    """
    return {**read_state(table), **(changes or {})}


def committed_offsets(table: Table) -> Offsets:
    """Next Kafka offset per topic and partition, as of the table's head; empty before the first commit.

    Raises:
        StateLostError: no snapshot left carries offsets, and older snapshots were expired.
    """
    text = read_state(table).get(OFFSETS)
    if text is None:
        oldest = next(reversed(list(_history(table))), None)
        if oldest is not None and (oldest.sequence_number or 0) > 1:
            raise StateLostError(
                f"{'.'.join(table.name())}: none of its snapshots carries {OFFSETS}, and older snapshots were "
                f"expired; a program other than this one has committed to it. Roll back to a snapshot that "
                f"carries it, or set it by hand in the summary of a new one"
            )
    return decode_offsets(text)


def offset_resets(table: Table) -> Offsets:
    """How often each partition began anew, because its topic was recreated or cut; absent means never."""
    return decode_offsets(read_state(table).get(RESETS))


def watermark_sequence(text: str | None) -> int:
    """Sequence number of the commit up to which a step has read, of its watermark; 0 before its first commit."""
    return 0 if text is None else int(json.loads(text)["sequence_number"])


def decode_offsets(text: str | None) -> Offsets:
    """Read what :func:`encode_offsets` wrote; None reads as empty."""
    if text is None:
        return {}
    return {topic: {int(p): int(n) for p, n in parts.items()} for topic, parts in json.loads(text).items()}


def encode_offsets(offsets: Offsets) -> str:
    """Compact JSON, ``{"raw.trades":{"0":17}}``."""
    return json.dumps(offsets, separators=(",", ":"), sort_keys=True)


def _history(table: Table) -> Iterator[Snapshot]:
    """The head and its ancestors, newest first, as far back as they are kept."""
    snapshot = table.current_snapshot()
    while snapshot is not None:
        yield snapshot
        parent = snapshot.parent_snapshot_id
        snapshot = None if parent is None else table.metadata.snapshot_by_id(parent)
