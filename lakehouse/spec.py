"""What a declared table is: columns, key, partitions, and whose it is.

In: columns with their meaning. Out: the Iceberg schema, partition spec and properties of a table.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionField, PartitionSpec
from pyiceberg.schema import Schema, assign_fresh_schema_ids
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER, NullOrder, SortDirection, SortField, SortOrder
from pyiceberg.transforms import DayTransform, IdentityTransform
from pyiceberg.types import DateType, IcebergType, NestedField

from lakehouse.state import WATERMARK

OWN_PROPERTIES = "tickhouse."
KEY_PROPERTY = OWN_PROPERTIES + "key"
DISTINCT_PROPERTY = OWN_PROPERTIES + "distinct-columns"

WRITE_PROPERTIES = {
    "format-version": "2",
    "write.parquet.compression-codec": "zstd",
    # Ids are all different: a dictionary of them is given up anyway, the earlier the cheaper (a third of the CPU).
    "write.parquet.dict-size-bytes": "65536",
    # DuckDB's own number of rows: it reads row groups on all threads, and skips those without the time asked for.
    "write.parquet.row-group-limit": "122880",
    # Exactly-once needs a refused commit to be seen, not blindly repeated with the same rows.
    "commit.retry.num-retries": "0",
    # Small commits leave a manifest each; merging keeps planning a scan cheap.
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "50",
    # A merge writes all entries anew that it takes in: with the default of 8 MB, ten thousand files made a commit
    # cost 2.5 times as much. Full manifests are left alone, and readers keep what they decoded of them.
    "commit.manifest.target-size-bytes": "131072",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "10",
    # Compaction rewrites old files while appends go on: neither has to fail for the other.
    "write.delete.isolation-level": "snapshot",
    "write.update.isolation-level": "snapshot",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column; ``required`` means never null."""

    name: str
    type: IcebergType
    doc: str
    required: bool = True
    was: str | None = None
    """Name it had before: a table that still has that one gets it renamed."""
    distinct: bool = False
    """Its values hardly repeat: files have no dictionary of them."""


@dataclass(frozen=True, slots=True)
class TableSpec:
    """What there is to know about a table."""

    name: str
    doc: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    """Columns that identify a row: no two rows agree on them."""
    partition_by: str | None = None
    """Partitioned by the day of this timestamp, or by this date; None: not partitioned."""
    sort_by: tuple[str, ...] = ()
    """Order of the rows in compacted files: ascending, nulls first."""
    event_time: str | None = None
    """Column with the event's time, for freshness."""
    follows: tuple[str, ...] = ()
    """Tables whose commits it is computed from, as far as its watermark says."""
    owner: str = "market-data"
    tags: tuple[str, ...] = ()
    personal: tuple[str, ...] = ()
    """Columns that point at a trader."""
    schema: Schema = field(init=False)
    partition_spec: PartitionSpec = field(init=False)
    sort_order: SortOrder = field(init=False)

    def __post_init__(self) -> None:
        fields = [
            NestedField(i, c.name, c.type, required=c.required, doc=c.doc) for i, c in enumerate(self.columns, 1)
        ]
        object.__setattr__(self, "schema", assign_fresh_schema_ids(Schema(*fields)))
        object.__setattr__(self, "partition_spec", self._partition_spec())
        object.__setattr__(self, "sort_order", self._sort_order())

    def watermark(self, source: str) -> str:
        """Summary property of its snapshots that says how far ``source``, which it follows, was read."""
        return WATERMARK if source == self.follows[0] else f"{WATERMARK}.{source}"

    @property
    def namespace(self) -> str:
        return self.name.split(".")[0]

    @property
    def properties(self) -> dict[str, str]:
        """Iceberg table properties: how to write it, and whose it is."""
        # Whole keys as a file's bounds (the default keeps 16 characters): finding a key then opens few files.
        bounds = {f"write.metadata.metrics.column.{name}": "full" for name in self.key if len(self.key) == 1}
        named = {
            "comment": self.doc,
            OWN_PROPERTIES + "owner": self.owner,
            OWN_PROPERTIES + "tags": json.dumps(self.tags),
            KEY_PROPERTY: json.dumps(self.key),
            DISTINCT_PROPERTY: json.dumps([c.name for c in self.columns if c.distinct]),
            OWN_PROPERTIES + "personal-columns": json.dumps(self.personal),
        }
        return WRITE_PROPERTIES | bounds | named

    def _partition_spec(self) -> PartitionSpec:
        if self.partition_by is None:
            return UNPARTITIONED_PARTITION_SPEC
        source = self.schema.find_field(self.partition_by)
        if isinstance(source.field_type, DateType):
            return PartitionSpec(PartitionField(source.field_id, 1000, IdentityTransform(), source.name))
        return PartitionSpec(PartitionField(source.field_id, 1000, DayTransform(), f"{source.name}_day"))

    def _sort_order(self) -> SortOrder:
        if not self.sort_by:
            return UNSORTED_SORT_ORDER
        ids = [self.schema.find_field(name).field_id for name in self.sort_by]
        return SortOrder(
            *(SortField(i, IdentityTransform(), SortDirection.ASC, NullOrder.NULLS_FIRST) for i in ids)
        )
