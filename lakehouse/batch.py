"""What every batch step works with: the catalog, one DuckDB, decoded manifests, a clock; and how it tries
again.

In: :class:`~lakehouse.settings.LakehouseSettings`. Out: a :class:`BatchSession` for a process to keep,
because opening DuckDB with its extensions costs a third of a CPU second.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Self, TypeVar

import duckdb
import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException
from pyiceberg.table import Table

from lakehouse.append import FastTransaction, backoff, expire_snapshots, transaction
from lakehouse.catalog import open_catalog
from lakehouse.duck import connect
from lakehouse.maintenance.reachable import Known
from lakehouse.settings import LakehouseSettings
from lakehouse.snapshots import ManifestCache

log = logging.getLogger(__name__)

ATTEMPTS = 8
"""A step has its table to itself apart from maintenance, so that a second lost race is already rare."""

T = TypeVar("T")


def utc_now() -> datetime:
    """The wall clock, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class BatchSession:
    """Safe for threads: each step takes its own DuckDB cursor."""

    catalog: Catalog
    settings: LakehouseSettings
    connection: duckdb.DuckDBPyConnection
    manifests: ManifestCache = field(default_factory=ManifestCache)
    clock: Callable[[], datetime] = utc_now
    """Time of writing, for ``_processed_at`` and its like; never for event time."""
    sums: dict[tuple[str, date], tuple[frozenset[str], Any]] = field(default_factory=dict)
    """What steps made of the files of a day so far: see :func:`lakehouse.days.accumulated`."""
    known: defaultdict[str, Known] = field(default_factory=lambda: defaultdict(Known))
    """Table → what expiry has read of its snapshots."""

    @classmethod
    def open(cls, settings: LakehouseSettings) -> Self:
        """Open the catalog and DuckDB.

        Raises:
            CatalogUnavailableError: the catalog cannot be reached.
        """
        if "jemalloc" in pa.supported_memory_backends():
            # It keeps what was let go for what comes next: batches of lists go through memory that is known to the
            # system already, which saves a sixth of the CPU time, and 50 MB.
            pa.set_memory_pool(pa.jemalloc_memory_pool())
        # Threads of a query wait for each other by asking again and again: a fifth of a step's CPU time.
        connection = connect(settings.model_copy(update={"query_threads": 1}))
        # What a step holds itself comes to as much again; what it sorts in less memory takes no longer.
        allowed = connection.sql("select parse_formatted_bytes(current_setting('memory_limit'))").fetchall()[0][0]
        connection.execute(f"set memory_limit = '{allowed // 2}B'")
        # A step reads a file once or twice. What DuckDB remembers of it stays until its memory is full, also when
        # the file is gone: 60 KB for each commit of each table, hundreds of megabytes an hour.
        connection.execute("set global enable_external_file_cache = false")
        connection.execute("set global parquet_metadata_cache = false")
        return cls(open_catalog(settings), settings, connection)

    @contextmanager
    def changes(self, table: Table) -> Iterator[FastTransaction]:
        """As :func:`lakehouse.append.transaction`; then old snapshots are forgotten where there are too many."""
        with transaction(table) as commit:
            yield commit
        expire_snapshots(table, at=self.settings.snapshots_expire_at, keep=self.settings.snapshots_kept)


def compare_and_swap(name: str, attempt: Callable[[], T]) -> T:
    """Run ``attempt``, which loads the table ``name``, computes and commits; start over when its commit was
    refused, after a random pause: two runs of a step with several commits would refuse each other's for ever.

    Starting over is right also when the commit's fate is unknown: the attempt then reads the watermark that
    did, or did not, arrive.

    Raises:
        CommitFailedException: refused :data:`ATTEMPTS` times; nothing was written, the next run tries again.
        CommitStateUnknownException: the catalog's answer was lost as often; the next run finds out.
    """
    for number in range(1, ATTEMPTS):
        try:
            return attempt()
        except (CommitFailedException, CommitStateUnknownException) as error:
            pause = backoff(number)
            log.warning("%s: commit refused (%s), starting over in %.2f s", name, error, pause)
            time.sleep(pause)
    return attempt()
