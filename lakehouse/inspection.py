"""What a table is made of, as tables for a terminal.

In: a loaded table. Out: rich renderables. Reads metadata and manifests only, never a data file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import DataFile
from pyiceberg.partitioning import PartitionField
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Summary
from pyiceberg.table.sorting import SortField
from pyiceberg.transforms import IdentityTransform, Transform
from pyiceberg.types import PrimitiveType
from rich import box
from rich import table as rich

from lakehouse.maintenance.statistics import TableStatistics, partition_text
from lakehouse.spec import OWN_PROPERTIES
from lakehouse.state import STATE_PREFIX


def describe(table: Table) -> Iterator[rich.Table]:
    """Columns; then partitions, sort order, key, owner, tags; then all other properties."""
    schema, name = table.schema(), ".".join(table.name())
    columns = _grid(f"{name}: {table.properties.get('comment', '')}", "column", "type", "null", "meaning")
    for field in schema.fields:
        columns.add_row(field.name, str(field.field_type), "" if field.required else "null", field.doc or "")
    yield columns
    layout = _grid("layout", "what", "value")
    layout.add_row("location", table.location())
    layout.add_row("partitioned by", _fields(schema, table.spec().fields))
    layout.add_row("sorted by", _fields(schema, table.sort_order().fields))
    head = table.current_snapshot()
    layout.add_row("snapshot", "none yet" if head is None else str(head.snapshot_id))
    layout.add_row("rows", _total(head.summary if head else None, "total-records"))
    for key, value in sorted(table.properties.items()):
        if key.startswith(OWN_PROPERTIES):
            layout.add_row(key.removeprefix(OWN_PROPERTIES), value)
    yield layout
    properties = _grid("properties", "property", "value")
    for key, value in sorted(table.properties.items()):
        if not key.startswith(OWN_PROPERTIES) and key != "comment":
            properties.add_row(key, value)
    yield properties


def history(table: Table) -> rich.Table:
    """Snapshots, newest first: operation, rows and files added and deleted, and the state carried."""
    grid = _grid(
        f"{'.'.join(table.name())}: snapshots", "sequence", "snapshot", "committed", "operation", "+rows", "-rows",
        "+files", "-files", "state",
    )  # fmt: skip
    for snapshot in sorted(table.metadata.snapshots, key=lambda s: s.sequence_number or 0, reverse=True):
        found = snapshot.summary.additional_properties if snapshot.summary else {}
        state = [f"{key.removeprefix(STATE_PREFIX)}={found[key]}" for key in sorted(found) if STATE_PREFIX in key]
        grid.add_row(
            str(snapshot.sequence_number),
            str(snapshot.snapshot_id),
            f"{datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}",
            snapshot.summary.operation.value if snapshot.summary else "",
            found.get("added-records", ""),
            found.get("deleted-records", ""),
            found.get("added-data-files", ""),
            found.get("deleted-data-files", ""),
            "\n".join(state),
        )
    return grid


def files(table: Table) -> rich.Table:
    """Data files of the head, oldest first, with the bounds of the columns they are partitioned and sorted by."""
    grid = _grid(f"{'.'.join(table.name())}: data files", "sequence", "partition", "rows", "size", "holds", "file")
    schema = table.schema()
    shown = [f.source_id for f in table.spec().fields] + [f.source_id for f in table.sort_order().fields]
    snapshot = table.current_snapshot()
    manifests = snapshot.manifests(table.io) if snapshot else []
    entries = [entry for manifest in manifests for entry in manifest.fetch_manifest_entry(table.io)]
    for entry in sorted(entries, key=lambda e: (e.sequence_number or 0, e.data_file.file_path)):
        file = entry.data_file
        grid.add_row(
            str(entry.sequence_number),
            partition_text(table.specs()[file.spec_id], schema, file),
            f"{file.record_count:,}",
            size_text(file.file_size_in_bytes),
            "\n".join(_bounds(schema, file, i) for i in dict.fromkeys(shown)),
            file.file_path.removeprefix(f"{table.location()}/"),
        )
    return grid


def statistics_tables(found: TableStatistics) -> Iterator[rich.Table]:
    """Partitions with a line for the whole table, then nulls per column."""
    grid = _grid(f"{found.table}: partitions", "partition", "files", "small", "unsorted", "rows", "size")
    for text, p in found.partitions.items():
        grid.add_row(text, str(p.files), str(p.small), str(p.unsorted), f"{p.rows:,}", size_text(p.size))
    grid.add_section()
    grid.add_row("all", str(found.files), "", "", f"{found.rows:,}", size_text(found.size))
    yield grid
    rest = _grid("metadata and nulls", "what", "value")
    rest.add_row("snapshots", str(found.snapshots))
    rest.add_row("manifests", f"{found.manifests}, {size_text(found.manifest_size)}")
    rest.add_row("metadata file", size_text(found.metadata_size))
    for column, nulls in found.nulls.items():
        rest.add_row(f"rows without {column}", f"{nulls:,}")
    yield rest


def size_text(size: float) -> str:
    """Bytes as people write them: ``1.5 MiB``."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _grid(title: str, *headers: str) -> rich.Table:
    grid = rich.Table(title=title, box=box.SIMPLE, title_justify="left")
    for header in headers:
        number = header in ("sequence", "rows", "size", "+rows", "-rows", "+files", "-files")
        grid.add_column(header, justify="right" if number else "left", overflow="fold")
    return grid


def _fields(schema: Schema, fields: Iterable[PartitionField | SortField]) -> str:
    named = [(str(f.transform), schema.find_column_name(f.source_id) or "") for f in fields]
    return ", ".join(name if transform == "identity" else f"{transform}({name})" for transform, name in named)


def _total(summary: Summary | None, key: str) -> str:
    return "0" if summary is None else f"{int(summary.additional_properties.get(key, 0)):,}"


def _bounds(schema: Schema, file: DataFile, field_id: int) -> str:
    field = schema.find_field(field_id)
    kind = field.field_type
    lower, upper = (file.lower_bounds or {}).get(field_id), (file.upper_bounds or {}).get(field_id)
    if lower is None or upper is None or not isinstance(kind, PrimitiveType):
        return f"{field.name}: ?"
    human: Transform[Any, Any] = IdentityTransform()
    first, last = (human.to_human_string(kind, from_bytes(kind, raw)) for raw in (lower, upper))
    return f"{field.name}: {first}" if first == last else f"{field.name}: {first} … {last}"
