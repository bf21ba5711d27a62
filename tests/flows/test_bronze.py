"""Rows, age and lag of bronze beside Kafka."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from dataflows.topics import RAW_TOPICS
from flows.bronze import check_bronze
from lakehouse.batch import BatchSession
from lakehouse.settings import LakehouseSettings
from lakehouse.tables import create_tables
from tests.lakehouse.conftest import Bronze


@pytest.fixture
def session(tmp_path: Path) -> BatchSession:
    session = BatchSession.open(LakehouseSettings(data_dir=tmp_path))
    create_tables(session.catalog)
    return session


def test_the_lag_is_over_all_partitions_from_what_the_broker_still_has(session: BatchSession) -> None:
    Bronze(session.catalog).trades({}, {}, {})  # offsets 0 to 2 of partition 0
    newest = session.catalog.load_table("bronze.trades").scan().to_arrow().column("timestamp").to_pylist()
    now = max(newest) + timedelta(seconds=40)
    bounds = {"raw.trades": {0: (0, 5), 1: (100, 107)}}
    found = {check.table: check for check in check_bronze(session, lambda t: bounds.get(t, {}), now)}
    assert len(found) == len(RAW_TOPICS)
    trades = found["bronze.trades"]
    assert (trades.rows, trades.lag, trades.partitions) == (3, 2 + 7, 2)
    assert trades.age == timedelta(seconds=40)
    assert found["bronze.quotes"].age is None
