"""The same lakehouse on S3 and an Iceberg REST catalog: a real SeaweedFS, killed while it is written to."""

from __future__ import annotations

import stat
import threading
import urllib.error
import urllib.request
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.rest import RestCatalog

from lakehouse.append import append_exactly_once
from lakehouse.batch import BatchSession, utc_now
from lakehouse.catalog import CatalogUnavailableError, open_catalog
from lakehouse.duck import connect
from lakehouse.export import export
from lakehouse.gold.step import publish
from lakehouse.gold.traders import POSITIONS, publish_traders
from lakehouse.maintenance.compaction import compact
from lakehouse.maintenance.expiry import expire
from lakehouse.maintenance.orphans import remove_orphans
from lakehouse.query import Lake, create_views
from lakehouse.rebuild import plan, run
from lakehouse.settings import LakehouseSettings
from lakehouse.silver.activity import refine_activity
from lakehouse.silver.events import STEPS, refine_trades
from lakehouse.silver.step import refine
from lakehouse.snapshots import EPOCH
from lakehouse.state import committed_offsets
from lakehouse.tables import TABLES, arrow_schema, create_tables
from tests.lakehouse.conftest import MARKET_OPEN

pytestmark = pytest.mark.integration

TRADES = ({"symbol": "AAPL"}, {"symbol": "AAPL", "price": Decimal("185.50")}, {"symbol": "MSFT"})


@pytest.fixture
def settings(object_store: Any, tmp_path: Path) -> LakehouseSettings:
    """An empty lakehouse in the object storage; with it the fixtures of all lakehouse tests work there."""
    settings: LakehouseSettings = object_store.lakehouse(tmp_path)
    catalog = open_catalog(settings)
    for namespace in catalog.list_namespaces():
        for table in catalog.list_tables(namespace):
            catalog.drop_table(table)
    return settings


@pytest.fixture
def catalog(settings: LakehouseSettings) -> Catalog:
    """All tables, empty."""
    catalog = open_catalog(settings)
    create_tables(catalog)
    return catalog


@pytest.fixture
def database(settings: LakehouseSettings) -> duckdb.DuckDBPyConnection:
    """A DuckDB that reaches the object storage."""
    return connect(settings)


def test_bronze_silver_and_gold_are_made_and_read_there(
    settings: LakehouseSettings, session: BatchSession, catalog: Catalog, bronze: Any
) -> None:
    assert isinstance(catalog, RestCatalog)
    lake = Lake(settings, catalog)
    bronze.trades(*TRADES)
    refine_trades(session)
    publish(session)
    closes = "select symbol, close_price, trade_count from gold.daily_trading_summary order by symbol"
    day_one = [
        {"symbol": "AAPL", "close_price": Decimal("185.50"), "trade_count": 2},
        {"symbol": "MSFT", "close_price": Decimal("185.25"), "trade_count": 1},
    ]
    assert lake.rows(closes) == day_one
    first = catalog.load_table("gold.daily_trading_summary").history()[-1]
    bronze.trades({"symbol": "MSFT", "price": Decimal(190)})
    refine_trades(session)
    publish(session)
    assert lake.rows(closes)[1]["close_price"] == Decimal(190)
    assert lake.at(EPOCH + timedelta(milliseconds=first.timestamp_ms)).rows(closes) == day_one
    assert lake.snapshot("silver.trades").files[0].path.startswith("s3://lake/silver/trades/")
    with connect(settings) as connection:
        create_views(connection, catalog, ["silver.trades"])
        assert connection.execute("select count(*) from silver.trades").fetchone() == (4,)
    lake.close()


def other_engine(settings: LakehouseSettings) -> Any:
    """DuckDB's own Iceberg extension on the REST catalog: nothing of this project but an open connection."""
    assert settings.catalog_credential is not None
    name, secret = settings.catalog_credential.get_secret_value().split(":")
    connection = connect(settings)
    connection.execute(
        f"create secret catalog (type iceberg, client_id '{name}', client_secret '{secret}', "
        f"oauth2_server_uri '{settings.catalog_uri}/v1/oauth/tokens')"
    )
    connection.execute(
        f"attach '{settings.warehouse}' as other (type iceberg, endpoint '{settings.catalog_uri}', "
        "secret catalog, access_delegation_mode 'none', read_only false)"
    )
    return connection


def test_another_engine_finds_the_same_sums(
    settings: LakehouseSettings, session: BatchSession, catalog: Catalog, bronze: Any
) -> None:
    bronze.trades(*TRADES)
    refine_trades(session)
    publish(session)
    lake = Lake(settings, catalog)
    with other_engine(settings) as other:
        for table, sums in {
            "bronze.trades": "count(*), sum(price), max(_kafka_offset)",
            "silver.trades": "count(*), sum(price), max(timestamp), min(company_name)",
            "gold.daily_trading_summary": "count(*), sum(total_value), sum(trade_count)",
        }.items():
            ours = tuple(lake.rows(f"select {sums} from {table}")[0].values())
            assert ours[0] > 0
            assert other.execute(f"select {sums} from other.{table}").fetchone() == ours
    lake.close()


def test_rows_that_another_engine_deletes_are_gone_here_too(
    settings: LakehouseSettings, session: BatchSession, catalog: Catalog, bronze: Any
) -> None:
    bronze.trades(*TRADES)
    refine_trades(session)
    lake = Lake(settings, catalog)
    with other_engine(settings) as other:
        other.execute("delete from other.silver.trades where trade_id = 'trade-1'")
    assert lake.snapshot("silver.trades").has_deletes
    left = lake.rows("select trade_id from silver.trades order by trade_id")
    assert left == [{"trade_id": "trade-0"}, {"trade_id": "trade-2"}]
    lake.close()


def test_a_day_is_kept_up_rebuilt_and_exported_there(
    settings: LakehouseSettings, session: BatchSession, catalog: Catalog, bronze: Any, tmp_path: Path
) -> None:
    """Every table of a past day, through every step and all of upkeep; another engine reads what is left."""
    for number in range(10):
        bronze.trades({"symbol": ("AAPL", "MSFT")[number % 2]}, {"price": Decimal(-1)} if number == 3 else {})
        bronze.orders({})
        bronze.quotes({})
        bronze.books({"bids": [(100, 1), (99, 2)], "asks": [(101, 3)]})
        for step in STEPS.values():
            refine(session, step)
    bronze.trades({"timestamp": session.clock()})  # the day is over
    refine_trades(session)
    refine_activity(session)
    publish(session)
    publish_traders(session)
    lake = Lake(settings, catalog)
    counts = " union all ".join(
        f"select '{name}' as name, count(*) as rows, count(distinct {TABLES[name].key[0]}) as keys from {name}"
        for name in (*STEPS, "bronze.trades", "bronze.orderbook_snapshots", "silver.trader_activity", POSITIONS)
    )
    before = lake.rows(counts)
    silver = catalog.load_table("silver.trades")
    with silver.io.new_output(f"{silver.location()}/data/left.parquet").create() as file:
        file.write(b"of a commit that never was")
    files = {}
    for name in (*STEPS, "bronze.trades", "bronze.orderbook_snapshots"):
        assert compact(session, name).files_before >= 8, name
        assert expire(catalog, name, keep=1).snapshots > 0
        swept = remove_orphans(catalog, name, now=utc_now() + timedelta(days=3))
        files[name] = [path for path in swept.paths if path.endswith("left.parquet")]
    assert {name for name, found in files.items() if found} == {"silver.trades"}
    assert lake.rows(counts) == before
    for piece in plan(session, [MARKET_OPEN.date()]):
        run(session, piece)
    assert lake.rows(counts) == before
    with other_engine(settings) as other:
        for row in before:
            assert other.execute(f"select count(*) from other.{row['name']}").fetchone() == (row["rows"],)
    out = tmp_path / "books.parquet"
    assert export(settings, catalog, "silver.orderbook", out) == 10
    assert pq.read_table(out)["bids"].to_pylist()[0][0]["price"] == Decimal(100)
    lake.close()


def commit_rows(number: int) -> pa.Table:
    row: dict[str, Any] = dict.fromkeys(arrow_schema("bronze.trades").names, "x")
    row |= dict.fromkeys(("timestamp", "_kafka_timestamp", "_received_at", "_ingested_at"), EPOCH)
    row |= {"sequence": number, "price": Decimal(1), "quantity": Decimal(1), "is_aggressive_buy": True}
    row |= {"_kafka_topic": "raw.trades", "_kafka_partition": 0, "_kafka_offset": number}
    return pa.Table.from_pylist([row], schema=arrow_schema("bronze.trades"))


def test_a_kill_loses_no_acknowledged_commit_and_the_writer_goes_on(own_object_store: Any, tmp_path: Path) -> None:
    settings = own_object_store.lakehouse(tmp_path / "data")
    catalog = open_catalog(settings)
    catalog.create_namespace("bronze")
    create_tables(catalog)
    table = catalog.load_table("bronze.trades")
    acknowledged: list[int] = []
    reached, failures = threading.Event(), []

    def write() -> None:
        try:
            for number in range(30):
                append_exactly_once(table, commit_rows(number), {"raw.trades": {0: number + 1}})
                acknowledged.append(number)
                if number in (5, 15):
                    reached.set()
        except Exception as error:  # noqa: BLE001
            failures.append(error)
            reached.set()

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(2):
        assert reached.wait(60)
        reached.clear()
        own_object_store.kill()
        known = len(acknowledged)
        own_object_store.start()
        found = committed_offsets(open_catalog(settings).load_table("bronze.trades"))["raw.trades"][0]
        assert found >= known > 0
    writer.join(120)
    assert not writer.is_alive()
    assert failures == []
    rows = Lake(settings).rows("select _kafka_offset as n from bronze.trades order by n")
    assert [row["n"] for row in rows] == list(range(30)) == acknowledged


def test_strangers_on_this_machine_get_nothing(object_store: Any, tmp_path: Path) -> None:
    local = object_store.settings
    addresses = [
        f"http://127.0.0.1:{local.s3_port}/lake/",
        f"http://127.0.0.1:{local.iceberg_port}/v1/lake/namespaces",
        f"http://127.0.0.1:{local.seaweed_filer_port}/buckets/lake/",
    ]
    for address in addresses:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(address, timeout=5)  # noqa: S310
        assert refused.value.code in (401, 403), address
    kept = local.root / "object-storage" / "credentials.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    stranger = object_store.lakehouse(tmp_path).model_copy(update={"catalog_credential": SecretStr("a:guess")})
    with pytest.raises(CatalogUnavailableError, match="TICKHOUSE_CATALOG_CREDENTIAL"):
        open_catalog(stranger)
