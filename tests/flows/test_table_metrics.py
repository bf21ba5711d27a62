"""Metrics follow the tables' heads."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from prometheus_client import CollectorRegistry

from flows.table_metrics import TableMetrics
from lakehouse.batch import BatchSession
from lakehouse.quality.contract import CheckOutcome
from lakehouse.quality.gate import record
from lakehouse.quality.layer import check
from lakehouse.settings import LakehouseSettings
from lakehouse.tables import TABLES, arrow_schema, create_tables

EVENT = datetime(2026, 3, 13, 12, 0, 1, 500000, tzinfo=UTC)


@pytest.fixture
def session(tmp_path: Path) -> BatchSession:
    session = BatchSession.open(LakehouseSettings(data_dir=tmp_path))
    create_tables(session.catalog)
    return session


def test_gauges_show_rows_events_commits_and_contracts(session: BatchSession) -> None:
    registry = CollectorRegistry()
    metrics = TableMetrics(session.catalog, registry)
    assert metrics.poll() == len(TABLES)
    labels = {"layer": "bronze", "table": "market_stats"}
    assert registry.get_sample_value("tickhouse_table_rows", labels) == 0
    assert registry.get_sample_value("tickhouse_table_last_event_timestamp_seconds", labels) == 0

    row = {
        "event_id": "e",
        "timestamp": EVENT,
        "symbol": "AAPL",
        **dict.fromkeys(("open", "high", "low", "close", "vwap"), 1),
        "volume": 1,
        "trade_count": 1,
        "_kafka_topic": "raw.market-stats",
        "_kafka_partition": 0,
        "_kafka_offset": 0,
        "_ingested_at": EVENT,
    }
    table = session.catalog.load_table("bronze.market_stats")
    for _ in range(2):
        table.append(pa.Table.from_pylist([row, row], schema=arrow_schema("bronze.market_stats")))
    failed = CheckOutcome("silver.trades", "a", "a", "a", None, "critical", "failed")
    record(session, "run", {"silver.trades": [failed]}, EVENT)
    assert metrics.poll() == 2
    assert registry.get_sample_value("tickhouse_table_rows", labels) == 4
    assert registry.get_sample_value("tickhouse_table_snapshots", labels) == 2
    seconds = registry.get_sample_value("tickhouse_table_last_event_timestamp_seconds", labels)
    assert seconds == EVENT.timestamp()
    head = table.metadata.current_snapshot()
    assert head is not None
    committed = registry.get_sample_value("tickhouse_table_last_commit_timestamp_seconds", labels)
    assert committed == head.timestamp_ms / 1000
    contract = {"contract": "silver.trades"}
    assert registry.get_sample_value("tickhouse_quality_check_passed", contract) == 0
    check(session, "dimensions")
    metrics.poll()
    of_table = {"layer": "dimensions", "table": "dim_time"}
    assert registry.get_sample_value("tickhouse_quality_score", of_table) == 1
    assert registry.get_sample_value("tickhouse_quality_score", of_table | {"table": "all"}) == 1
    assert registry.get_sample_value("tickhouse_table_volume_deviation_percent", of_table) == 0
    assert metrics.poll() == 0
