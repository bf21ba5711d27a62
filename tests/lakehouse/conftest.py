"""An empty lakehouse in a temporary directory."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from lakehouse.append import append_exactly_once
from lakehouse.batch import BatchSession
from lakehouse.catalog import open_catalog
from lakehouse.dimensions.dim_symbol import read_symbols, seed_dim_symbol
from lakehouse.dimensions.step import FOLDER
from lakehouse.duck import connect
from lakehouse.settings import LakehouseSettings
from lakehouse.tables import arrow_schema, create_tables

MARKET_OPEN = datetime(2026, 3, 13, 14, 30, tzinfo=UTC)
WRITTEN = datetime(2026, 3, 14, tzinfo=UTC)
"""What the clock says in batch tests."""


def reference_files(folder: Path) -> Path:
    """Those of the dimensions, in ``folder`` for a test to edit."""
    folder.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.csv"):
        shutil.copy(path, folder)
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> LakehouseSettings:
    return LakehouseSettings(data_dir=tmp_path, query_refresh_seconds=0)


@pytest.fixture(scope="session")
def empty_lakehouse(tmp_path_factory: pytest.TempPathFactory) -> LakehouseSettings:
    """A lakehouse with all tables, for tests that only read: that of every other test is a copy of it."""
    settings = LakehouseSettings(data_dir=tmp_path_factory.mktemp("lakehouse"), query_refresh_seconds=0)
    create_tables(open_catalog(settings))
    return settings


@pytest.fixture
def catalog(settings: LakehouseSettings, empty_lakehouse: LakehouseSettings) -> Catalog:
    """All tables, empty: a copy with its own addresses, which costs a tenth of creating them."""
    made, copied = empty_lakehouse.lakehouse_dir, settings.lakehouse_dir
    addresses = f"{made}/", f"{copied}/"
    shutil.copytree(made, copied, ignore=shutil.ignore_patterns("catalog.*"))
    for metadata in copied.rglob("*.metadata.json"):
        metadata.write_text(metadata.read_text().replace(*addresses))
    with (
        closing(sqlite3.connect(made / "catalog.db")) as old,
        closing(sqlite3.connect(copied / "catalog.db")) as new,
    ):
        old.backup(new)
        new.execute("update iceberg_tables set metadata_location = replace(metadata_location, ?, ?)", addresses)
        new.commit()
    return open_catalog(settings)


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> duckdb.DuckDBPyConnection:
    """One DuckDB for all tests: opening it costs a third of a CPU second."""
    return connect(LakehouseSettings(data_dir=tmp_path_factory.mktemp("duckdb")))


@pytest.fixture
def session(settings: LakehouseSettings, catalog: Catalog, database: duckdb.DuckDBPyConnection) -> BatchSession:
    """A batch session whose clock stands still, on a lakehouse with the symbols seeded."""
    seed_dim_symbol(catalog, read_symbols(), as_of=WRITTEN)
    return BatchSession(catalog, settings, database, clock=lambda: WRITTEN)


class Bronze:
    """Writes to bronze as the stream does: one offset after the other, a commit per call."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.next_offset: dict[str, int] = {}

    def trades(self, *trades: dict[str, Any]) -> None:
        """Append trades; fields that are not given are filled in, the trade's number being its offset."""
        self._append(
            "bronze.trades", "raw.trades", [self._trade(i, t) for i, t in self._numbered("raw.trades", trades)]
        )

    def books(self, *books: dict[str, Any]) -> None:
        """Append order books; ``bids`` and ``asks`` are lists of (price, quantity)."""
        topic = "raw.orderbook-snapshots"
        self._append(
            "bronze.orderbook_snapshots", topic, [self._book(i, b) for i, b in self._numbered(topic, books)]
        )

    def quotes(self, *quotes: dict[str, Any]) -> None:
        """Append quotes; fields that are not given are filled in."""
        topic = "raw.quotes"
        self._append("bronze.quotes", topic, [self._quote(i, q) for i, q in self._numbered(topic, quotes)])

    def orders(self, *orders: dict[str, Any]) -> None:
        """Append orders; fields that are not given are filled in."""
        topic = "raw.orders"
        self._append("bronze.orders", topic, [self._order(i, o) for i, o in self._numbered(topic, orders)])

    def _numbered(self, topic: str, rows: tuple[dict[str, Any], ...]) -> list[tuple[int, dict[str, Any]]]:
        return list(enumerate(rows, self.next_offset.get(topic, 0)))

    def _append(self, name: str, topic: str, rows: list[dict[str, Any]]) -> None:
        self.next_offset[topic] = self.next_offset.get(topic, 0) + len(rows)
        for row, offset in zip(
            rows, range(self.next_offset[topic] - len(rows), self.next_offset[topic]), strict=True
        ):
            row |= {"_kafka_topic": topic, "_kafka_partition": 0, "_kafka_offset": offset, "_ingested_at": WRITTEN}
        append_exactly_once(
            self.catalog.load_table(name),
            pa.Table.from_pylist(rows, schema=arrow_schema(name)),
            {topic: {0: self.next_offset[topic]}},
        )

    @staticmethod
    def _trade(number: int, given: dict[str, Any]) -> dict[str, Any]:
        return {
            "event_id": f"event-{number}",
            "timestamp": MARKET_OPEN,
            "sequence": number,
            "trade_id": f"trade-{number}",
            "symbol": "AAPL",
            "price": Decimal("185.25"),
            "quantity": Decimal(100),
            "buy_order_id": "order-b",
            "sell_order_id": "order-s",
            "buyer_agent_id": "retail-0001",
            "seller_agent_id": "mm-001",
            "is_aggressive_buy": True,
        } | given

    @staticmethod
    def _quote(number: int, given: dict[str, Any]) -> dict[str, Any]:
        return {
            "event_id": f"quote-{number}",
            "timestamp": MARKET_OPEN,
            "sequence": number,
            "symbol": "AAPL",
            "best_bid": Decimal("185.24"),
            "best_bid_size": Decimal(300),
            "best_ask": Decimal("185.26"),
            "best_ask_size": Decimal(200),
        } | given

    @staticmethod
    def _order(number: int, given: dict[str, Any]) -> dict[str, Any]:
        return {
            "event_type": "OrderPlaced",
            "event_id": f"order-event-{number}",
            "timestamp": MARKET_OPEN,
            "sequence": number,
            "order_id": f"order-{number}",
            "symbol": "AAPL",
            "side": "Buy",
            "order_type": "Limit",
            "price": Decimal("185.25"),
            "quantity": Decimal(100),
            "agent_id": "retail-0001",
        } | given

    @staticmethod
    def _book(number: int, given: dict[str, Any]) -> dict[str, Any]:
        book = {
            "event_id": f"book-{number}",
            "timestamp": MARKET_OPEN,
            "sequence": number,
            "symbol": "AAPL",
        } | given
        for side in ("bids", "asks"):
            book[side] = [
                {"price": Decimal(price), "quantity": Decimal(quantity), "order_count": 1}
                for price, quantity in book.get(side, [])
            ]
        return book


@pytest.fixture
def bronze(catalog: Catalog) -> Bronze:
    return Bronze(catalog)


class CommitFaults:
    """Makes the commits of one table fail: before the catalog has heard of it, or when it has done its part."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._commit = SqlCatalog.commit_table
        self._planned: list[tuple[str, str]] = []
        self._spared: Counter[str] = Counter()
        monkeypatch.setattr(SqlCatalog, "commit_table", self._faulty_commit())

    def at_next_commit(self, table: str, when: Literal["before", "after"]) -> None:
        self.at_commit(table, when, 1)

    def at_commit(self, table: str, when: Literal["before", "after"], number: int) -> None:
        """The table's commits before the ``number``-th from now on succeed."""
        self._planned.append((table, when))
        self._spared[table] = number - 1

    def forget(self) -> None:
        """Plan nothing more."""
        self._planned.clear()

    def _faulty_commit(self) -> Callable[..., Any]:
        def commit_table(catalog: SqlCatalog, table: Table, *changes: Any) -> Any:
            name = ".".join(table.name())
            when = next((w for t, w in self._planned if t == name), None)
            if when is None or self._spared[name] > 0:
                self._spared[name] -= 1
                return self._commit(catalog, table, *changes)
            self._planned.remove((name, when))
            if when == "after":
                self._commit(catalog, table, *changes)
            raise ProcessLookupError(f"killed {when} the commit of {name}")

        return commit_table


@pytest.fixture
def commit_faults(monkeypatch: pytest.MonkeyPatch) -> CommitFaults:
    return CommitFaults(monkeypatch)


@pytest.fixture(params=["UTC", "America/New_York", "Asia/Tokyo"])
def machine_time_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The machine's own time zone, which must not matter."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()
