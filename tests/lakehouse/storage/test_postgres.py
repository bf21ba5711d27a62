"""The catalog in a real Postgres: several processes at once, and readers that follow it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lakehouse.append import append_exactly_once
from lakehouse.catalog import CatalogUnavailableError, open_catalog
from lakehouse.query import Lake
from lakehouse.settings import LakehouseSettings
from lakehouse.snapshots import EPOCH, metadata_locations
from lakehouse.tables import TABLES, arrow_schema

pytestmark = pytest.mark.integration
NAME = "bronze.agent_actions"


@pytest.fixture
def settings(postgres: str, tmp_path: Path) -> LakehouseSettings:
    return LakehouseSettings(data_dir=tmp_path, catalog_uri=postgres, query_refresh_seconds=0)


def actions(partition: int, offset: int) -> pa.Table:
    row: dict[str, Any] = dict.fromkeys(arrow_schema(NAME).names, "x")
    row |= {"timestamp": EPOCH, "sequence": offset, "decision_factors": []}
    row |= {"_kafka_partition": partition, "_kafka_offset": offset}
    row |= dict.fromkeys(("_kafka_timestamp", "_received_at", "_ingested_at"), EPOCH)
    return pa.Table.from_pylist([row | {"_kafka_topic": "raw.agent-actions"}], schema=arrow_schema(NAME))


def test_processes_that_start_at_once_and_writers_at_once_lose_and_double_nothing(
    settings: LakehouseSettings,
) -> None:
    environment = os.environ | {
        "TICKHOUSE_DATA_DIR": str(settings.data_dir),
        "TICKHOUSE_CATALOG_URI": settings.catalog_uri,
    }
    started = [
        subprocess.Popen([sys.executable, "-m", "lakehouse", "init"], env=environment, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    for process in started:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said.decode()
    assert set(metadata_locations(open_catalog(settings)) or {}) == set(TABLES)

    def write(partition: int) -> None:
        table = open_catalog(settings).load_table(NAME)
        for offset in range(15):
            append_exactly_once(table, actions(partition, offset), {"raw.agent-actions": {partition: offset + 1}})

    # Two writers of one partition are rivals, as after a failover; the third has a partition of its own.
    writers = [threading.Thread(target=write, args=[partition]) for partition in (0, 0, 1)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    found = Lake(settings).rows(f"select _kafka_partition as p, _kafka_offset as n from {NAME} order by p, n")
    assert [(row["p"], row["n"]) for row in found] == [(p, n) for p in (0, 1) for n in range(15)]


def test_a_postgres_that_is_away_is_said_without_the_password(tmp_path: Path) -> None:
    uri = "postgresql+psycopg2://u:hidden-word@127.0.0.1:9/db"  # pragma: allowlist secret
    with pytest.raises(CatalogUnavailableError, match=r"127\.0\.0\.1:9") as error:
        open_catalog(LakehouseSettings(data_dir=tmp_path, catalog_uri=uri))
    assert "hidden-word" not in str(error.value)
