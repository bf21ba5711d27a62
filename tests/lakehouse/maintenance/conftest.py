"""Lakehouses with no more tables than a test needs."""

from __future__ import annotations

import duckdb
import pytest
from pyiceberg.catalog import Catalog

from lakehouse.batch import BatchSession
from lakehouse.dimensions.dim_symbol import read_symbols, seed_dim_symbol
from lakehouse.settings import LakehouseSettings
from lakehouse.tables import TABLES
from tests.lakehouse.conftest import WRITTEN


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """bronze.trades is the only table, so no step follows it."""
    for name in TABLES.keys() - {"bronze.trades"}:
        monkeypatch.delitem(TABLES, name)


@pytest.fixture
def session(settings: LakehouseSettings, catalog: Catalog, database: duckdb.DuckDBPyConnection) -> BatchSession:
    if "dimensions.dim_symbol" in TABLES:
        seed_dim_symbol(catalog, read_symbols(), as_of=WRITTEN)
    return BatchSession(catalog, settings, database, clock=lambda: WRITTEN)
