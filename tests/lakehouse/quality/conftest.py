"""A whole day of a small market in a lakehouse, from the exchange's frames to gold."""

from __future__ import annotations

import pyarrow as pa
import pytest

from dataflows.topics import TABLE_OF_TOPIC
from lakehouse.append import append_exactly_once
from lakehouse.batch import BatchSession
from lakehouse.catalog import open_catalog
from lakehouse.dimensions.step import seed_dimensions
from lakehouse.duck import connect
from lakehouse.gold.step import publish
from lakehouse.gold.traders import publish_traders
from lakehouse.settings import LakehouseSettings
from lakehouse.silver.activity import refine_activity
from lakehouse.silver.events import STEPS
from lakehouse.silver.step import refine
from lakehouse.tables import TABLES, create_tables
from tests.lakehouse.quality.market import AFTER, bronze_rows, market_frames


@pytest.fixture(scope="session")
def market_day(tmp_path_factory: pytest.TempPathFactory) -> BatchSession:
    """24 hours without a fault."""
    settings = LakehouseSettings(data_dir=tmp_path_factory.mktemp("market_day"), query_refresh_seconds=0)
    session = BatchSession(open_catalog(settings), settings, connect(settings), clock=lambda: AFTER)
    create_tables(session.catalog)
    for table, rows in bronze_rows(market_frames(24)).items():
        topic = next(topic for topic, name in TABLE_OF_TOPIC.items() if name == table)
        append_exactly_once(session.catalog.load_table(table), rows, {topic: {0: rows.num_rows}})
    seed_dimensions(session)
    for step in STEPS.values():
        refine(session, step)
    refine_activity(session)
    publish(session)
    publish_traders(session)
    return session


@pytest.fixture(scope="session")
def market_tables(market_day: BatchSession) -> dict[str, pa.Table]:
    """All rows of every table of the day."""
    return {name: market_day.catalog.load_table(name).scan().to_arrow() for name in TABLES}
