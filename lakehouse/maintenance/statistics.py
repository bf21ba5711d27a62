"""What a table is made of: rows, sizes, files per partition, nulls per column, metadata.

In: a table. Out: :class:`TableStatistics` and metrics, read off the metadata and the manifests. No data file is
opened.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from pyiceberg.catalog import Catalog
from pyiceberg.manifest import DataFile
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema

from lakehouse.maintenance import metrics
from lakehouse.maintenance.compaction import TARGET_BYTES, is_sorted, live_entries

OPERATION = "statistics"


@dataclass(slots=True)
class PartitionStatistics:
    """Data files of one partition."""

    files: int = 0
    small: int = 0
    """Files below half the target size of compaction."""
    unsorted: int = 0
    """Files that are not in the table's sort order, as far as their manifest says."""
    rows: int = 0
    size: int = 0
    """Bytes."""


@dataclass(frozen=True, slots=True)
class TableStatistics:
    """A table's head."""

    table: str
    snapshots: int
    manifests: int
    manifest_size: int
    """Bytes of the head's manifests."""
    metadata_size: int
    """Bytes of the metadata file, which every commit writes anew."""
    partitions: dict[str, PartitionStatistics] = field(default_factory=dict)
    """Partition as text → its files; "" where the table is not partitioned."""
    nulls: dict[str, int] = field(default_factory=dict)
    """Column → rows without a value, for columns that may be null."""

    @property
    def files(self) -> int:
        return sum(partition.files for partition in self.partitions.values())

    @property
    def small(self) -> int:
        """Files below half the target size of compaction."""
        return sum(partition.small for partition in self.partitions.values())

    @property
    def rows(self) -> int:
        return sum(partition.rows for partition in self.partitions.values())

    @property
    def size(self) -> int:
        """Bytes of the data files."""
        return sum(partition.size for partition in self.partitions.values())


def table_statistics(catalog: Catalog, name: str) -> TableStatistics:
    """Statistics of table ``name``.

    Raises:
        NotImplementedError: another program wrote delete files, so that the files' rows are not the table's.
    """
    with metrics.observed(name, OPERATION):
        table = catalog.load_table(name)
        snapshot = table.current_snapshot()
        manifests = [] if snapshot is None else snapshot.manifests(table.io)
        partitions: dict[str, PartitionStatistics] = {}
        nulls: Counter[int] = Counter()
        for entry in live_entries(table):
            file = entry.data_file
            text = partition_text(table.specs()[file.spec_id], table.schema(), file)
            partition = partitions.setdefault(text, PartitionStatistics())
            partition.files += 1
            partition.small += file.file_size_in_bytes < TARGET_BYTES // 2
            partition.unsorted += not is_sorted(table, file)
            partition.rows += file.record_count
            partition.size += file.file_size_in_bytes
            counted = file.null_value_counts or {}
            for column in table.schema().fields:
                # A file from before the column was added counts none of it: all its rows are without.
                nulls[column.field_id] += counted.get(
                    column.field_id, 0 if column.field_id in (file.value_counts or {}) else file.record_count
                )
        found = TableStatistics(
            table=name,
            snapshots=len(table.metadata.snapshots),
            manifests=len(manifests),
            manifest_size=sum(manifest.manifest_length for manifest in manifests),
            metadata_size=len(table.io.new_input(table.metadata_location)),
            partitions=dict(sorted(partitions.items())),
            nulls={
                c.name: nulls[c.field_id]
                for c in table.schema().fields
                if not c.required and c.field_type.is_primitive
            },
        )
        metrics.FILES.labels(name).set(found.files)
        metrics.SMALL_FILES.labels(name).set(found.small)
        metrics.BYTES.labels(name).set(found.size)
        metrics.METADATA_BYTES.labels(name).set(found.metadata_size)
        metrics.MANIFESTS.labels(name).set(found.manifests)
    return found


def partition_text(spec: PartitionSpec, schema: Schema, file: DataFile) -> str:
    """``timestamp_day=2026-03-13``; empty where the table is not partitioned."""
    return ", ".join(
        f"{field.name}={field.transform.to_human_string(schema.find_type(field.source_id), file.partition[i])}"
        for i, field in enumerate(spec.fields)
    )
