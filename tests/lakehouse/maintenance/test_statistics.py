from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY
from pyiceberg.catalog import Catalog

from lakehouse.batch import BatchSession
from lakehouse.evolution import evolve
from lakehouse.maintenance.compaction import compact
from lakehouse.maintenance.statistics import PartitionStatistics, table_statistics
from lakehouse.spec import Column
from lakehouse.tables import TABLES
from tests.lakehouse.conftest import MARKET_OPEN, Bronze

NAME = "bronze.trades"


@pytest.mark.usefixtures("alone")
def test_statistics_say_what_a_table_is_made_of(session: BatchSession, catalog: Catalog, bronze: Bronze) -> None:
    assert table_statistics(catalog, NAME).partitions == {}
    for _ in range(3):
        bronze.trades({"timestamp": MARKET_OPEN - timedelta(days=1)}, {"sequence": None})
    compact(session, NAME)
    found = table_statistics(catalog, NAME)
    assert (found.rows, found.files, found.snapshots) == (6, 4, 4)
    assert list(found.partitions) == ["timestamp_day=2026-03-12", "timestamp_day=2026-03-13"]
    yesterday, today = found.partitions.values()
    assert yesterday == PartitionStatistics(1, 1, 0, 3, yesterday.size)
    assert today == PartitionStatistics(3, 3, 3, 3, today.size)
    assert found.size == yesterday.size + today.size > 0
    assert min(found.manifests, found.manifest_size, found.metadata_size) > 0
    shown = {
        what: REGISTRY.get_sample_value(f"tickhouse_table_{what}", {"table": NAME})
        for what in ("data_files", "small_files", "data_bytes", "metadata_bytes", "manifests")
    }
    assert list(shown.values()) == [4, 4, found.size, found.metadata_size, found.manifests]
    labels = {"table": NAME, "operation": "statistics", "outcome": "done"}
    assert REGISTRY.get_sample_value("tickhouse_maintenance_runs_total", labels)
    assert found.nulls == {"sequence": 3, "_kafka_timestamp": 6, "_received_at": 6}


def test_manifests_of_small_commits_are_merged(catalog: Catalog, bronze: Bronze) -> None:
    for _ in range(60):
        bronze.trades({})
    found = table_statistics(catalog, NAME)
    assert found.files == 60
    assert found.manifests < 15


@pytest.mark.usefixtures("alone")
def test_rows_from_before_a_column_was_added_are_without_it(catalog: Catalog, bronze: Bronze) -> None:
    bronze.trades({}, {})
    spec = TABLES[NAME]
    note = Column("note", spec.columns[0].type, "Note", required=False)
    evolve(catalog.load_table(NAME), replace(spec, columns=(*spec.columns, note)))
    assert table_statistics(catalog, NAME).nulls["note"] == 2
