"""Bringing an existing table in line with a changed declaration, as Iceberg schema evolution.

In: a loaded table and its :class:`~lakehouse.spec.TableSpec`. Out: what was changed, in words. Columns are added
(optional ones), renamed (``Column(..., was="old")``), widened (int → long, float → double, more decimal digits),
made optional, described and reordered; the sort order and the properties follow. No data file is touched, and old
snapshots stay readable with the schema they were written with. Anything else is refused, and nothing changed.

On a crash: all changes of a table are one commit. Processes that start together take turns: the loser of a race
loads the table again and finds nothing left to do.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.schema import Schema
from pyiceberg.table import Table, Transaction
from pyiceberg.table.sorting import NullOrder, SortOrder
from pyiceberg.table.update.schema import UpdateSchema
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import (
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    NestedField,
    StructType,
)

from lakehouse.spec import KEY_PROPERTY, OWN_PROPERTIES, Column, TableSpec

log = logging.getLogger(__name__)

ATTEMPTS = 10
"""More processes than ever start at once; each but the last loses to one that has done the work."""

Step = tuple[str, Callable[[UpdateSchema], object]]
"""What it does, in words, and how."""


class EvolutionRefusedError(ValueError):
    """A declaration asks for what schema evolution cannot do; the table is as it was."""


def evolve(table: Table, spec: TableSpec) -> tuple[str, ...]:
    """Make ``table`` what ``spec`` says; returns what was changed, empty when nothing had to be.

    Raises:
        EvolutionRefusedError: a difference that cannot be bridged; the message names all of them.
        CommitFailedException: other processes won every race; nothing was changed, run it again.
    """
    for attempts_left in reversed(range(ATTEMPTS)):
        changes = table.transaction()
        done = _stage(changes, table, spec)
        if not done:
            return ()
        try:
            changes.commit_transaction()
        except CommitFailedException as error:
            if not attempts_left:
                raise
            log.info("%s: another process committed first (%s); looking again", spec.name, error)
            table.refresh()
        else:
            return done
    raise AssertionError("unreachable: the last attempt returns or raises")


def _stage(changes: Transaction, table: Table, spec: TableSpec) -> tuple[str, ...]:
    """Put the differences between ``table`` and ``spec`` into the transaction; returns them in words."""
    stored = table.schema()
    names = {old: column.name for column in spec.columns if (old := _stored_name(stored, column)) is not None}
    refused = [*_refused_columns(stored, names, spec), *_refused_layout(table, names, spec)]
    if refused:
        raise EvolutionRefusedError(
            "\n".join(f"{spec.name}: {reason}" for reason in refused)
            + f"\n{spec.name} is as it was. Take the change back in lakehouse/tables.py, or declare a new table "
            f"and copy the rows over"
        )
    done: list[str] = []
    steps = list(_column_steps(stored, names, spec))
    if steps:
        update = changes.update_schema()
        for words, step in steps:
            done.append(words)
            step(update)
        update.commit()
    if _sorted_by(table.sort_order(), stored, names) != spec.sort_by:
        order = changes.update_sort_order()
        for column in spec.sort_by:
            order.asc(column, IdentityTransform(), NullOrder.NULLS_FIRST)
        order.commit()
        done.append(f"sorted by {', '.join(spec.sort_by)}")
    wanted = {name: value for name, value in spec.properties.items() if name != "format-version"}
    if changed := {name: value for name, value in wanted.items() if table.properties.get(name) != value}:
        changes.set_properties(changed)
        done.append(f"properties {', '.join(sorted(changed))} set")
    if gone := [n for n in table.properties if n.startswith(OWN_PROPERTIES) and n not in wanted]:
        changes.remove_properties(*gone)
        done.append(f"properties {', '.join(sorted(gone))} removed")
    return tuple(done)


def _stored_name(stored: Schema, column: Column) -> str | None:
    """Name under which the table has the column now; None when it has it not."""
    for name in (column.name, column.was):
        if name is not None and name in stored.column_names:
            return name
    return None


def _refused_columns(stored: Schema, names: dict[str, str], spec: TableSpec) -> Iterator[str]:
    for field in stored.fields:
        if field.name not in names:
            yield (
                f"column {field.name} ({field.field_type}) is stored but no longer declared: dropping would lose "
                f"it. Declare it; for a rename, declare the new name with was={field.name!r}"
            )
    for column in spec.columns:
        old = _stored_name(stored, column)
        if old is None:
            if column.required:
                yield (
                    f"column {column.name} is declared as required and not stored: the rows there are have no "
                    f"value for it. Declare it with required=False"
                )
            continue
        field = stored.find_field(old)
        if not _same(field.field_type, column.type) and not _wider(field.field_type, column.type):
            yield (
                f"column {column.name} is stored as {field.field_type} and declared as {column.type}: only "
                f"int to long, float to double and more decimal digits of the same scale can be had. Declare it "
                f"as it is stored, or add an optional column beside it"
            )
        if column.required and not field.required:
            yield (
                f"column {column.name} is stored as optional and declared as required: rows without it may be "
                f"stored. Declare it with required=False"
            )


def _refused_layout(table: Table, names: dict[str, str], spec: TableSpec) -> Iterator[str]:
    def partitions(schema: Schema, fields: object, renamed: dict[str, str]) -> list[tuple[str, str]]:
        return [
            (renamed.get(name := schema.find_column_name(f.source_id) or "", name), str(f.transform))
            for f in fields  # type: ignore[attr-defined]
        ]

    stored = partitions(table.schema(), table.spec().fields, names)
    declared = partitions(spec.schema, spec.partition_spec.fields, {})
    if stored != declared:
        yield (
            f"it is stored partitioned by {_partitions(stored)} and declared by {_partitions(declared)}: readers "
            f"rely on whole days. Declare the partitioning that is stored"
        )
    if text := table.properties.get(KEY_PROPERTY):
        key = tuple(names.get(name, name) for name in json.loads(text))
        if key != spec.key:
            yield (
                f"its key is stored as ({', '.join(key)}) and declared as ({', '.join(spec.key)}): the rows there "
                f"are were made unique by the old one. Declare the key that is stored"
            )


def _column_steps(stored: Schema, names: dict[str, str], spec: TableSpec) -> Iterator[Step]:
    for column in spec.columns:
        old = _stored_name(stored, column)
        if old is None:
            yield (
                f"column {column.name} added",
                lambda u, c=column: u.add_column((c.name,), c.type, doc=c.doc, required=False),  # type: ignore[misc]
            )
            continue
        field = stored.find_field(old)
        if not _same(field.field_type, column.type):
            yield (
                f"column {column.name} widened from {field.field_type} to {column.type}",
                lambda u, o=old, c=column: u.update_column((o,), field_type=c.type),  # type: ignore[misc]
            )
        if field.required and not column.required:
            yield (
                f"column {column.name} made optional",
                lambda u, o=old: u.make_column_optional((o,)),  # type: ignore[misc]
            )
        if (field.doc or "") != column.doc:
            yield (
                f"column {column.name} described anew",
                lambda u, o=old, c=column: u.update_column((o,), doc=c.doc),  # type: ignore[misc]
            )
        if old != column.name:
            yield (
                f"column {old} renamed to {column.name}",
                lambda u, o=old, c=column: u.rename_column((o,), c.name),  # type: ignore[misc]
            )
    declared = [column.name for column in spec.columns]
    added = [column.name for column in spec.columns if _stored_name(stored, column) is None]
    if [names[field.name] for field in stored.fields] + added != declared:
        yield "columns put in the order of their declaration", lambda u: _reorder(u, stored, spec)


def _reorder(update: UpdateSchema, stored: Schema, spec: TableSpec) -> None:
    """pyiceberg looks a moved column up by its stored name, a column that is added by its new one."""
    before: str | None = None
    for column in spec.columns:
        name = _stored_name(stored, column) or column.name
        if before is None:
            update.move_first((name,))
        else:
            update.move_after((name,), (before,))
        before = name


def _sorted_by(order: SortOrder, stored: Schema, names: dict[str, str]) -> tuple[str, ...]:
    by = [stored.find_column_name(field.source_id) or "" for field in order.fields]
    return tuple(names.get(name, name) for name in by)


def _same(stored: IcebergType, declared: IcebergType) -> bool:
    """Equal but for the field ids, which a table gives, and the docs of nested fields."""
    if isinstance(stored, ListType) and isinstance(declared, ListType):
        return stored.element_required == declared.element_required and _same(
            stored.element_type, declared.element_type
        )
    if isinstance(stored, StructType) and isinstance(declared, StructType):

        def shape(field: NestedField) -> tuple[str, bool]:
            return field.name, field.required

        return list(map(shape, stored.fields)) == list(map(shape, declared.fields)) and all(
            _same(s.field_type, d.field_type) for s, d in zip(stored.fields, declared.fields, strict=True)
        )
    return stored == declared


def _wider(stored: IcebergType, declared: IcebergType) -> bool:
    if isinstance(stored, DecimalType) and isinstance(declared, DecimalType):
        return stored.scale == declared.scale and stored.precision < declared.precision
    return (type(stored), type(declared)) in ((IntegerType, LongType), (FloatType, DoubleType))


def _partitions(fields: list[tuple[str, str]]) -> str:
    return ", ".join(f"{transform}({name})" for name, transform in fields) or "nothing"
