"""Prometheus metrics of the upkeep, in whatever process runs it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Gauge, Histogram

TABLE_AND_OPERATION = ("table", "operation")

RUNS = Counter(
    "tickhouse_maintenance_runs_total", "Runs of upkeep, by outcome.", (*TABLE_AND_OPERATION, "outcome")
)
SECONDS = Histogram(
    "tickhouse_maintenance_seconds",
    "Duration of a run of upkeep.",
    ("operation",),
    buckets=(0.1, 0.5, 1, 5, 15, 60, 300),
)
LAST_SUCCESS = Gauge(
    "tickhouse_maintenance_last_success_timestamp_seconds", "When upkeep last ran to its end.", TABLE_AND_OPERATION
)
FILES_REMOVED = Counter(
    "tickhouse_maintenance_files_removed_total", "Files replaced or deleted by upkeep.", TABLE_AND_OPERATION
)
BYTES_REMOVED = Counter(
    "tickhouse_maintenance_bytes_removed_total",
    "Bytes of files replaced or deleted by upkeep.",
    TABLE_AND_OPERATION,
)
YIELDED = Counter(
    "tickhouse_maintenance_yielded_total",
    "Compactions given up because another writer changed the files.",
    ("table",),
)
FILES = Gauge("tickhouse_table_data_files", "Data files of the table's head.", ("table",))
SMALL_FILES = Gauge(
    "tickhouse_table_small_files", "Data files of the head below half the target size of compaction.", ("table",)
)
BYTES = Gauge("tickhouse_table_data_bytes", "Bytes of the head's data files.", ("table",))
METADATA_BYTES = Gauge(
    "tickhouse_table_metadata_bytes", "Bytes of the metadata file, which every commit writes anew.", ("table",)
)
MANIFESTS = Gauge(
    "tickhouse_table_manifests", "Manifests of the table's head; commits merge those that are small.", ("table",)
)


@contextmanager
def observed(table: str, operation: str) -> Iterator[None]:
    """Count and time a run; an exception is counted and goes on."""
    began = time.perf_counter()
    try:
        yield
    except BaseException:
        RUNS.labels(table, operation, "failed").inc()
        raise
    finally:
        SECONDS.labels(operation).observe(time.perf_counter() - began)
    RUNS.labels(table, operation, "done").inc()
    LAST_SUCCESS.labels(table, operation).set_to_current_time()


def removed(table: str, operation: str, files: int, size: int) -> None:
    """Count files that a run replaced or deleted, ``size`` bytes together."""
    FILES_REMOVED.labels(table, operation).inc(files)
    BYTES_REMOVED.labels(table, operation).inc(size)
