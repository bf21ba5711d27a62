"""Reading the lakehouse with SQL.

In: SQL that names tables as ``silver.trades`` (written so, without quotes), with parameters as ``?``.
Out: rows as dicts, or Arrow.

Each table is a view over the data files of its head. Heads are looked up at most once a second and only for the
tables a query names, so that a new commit is seen within about a second and an unchanged one costs nothing. A
query sees one snapshot of a table from its start to its end. A table without rows, or not created yet, is an
empty view. Nothing is written: a crash loses nothing.
"""

from __future__ import annotations

import contextlib
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import duckdb
import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError

from lakehouse.catalog import open_catalog
from lakehouse.duck import connect, snapshot_sql
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

_MENTION = re.compile(r"\b(" + "|".join(re.escape(name) for name in TABLES) + r")\b", re.IGNORECASE)


class QueryTimeoutError(TimeoutError):
    """The query ran longer than TICKHOUSE_QUERY_TIMEOUT_SECONDS and was stopped."""


Result = TypeVar("Result")

Window = tuple[datetime | None, datetime | None]
"""start ≤ event time < end; None is unbounded."""


@dataclass(slots=True)
class _Session:
    """A DuckDB cursor with a catalog of its own, so that its views are nobody else's."""

    cursor: duckdb.DuckDBPyConnection
    views: dict[str, tuple[str, Window | None]] = field(default_factory=dict)
    """table → metadata file and window that its view shows."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    running: object | None = None


class Lake:
    """Read access to all tables. One object per process; all methods are safe for threads."""

    def __init__(self, settings: LakehouseSettings | None = None, catalog: Catalog | None = None) -> None:
        """Opens the catalog, unless one is given.

        Raises:
            CatalogUnavailableError: see :func:`lakehouse.catalog.open_catalog`.
        """
        self._settings = LakehouseSettings() if settings is None else settings
        self._catalog = open_catalog(self._settings) if catalog is None else catalog
        self._database = connect(self._settings)
        self._manifests = ManifestCache()
        self._heads_lock = threading.Lock()
        self._heads: dict[str, SnapshotFiles] = {}
        self._checked: dict[str, float] = {}
        self._sessions: queue.LifoQueue[_Session] = queue.LifoQueue()
        for number in range(SESSIONS):
            self._sessions.put(self._session(f"session_{number}"))

    def rows(self, sql: str, params: Sequence[Any] = (), *, window: Window | None = None) -> list[dict[str, Any]]:
        """Run ``sql`` and return its rows: column name → value; decimals as Decimal, times aware in UTC.

        ``window`` (start, end) reads only files that may hold rows with start ≤ event time < end, in every table
        named: a hint that makes it faster, not a filter.

        Raises:
            QueryTimeoutError: it took longer than the limit of the settings.
            duckdb.Error: the SQL is wrong.
        """

        def fetch(cursor: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

        return self._run(sql, params, window, fetch)

    def arrow(self, sql: str, params: Sequence[Any] = (), *, window: Window | None = None) -> pa.Table:
        """As :meth:`rows`, as an Arrow table."""

        def fetch(cursor: duckdb.DuckDBPyConnection) -> pa.Table:
            return cursor.to_arrow_table()

        return self._run(sql, params, window, fetch)

    def snapshot(self, name: str) -> SnapshotFiles:
        """The head of table ``name`` as queries see it now: its snapshot id (a key for caches), schema and files.

        Raises:
            KeyError: no such table is declared.
        """
        return self._current_heads([TABLES[name].name])[name]

    def close(self) -> None:
        """Close all connections; queries that run are interrupted."""
        self._database.interrupt()
        self._database.close()

    def _run(
        self,
        sql: str,
        params: Sequence[Any],
        window: Window | None,
        fetch: Callable[[duckdb.DuckDBPyConnection], Result],
    ) -> Result:
        heads = self._current_heads(sorted({name.lower() for name in _MENTION.findall(sql)}))
        session = self._sessions.get()
        try:
            for name, head in heads.items():
                _show(session, name, head, window)
            with self._time_limit(session):
                session.cursor.execute(sql, params)
                return fetch(session.cursor)
        finally:
            self._sessions.put(session)

    def _session(self, name: str) -> _Session:
        cursor = self._database.cursor()
        cursor.execute(f"attach ':memory:' as {name}")
        cursor.execute(f"use {name}")
        for namespace in sorted({spec.namespace for spec in TABLES.values()}):
            cursor.execute(f"create schema {namespace}")
        return _Session(cursor)

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
        try:
            table = self._catalog.load_table(name)
        except NoSuchTableError:
            return SnapshotFiles(name, None, "", TABLES[name].schema, (), False)
        return self._manifests.files(name, table)

    @contextlib.contextmanager
    def _time_limit(self, session: _Session) -> Iterator[None]:
        """Interrupt the session's query when it takes too long, and never the one after it."""
        query = object()
        limit = self._settings.query_timeout_seconds
        expired = threading.Event()

        def stop() -> None:
            with session.lock:
                if session.running is query:
                    expired.set()
                    session.cursor.interrupt()

        session.running = query
        timer = threading.Timer(limit, stop)
        timer.daemon = True
        timer.start()
        try:
            yield
        except duckdb.InterruptException as error:
            if not expired.is_set():
                raise
            raise QueryTimeoutError(
                f"the query took longer than {limit:g} s and was stopped; ask for less, or raise "
                f"TICKHOUSE_QUERY_TIMEOUT_SECONDS"
            ) from error
        finally:
            with session.lock:
                session.running = None
            timer.cancel()


def _show(session: _Session, name: str, head: SnapshotFiles, window: Window | None) -> None:
    """Make the session's view of the table show ``head``."""
    wanted = (head.metadata_location, window)
    if session.views.get(name) == wanted:
        return
    files: Sequence[DataFileEntry] = head.files
    if window is not None:
        files = [file for file in files if file.overlaps(*window)]
    session.cursor.execute(f"create or replace view {name} as {snapshot_sql(head, files)}")
    session.views[name] = wanted
