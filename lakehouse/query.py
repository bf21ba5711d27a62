"""Reading the lakehouse with SQL.

In: SQL that names tables as ``silver.trades``, with parameters as ``?``.
Out: rows as dicts, an Arrow table, or Arrow batches; and :func:`create_views`, for programs with a DuckDB of their
own.

Each table is a view over the data files of its head. Heads are looked up at most once a second and only for the
tables a query names, so that a new commit is seen within about a second and an unchanged one costs nothing. A
query sees one snapshot of a table from its start to its end: the head, or the one of an earlier time
(:meth:`Lake.at`). A table without rows, or not created yet, is an empty view. Small tables of gold are held in
memory. Nothing is written: a crash loses nothing.
"""

from __future__ import annotations

import contextlib
import copy
import queue
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import Table

from lakehouse.as_of import AsOf, find_as_of
from lakehouse.catalog import open_catalog
from lakehouse.duck import connect, snapshot_sql
from lakehouse.resident import ResidentTables
from lakehouse.running import Cancellation, QueryTimeoutError, limited
from lakehouse.settings import LakehouseSettings
from lakehouse.snapshots import (
    DataFileEntry,
    ManifestCache,
    SnapshotFiles,
    local_path,
    metadata_locations,
)
from lakehouse.tables import TABLES

SESSIONS = 8
"""Queries that run at once in a process; more wait. Beyond the cores they only share the same memory limit."""
PAST_SNAPSHOTS = 16
"""Past snapshots whose list of files is kept."""
BATCH_ROWS = 20_000
"""Rows of a batch of :meth:`Lake.batches`: some megabytes."""

_DOTTED = re.compile(r'\b(\w+)"?\s*\.\s*"?(?=(\w+))')
"""Two names with a dot between them, each in quotes or not."""

Window = tuple[datetime | None, datetime | None]
"""start ≤ event time < end; None is unbounded."""


@dataclass(frozen=True, slots=True)
class Hints:
    """What a query's own conditions imply about the files it needs: they make it faster, and filter nothing.

    They hold for every table that the query names.
    """

    window: Window | None = None
    """Only rows with this event time are asked for."""
    key: str | None = None
    """Only the row with this key is asked for, in tables whose key is one column of text."""

    def select(self, files: Sequence[DataFileEntry]) -> Sequence[DataFileEntry]:
        """The files that may hold such rows."""
        if self.window is not None:
            files = [file for file in files if file.overlaps(*self.window)]
        if self.key is not None:
            files = [file for file in files if file.may_hold(self.key)]
        return files


EVERYTHING = Hints()


@dataclass(slots=True)
class _Session:
    """A DuckDB cursor with a catalog of its own, so that its views are nobody else's."""

    cursor: duckdb.DuckDBPyConnection
    views: dict[str, str] = field(default_factory=dict)
    """table → select statement that its view stands for."""


class Lake:
    """Read access to all tables. One object per process; all methods are safe for threads."""

    def __init__(self, settings: LakehouseSettings | None = None, catalog: Catalog | None = None) -> None:
        """Opens the catalog, unless one is given.

        Raises:
            CatalogUnavailableError: see :func:`lakehouse.catalog.open_catalog`.
        """
        self._settings = LakehouseSettings() if settings is None else settings
        self._catalog = open_catalog(self._settings) if catalog is None else catalog
        self._as_of: AsOf | None = None
        self._database = connect(self._settings)
        self._resident = ResidentTables(self._database)
        self._manifests = ManifestCache()
        self._heads_lock = threading.Lock()
        self._heads: dict[str, SnapshotFiles] = {}
        self._checked: dict[str, float] = {}
        self._past: OrderedDict[tuple[str, str, int | None], SnapshotFiles] = OrderedDict()
        self._sessions: queue.LifoQueue[_Session] = queue.LifoQueue()
        for number in range(SESSIONS):
            self._sessions.put(self._session(f"session_{number}"))

    def at(self, as_of: datetime | int, tables: Iterable[str] = TABLES) -> Lake:
        """The lake as it was: every table's head of that moment, under the columns that it has today.

        Args:
            as_of: aware time; or the id of a snapshot, which is looked for in ``tables``: other tables are then
                read as of the moment of that commit.

        The snapshot of a time that was expired is an error of the query, not of this call.

        Raises:
            SnapshotUnknownError: none of ``tables`` has a snapshot of that id.
        """
        then = copy.copy(self)
        then._as_of = find_as_of(self._catalog, as_of, tables)
        return then

    def rows(
        self,
        sql: str,
        params: Sequence[Any] = (),
        *,
        hints: Hints = EVERYTHING,
        cancellation: Cancellation | None = None,
    ) -> list[dict[str, Any]]:
        """Run ``sql`` and return its rows: column name → value; decimals as Decimal, times aware in UTC.

        Raises:
            QueryTimeoutError: it took longer than the limit of the settings.
            QueryCancelledError: ``cancellation`` was used.
            SnapshotUnknownError: the snapshots of :meth:`at` were expired.
            duckdb.Error: the SQL is wrong.
        """
        with self._query(sql, params, hints, cancellation) as cursor:
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def arrow(
        self,
        sql: str,
        params: Sequence[Any] = (),
        *,
        hints: Hints = EVERYTHING,
        cancellation: Cancellation | None = None,
    ) -> pa.Table:
        """As :meth:`rows`, as an Arrow table."""
        with self._query(sql, params, hints, cancellation) as cursor:
            return cursor.to_arrow_table()

    @contextlib.contextmanager
    def batches(
        self, sql: str, params: Sequence[Any] = (), *, cancellation: Cancellation | None = None
    ) -> Iterator[pa.RecordBatchReader]:
        """As :meth:`rows`, batch by batch, so that no result is too large; the limits end with the context."""
        with self._query(sql, params, EVERYTHING, cancellation) as cursor:
            yield cursor.to_arrow_reader(BATCH_ROWS)

    def snapshot(self, name: str) -> SnapshotFiles:
        """The snapshot of table ``name`` that queries see now: its id (a key for caches), schema and files.

        Raises:
            KeyError: no such table is declared.
        """
        return self._snapshots([TABLES[name].name])[name]

    def close(self) -> None:
        """Close all connections; queries that run are interrupted."""
        self._database.interrupt()
        self._database.close()

    @contextlib.contextmanager
    def _query(
        self, sql: str, params: Sequence[Any], hints: Hints, cancellation: Cancellation | None
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor that holds the result of ``sql``."""
        dotted = {f"{namespace}.{name}".lower() for namespace, name in _DOTTED.findall(sql)}
        shown = self._snapshots(sorted(dotted & TABLES.keys()))
        limit = self._settings.query_timeout_seconds
        begun = time.monotonic()
        session = _take(self._sessions, limit)
        try:
            with contextlib.ExitStack() as leases:
                for name, snapshot in shown.items():
                    resident = None
                    if self._as_of is None and TABLES[name].namespace == "gold":
                        resident = leases.enter_context(self._resident.lease(snapshot))
                    _show(session, name, resident or snapshot_sql(snapshot, hints.select(snapshot.files)))
                with limited(session.cursor, limit, begun, cancellation):
                    session.cursor.execute(sql, params)
                    yield session.cursor
        finally:
            self._sessions.put(session)

    def _session(self, name: str) -> _Session:
        cursor = self._database.cursor()
        cursor.execute(f"attach ':memory:' as {name}")
        cursor.execute(f"use {name}")
        for namespace in sorted({spec.namespace for spec in TABLES.values()}):
            cursor.execute(f"create schema {namespace}")
        return _Session(cursor)

    def _snapshots(self, names: Sequence[str]) -> dict[str, SnapshotFiles]:
        if self._as_of is None:
            return self._current_heads(names)
        return {name: self._as_it_was(name, self._as_of) for name in names}

    def _current_heads(self, names: Sequence[str]) -> dict[str, SnapshotFiles]:
        """Heads of the tables, at most ``query_refresh_seconds`` old."""
        with self._heads_lock:
            now = time.monotonic()
            due = [n for n in names if now >= self._checked.get(n, now) + self._settings.query_refresh_seconds]
            due += [n for n in names if n not in self._heads]
            locations = metadata_locations(self._catalog) if due else None
            for name in due:
                known = self._heads.get(name)
                if (
                    locations is None
                    or known is None
                    or local_path(locations.get(name, "")) != known.metadata_location
                ):
                    self._heads[name] = self._load(name)
                self._checked[name] = now
            return {name: self._heads[name] for name in names}

    def _load(self, name: str) -> SnapshotFiles:
        table = _load_table(self._catalog, name)
        return _not_created(name) if table is None else self._manifests.files(name, table)

    def _as_it_was(self, name: str, as_of: AsOf) -> SnapshotFiles:
        table = _load_table(self._catalog, name)
        if table is None:
            return _not_created(name)
        snapshot = as_of.snapshot(name, table)
        key = name, table.metadata_location, None if snapshot is None else snapshot.snapshot_id
        with self._heads_lock:
            known = self._past.get(key)
        files = self._manifests.files_of(name, table, snapshot) if known is None else known
        with self._heads_lock:
            self._past[key] = files
            self._past.move_to_end(key)
            while len(self._past) > PAST_SNAPSHOTS:
                self._past.popitem(last=False)
        return files


def create_views(
    connection: duckdb.DuckDBPyConnection,
    catalog: Catalog,
    names: Iterable[str] = TABLES,
    as_of: AsOf | None = None,
) -> dict[str, int | None]:
    """Make tables views of a DuckDB connection, in schemas of their own: ``silver.trades``.

    For programs that bring their own connection: data contracts, a BI tool with a DuckDB file, an export. A view
    shows the table as it is now, or as of a moment; call again to see later commits. On S3 the connection has to
    come from :func:`lakehouse.duck.connect`.

    Returns: table → id of the snapshot that its view shows; None for a table without one.

    Raises:
        SnapshotUnknownError: the snapshot of ``as_of`` was expired.
    """
    shown: dict[str, int | None] = {}
    manifests = ManifestCache()
    for name in names:
        table = _load_table(catalog, name)
        if table is None:
            files = _not_created(name)
        else:
            snapshot = table.current_snapshot() if as_of is None else as_of.snapshot(name, table)
            files = manifests.files_of(name, table, snapshot)
        connection.execute(f"create schema if not exists {TABLES[name].namespace}")
        connection.execute(f"create or replace view {name} as {snapshot_sql(files, files.files)}")
        shown[name] = files.snapshot_id
    return shown


def _load_table(catalog: Catalog, name: str) -> Table | None:
    try:
        return catalog.load_table(name)
    except NoSuchTableError:
        return None


def _not_created(name: str) -> SnapshotFiles:
    return SnapshotFiles(name, None, "", TABLES[name].schema, (), False)


def _take(sessions: queue.LifoQueue[_Session], seconds: float) -> _Session:
    try:
        return sessions.get(timeout=seconds)
    except queue.Empty:
        raise QueryTimeoutError(seconds) from None


def _show(session: _Session, name: str, select: str) -> None:
    """Make the session's view of the table stand for ``select``."""
    if session.views.get(name) != select:
        session.cursor.execute(f"create or replace view {name} as {select}")
        session.views[name] = select
