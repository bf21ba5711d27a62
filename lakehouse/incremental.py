"""Rows appended to a bronze table since a batch step last looked.

In: a loaded bronze table and the step's last :class:`Watermark` (None at first). Out: :class:`Appended`: the
files to read, a filter for their rows, and the next watermark, which the step writes in the same commit as its
output::

    appended = appended_since("bronze.trades", table, read_watermark(silver))
    connection.execute(f"select … from ({appended.sql()})")
    silver.append(rows, snapshot_properties=carried(silver, {WATERMARK: appended.watermark.to_json()}))

Candidates are the files committed after the watermark, by data sequence number; of their rows those count whose
Kafka offset is not below the watermark's. So the result is right after old snapshots were expired (nothing is
walked back), and after a compaction (whose new files hold old rows too). A row is never missed; when a topic
was recreated its partition's rows may show up once more than needed, so steps stay idempotent on their own key.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Self

from pyiceberg.table import Table

from lakehouse.duck import files_sql
from lakehouse.snapshots import DataFileEntry, ManifestCache, SnapshotFiles
from lakehouse.state import (
    WATERMARK,
    Offsets,
    committed_offsets,
    decode_offsets,
    encode_offsets,
    offset_resets,
    read_state,
)


@dataclass(frozen=True, slots=True)
class Watermark:
    """How far a step has read a bronze table."""

    sequence_number: int = 0
    """Data sequence number of the last commit that was read."""
    offsets: Offsets = field(default_factory=dict)
    resets: Offsets = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(
            {
                "sequence_number": self.sequence_number,
                "offsets": encode_offsets(self.offsets),
                "resets": encode_offsets(self.resets),
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        fields = json.loads(text)
        return cls(
            int(fields["sequence_number"]),
            decode_offsets(fields["offsets"]),
            decode_offsets(fields["resets"]),
        )


@dataclass(frozen=True, slots=True)
class Appended:
    """What came since a watermark."""

    snapshot: SnapshotFiles
    files: tuple[DataFileEntry, ...]
    """Files that may hold new rows; each knows its day, so that a step can work day by day."""
    where: str
    """SQL condition on ``_kafka_topic``, ``_kafka_partition``, ``_kafka_offset``, true for the new rows."""
    watermark: Watermark
    """To be stored with the output."""

    @property
    def empty(self) -> bool:
        return not self.files

    def sql(self, files: tuple[DataFileEntry, ...] | None = None) -> str:
        """Select statement over the new rows, all columns; ``files`` narrows it to some of :attr:`files`.

        Raises:
            NotImplementedError: the table has delete files, which a list of data files cannot honour.
        """
        chosen = self.files if files is None else files
        return f"select * from ({files_sql(self.snapshot, chosen)}) where {self.where}"


def read_watermark(table: Table) -> Watermark | None:
    """The watermark that a step's output table carries; None when the step never committed."""
    text = read_state(table).get(WATERMARK)
    return None if text is None else Watermark.from_json(text)


def appended_since(
    name: str, table: Table, watermark: Watermark | None, cache: ManifestCache | None = None
) -> Appended:
    """Files and row filter for what was appended to ``table`` (named ``name``) after ``watermark``.

    Raises:
        StateLostError: the table's snapshots carry no offsets although they should.
    """
    since = Watermark() if watermark is None else watermark
    snapshot = (ManifestCache() if cache is None else cache).files(name, table)
    head = table.current_snapshot()
    offsets, resets = committed_offsets(table), offset_resets(table)
    return Appended(
        snapshot=snapshot,
        files=tuple(f for f in snapshot.files if f.sequence_number > since.sequence_number),
        where=_condition(since, resets),
        watermark=Watermark(
            0 if head is None or head.sequence_number is None else head.sequence_number, offsets, resets
        ),
    )


def _condition(since: Watermark, resets: Offsets) -> str:
    """Not (read before): a partition that began anew since then has no lower bound."""
    read_before = [
        f"(_kafka_topic = '{topic.replace(chr(39), chr(39) * 2)}' and _kafka_partition = {partition:d} "
        f"and _kafka_offset < {offset:d})"
        for topic, partitions in sorted(since.offsets.items())
        for partition, offset in sorted(partitions.items())
        if resets.get(topic, {}).get(partition, 0) == since.resets.get(topic, {}).get(partition, 0)
    ]
    return f"not ({' or '.join(read_before)})" if read_before else "true"
