"""What was appended since a watermark: across expiry, compaction and topics made anew."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import duckdb
import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from lakehouse.append import append_exactly_once, expire_snapshots, transaction
from lakehouse.duck import connect
from lakehouse.incremental import Appended, Watermark, appended_since, read_watermark
from lakehouse.settings import LakehouseSettings
from lakehouse.state import WATERMARK, carried
from lakehouse.tables import arrow_schema

NAME = "bronze.trades"
TOPIC = "raw.trades"
NOW = datetime(2026, 3, 2, 10, tzinfo=UTC)


def rows(offsets: range, partition: int = 0, day: int = 0) -> pa.Table:
    text = dict.fromkeys(["buy_order_id", "sell_order_id", "buyer_agent_id", "seller_agent_id"], "x")
    return pa.Table.from_pylist(
        [
            {
                **text,
                "event_id": f"e{partition}.{offset}",
                "timestamp": NOW + timedelta(days=day),
                "trade_id": f"t{partition}.{offset}",
                "symbol": "AAPL",
                "price": Decimal(1),
                "quantity": Decimal(1),
                "is_aggressive_buy": True,
                "_kafka_topic": TOPIC,
                "_kafka_partition": partition,
                "_kafka_offset": offset,
                "_ingested_at": NOW,
            }
            for offset in offsets
        ],
        schema=arrow_schema(NAME),
    )


@pytest.fixture
def table(catalog: Catalog) -> Table:
    return catalog.load_table(NAME)


@pytest.fixture
def duck(settings: LakehouseSettings) -> Iterator[duckdb.DuckDBPyConnection]:
    with connect(settings) as connection:
        yield connection


def found(duck: duckdb.DuckDBPyConnection, appended: Appended) -> list[tuple[int, int]]:
    return duck.execute(f"select _kafka_partition, _kafka_offset from ({appended.sql()}) order by all").fetchall()


def append(table: Table, content: pa.Table, partition: int, until: int) -> None:
    append_exactly_once(table, content, {TOPIC: {partition: until}})


def compact(table: Table) -> None:
    """All rows into new files, as maintenance does it."""
    content = table.scan().to_arrow()
    with transaction(table) as changes:
        changes.overwrite(content, snapshot_properties=carried(table))


def test_without_a_watermark_everything_is_new(table: Table, duck: duckdb.DuckDBPyConnection) -> None:
    assert appended_since(NAME, table, None).empty
    append(table, rows(range(3)), 0, 3)
    assert found(duck, appended_since(NAME, table, None)) == [(0, 0), (0, 1), (0, 2)]


def test_each_row_is_found_by_exactly_one_step(table: Table, duck: duckdb.DuckDBPyConnection) -> None:
    append(table, rows(range(3)), 0, 3)
    first = appended_since(NAME, table, None)
    append(table, rows(range(3, 5)), 0, 5)
    append(table, rows(range(2), 1), 1, 2)
    second = appended_since(NAME, table, first.watermark)
    assert len(second.files) == 2
    assert found(duck, second) == [(0, 3), (0, 4), (1, 0), (1, 1)]
    assert appended_since(NAME, table, second.watermark).empty


def test_a_watermark_survives_its_json() -> None:
    watermark = Watermark(7, {TOPIC: {0: 5}}, {TOPIC: {0: 1}})
    assert Watermark.from_json(watermark.to_json()) == watermark


def test_a_step_reads_its_watermark_from_its_own_table(catalog: Catalog, table: Table) -> None:
    silver = catalog.load_table("silver.trades")
    assert read_watermark(silver) is None
    append(table, rows(range(3)), 0, 3)
    watermark = appended_since(NAME, table, None).watermark
    silver.append(
        arrow_schema("silver.trades").empty_table(),
        snapshot_properties=carried(silver, {WATERMARK: watermark.to_json()}),
    )
    assert read_watermark(silver) == watermark


def test_expired_snapshots_hide_no_rows(table: Table, duck: duckdb.DuckDBPyConnection) -> None:
    append(table, rows(range(1)), 0, 1)
    watermark = appended_since(NAME, table, None).watermark
    for number in range(1, 6):
        append(table, rows(range(number, number + 1)), 0, number + 1)
    expire_snapshots(table, at=2, keep=1)
    assert found(duck, appended_since(NAME, table, watermark)) == [(0, n) for n in range(1, 6)]


def test_compaction_shows_no_row_twice_and_hides_none(table: Table, duck: duckdb.DuckDBPyConnection) -> None:
    append(table, rows(range(3)), 0, 3)
    watermark = appended_since(NAME, table, None).watermark
    compact(table)
    assert found(duck, appended_since(NAME, table, watermark)) == []
    append(table, rows(range(3, 6)), 0, 6)
    compact(table)
    assert found(duck, appended_since(NAME, table, watermark)) == [(0, 3), (0, 4), (0, 5)]


def test_rows_of_a_topic_made_anew_are_found_under_their_lower_offsets(
    table: Table, duck: duckdb.DuckDBPyConnection
) -> None:
    append(table, rows(range(8)), 0, 8)
    append(table, rows(range(4), 1), 1, 4)
    watermark = appended_since(NAME, table, None).watermark
    append_exactly_once(table, rows(range(2)), {TOPIC: {0: 2}}, began_anew={(TOPIC, 0): 1})
    since = appended_since(NAME, table, watermark)
    assert found(duck, since) == [(0, 0), (0, 1)]
    append(table, rows(range(2, 3)), 0, 3)
    assert found(duck, appended_since(NAME, table, since.watermark)) == [(0, 2)]


def test_files_know_their_day(table: Table, duck: duckdb.DuckDBPyConnection) -> None:
    append(table, pa.concat_tables([rows(range(2)), rows(range(2, 5), day=1)]), 0, 5)
    appended = appended_since(NAME, table, None)
    days = {file.day: file for file in appended.files}
    assert set(days) == {NOW.date(), (NOW + timedelta(days=1)).date()}
    of_day = appended.sql((days[NOW.date()],))
    assert duck.execute(f"select count(*) from ({of_day})").fetchone() == (2,)
