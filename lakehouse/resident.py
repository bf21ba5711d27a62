"""Small tables held in DuckDB's memory, one copy per snapshot, for queries that come again and again.

In: a snapshot of a table. Out: a select statement over its rows in memory; None where it is too large, and is read
from its files. A copy is dropped when a newer snapshot has one and no query reads it any more. Nothing is written:
a crash loses nothing.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import duckdb

from lakehouse.duck import snapshot_sql
from lakehouse.snapshots import SnapshotFiles

MAX_ROWS = 200_000
"""Of one table: about 50 MB of gold's widest rows, and a tenth of a second to load."""


@dataclass(slots=True)
class _Copy:
    table: str | None
    """Its name in DuckDB; None: it did not fit."""
    readers: int = 0


class ResidentTables:
    """Copies of snapshots in one DuckDB database. Safe for threads."""

    def __init__(self, database: duckdb.DuckDBPyConnection) -> None:
        self._cursor = database.cursor()
        self._cursor.execute("attach ':memory:' as resident")
        self._lock = threading.Lock()
        self._newest: dict[str, tuple[int, _Copy]] = {}
        self._made = 0

    @contextlib.contextmanager
    def lease(self, head: SnapshotFiles) -> Iterator[str | None]:
        """Select statement over the snapshot in memory, valid within the context; None: read its files."""
        copy = self._copy(head)
        try:
            yield None if copy is None or copy.table is None else f"select * from {copy.table}"
        finally:
            if copy is not None:
                with self._lock:
                    copy.readers -= 1
                    self._drop_unused(head.name, copy)

    def _copy(self, head: SnapshotFiles) -> _Copy | None:
        if head.snapshot_id is None or sum(file.rows for file in head.files) > MAX_ROWS:
            return None
        with self._lock:
            known = self._newest.get(head.name)
            if known is None or known[0] != head.snapshot_id:
                copy = self._load(head)
                self._newest[head.name] = head.snapshot_id, copy
                if known is not None:
                    self._drop_unused(head.name, known[1])
            else:
                copy = known[1]
            copy.readers += 1
            return copy

    def _load(self, head: SnapshotFiles) -> _Copy:
        self._made += 1
        table = f"resident.copy_{self._made}"
        try:
            self._cursor.execute(f"create table {table} as {snapshot_sql(head, head.files)}")
        except duckdb.OutOfMemoryException:
            return _Copy(None)
        return _Copy(table)

    def _drop_unused(self, name: str, copy: _Copy) -> None:
        newest = self._newest.get(name)
        if copy.table is not None and copy.readers == 0 and (newest is None or newest[1] is not copy):
            self._cursor.execute(f"drop table {copy.table}")
