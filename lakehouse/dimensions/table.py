"""Bringing a dimension's table in line with what is known: one commit, or none when nothing changed.

In: a table, and a function from its rows to the rows it should have. Out: the table as it should be. On a crash:
it is before the commit or after it. Of several processes that do it at once one commits and the others find
nothing left to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from lakehouse.append import transaction
from lakehouse.batch import compare_and_swap
from lakehouse.state import carried, read_state
from lakehouse.tables import TABLES, arrow_schema

Row = dict[str, Any]


def bring_in_line(
    catalog: Catalog,
    name: str,
    after: Callable[[list[Row]], list[Row]],
    state: Mapping[str, str] | None = None,
    approve: Callable[[pa.Table], None] | None = None,
) -> bool:
    """Replace the table's rows by ``after(rows)``; False when they, and ``state``, are as they should be.

    Args:
        after: pure; called once an attempt. Rows are in the order of the table's key.
        state: changes to the state that the table's snapshots carry.
        approve: called with the rows that are about to be committed; what it raises keeps them out.

    Raises:
        NoSuchTableError: the table does not exist yet.
        CommitFailedException: other writers won every race; nothing was changed.
    """

    def attempt() -> bool:
        table = catalog.load_table(name)
        before = pa.Table.from_pylist(_rows(table, name), schema=arrow_schema(name))
        content = pa.Table.from_pylist(after(before.to_pylist()), schema=arrow_schema(name))
        content = content.sort_by([(key, "ascending") for key in TABLES[name].key])
        properties = carried(table, state)
        if content.equals(before) and properties == read_state(table):
            return False
        if approve is not None:
            approve(content)
        with transaction(table) as changes:
            if table.current_snapshot() is None:
                changes.append(content, snapshot_properties=properties)
            else:
                changes.overwrite(content, snapshot_properties=properties)
        return True

    return compare_and_swap(name, attempt)


def dimension_rows(catalog: Catalog, name: str) -> list[Row]:
    """All rows of a dimension, in the order of its key. Raises NoSuchTableError where it does not exist yet."""
    return _rows(catalog.load_table(name), name)


def _rows(table: Table, name: str) -> list[Row]:
    found = table.scan().to_arrow().sort_by([(key, "ascending") for key in TABLES[name].key])
    rows: list[Row] = found.to_pylist()
    return rows
