"""Lake: SQL over the heads of the tables, against real tables."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.types import LongType

from lakehouse.duck import connect, files_sql, snapshot_sql
from lakehouse.query import Lake, QueryTimeoutError
from lakehouse.settings import LakehouseSettings
from lakehouse.tables import TABLES, arrow_schema

NAME = "silver.trades"
MIDNIGHT = datetime(2026, 3, 2, 23, 59, 59, tzinfo=UTC)


def rows(ids: range, start: datetime = MIDNIGHT) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "event_id": f"e{i}",
                "timestamp": start + timedelta(seconds=i),
                "sequence": i,
                "trade_id": f"t{i}",
                "symbol": ("AAPL", "MSFT")[i % 2],
                "price": Decimal("61800.20") + i,
                "quantity": Decimal("0.006"),
                "buy_order_id": "b",
                "sell_order_id": "s",
                "buyer_agent_id": "x",
                "seller_agent_id": "y",
                "is_aggressive_buy": True,
                "_processed_at": start,
            }
            for i in ids
        ],
        schema=arrow_schema(NAME),
    )


@pytest.fixture
def lake(settings: LakehouseSettings, catalog: Catalog) -> Iterator[Lake]:
    lake = Lake(settings, catalog)
    yield lake
    lake.close()


@pytest.fixture(scope="module")
def empty_lake(empty_lakehouse: LakehouseSettings) -> Lake:
    return Lake(empty_lakehouse)


@pytest.mark.parametrize("name", TABLES)
def test_an_empty_table_has_the_right_columns(empty_lake: Lake, name: str) -> None:
    lake = empty_lake
    assert lake.rows(f"select * from {name}") == []
    assert lake.arrow(f"select * from {name}").schema.names == arrow_schema(name).names


def test_a_table_not_created_yet_is_empty_and_appears_when_it_is(lake: Lake, catalog: Catalog) -> None:
    catalog.drop_table(NAME)
    assert lake.rows(f"select * from {NAME}") == []
    spec = TABLES[NAME]
    catalog.create_table(NAME, spec.schema, partition_spec=spec.partition_spec).append(rows(range(2)))
    assert lake.rows(f"select count(*) as n from {NAME}") == [{"n": 2}]


def test_values_come_out_exact_and_in_utc(lake: Lake, catalog: Catalog) -> None:
    catalog.load_table(NAME).append(rows(range(1)))
    (row,) = lake.rows(f"select price, quantity, timestamp, sector from {NAME} where symbol = ?", ["AAPL"])
    assert row == {
        "price": Decimal("61800.20"),
        "quantity": Decimal("0.006"),
        "timestamp": MIDNIGHT,
        "sector": None,
    }
    assert row["timestamp"].utcoffset() == timedelta(0)
    assert lake.rows(f"select cast(timestamp as date)::varchar as day from {NAME}") == [{"day": "2026-03-02"}]


def test_a_new_commit_is_seen(lake: Lake, catalog: Catalog) -> None:
    table = catalog.load_table(NAME)
    for count in (1, 2, 3):
        table.append(rows(range(count - 1, count)))
        assert lake.rows(f"select count(*) as n from {NAME}") == [{"n": count}]


def test_heads_are_looked_up_at_most_once_in_the_interval(settings: LakehouseSettings, catalog: Catalog) -> None:
    lake = Lake(settings.model_copy(update={"query_refresh_seconds": 3600.0}), catalog)
    assert lake.rows(f"select count(*) as n from {NAME}") == [{"n": 0}]
    catalog.load_table(NAME).append(rows(range(5)))
    assert lake.rows(f"select count(*) as n from {NAME}") == [{"n": 0}]
    assert Lake(settings, catalog).rows(f"select count(*) as n from {NAME}") == [{"n": 5}]
    lake.close()


def test_deleted_and_overwritten_rows_are_gone(lake: Lake, catalog: Catalog) -> None:
    table = catalog.load_table(NAME)
    table.append(rows(range(6)))
    table.delete("symbol = 'MSFT'")
    assert lake.rows(f"select distinct symbol from {NAME}") == [{"symbol": "AAPL"}]
    table.overwrite(rows(range(10, 11)))
    assert lake.rows(f"select trade_id from {NAME}") == [{"trade_id": "t10"}]


def test_a_renamed_and_an_added_column_read_right_in_old_files(lake: Lake, catalog: Catalog) -> None:
    table = catalog.load_table(NAME)
    table.append(rows(range(2)))
    with table.update_schema() as change:
        change.rename_column("sequence", "position")
        change.add_column("venue_rank", LongType())
    found = lake.rows(f"select position, venue_rank from {NAME} order by position")
    assert found == [{"position": 0, "venue_rank": None}, {"position": 1, "venue_rank": None}]


def test_a_window_reads_only_the_files_that_may_hold_its_rows(lake: Lake, catalog: Catalog) -> None:
    table = catalog.load_table(NAME)
    for number in range(4):
        table.append(rows(range(number, number + 1), MIDNIGHT + timedelta(days=number)))
    files = lake.snapshot(NAME).files
    assert len(files) == 4
    assert {file.rows for file in files} == {1}
    third = MIDNIGHT + timedelta(days=2)
    sql = f"select trade_id from {NAME} order by timestamp"
    only = lake.rows(sql, window=(third, third + timedelta(days=1)))
    assert [row["trade_id"] for row in only] == ["t2"]
    assert [row["trade_id"] for row in lake.rows(sql, window=(third, None))] == ["t2", "t3"]
    assert [row["trade_id"] for row in lake.rows(sql)] == ["t0", "t1", "t2", "t3"]


def test_a_file_of_dates_is_read_for_every_moment_of_its_day(lake: Lake, catalog: Catalog) -> None:
    row: dict[str, Any] = dict.fromkeys(arrow_schema("gold.market_overview").names, 0)
    row |= {"trading_date": MIDNIGHT.date(), "_aggregated_at": MIDNIGHT}
    catalog.load_table("gold.market_overview").append(
        pa.Table.from_pylist([row], schema=arrow_schema("gold.market_overview"))
    )
    noon = MIDNIGHT.replace(hour=12)
    assert len(lake.rows("select * from gold.market_overview", window=(noon, None))) == 1
    assert lake.rows("select * from gold.market_overview", window=(noon + timedelta(days=1), None)) == []


def test_snapshot_ids_change_with_the_head_only(lake: Lake, catalog: Catalog) -> None:
    assert lake.snapshot(NAME).snapshot_id is None
    catalog.load_table(NAME).append(rows(range(1)))
    first = lake.snapshot(NAME).snapshot_id
    assert first is not None
    assert lake.snapshot(NAME).snapshot_id == first


def test_tables_join(lake: Lake, catalog: Catalog) -> None:
    catalog.load_table(NAME).append(rows(range(2)))
    sql = f"select count(*) as n from {NAME} t left join dimensions.dim_symbol d using (symbol)"
    assert lake.rows(sql) == [{"n": 2}]


def test_many_threads_read_while_one_commits_and_see_whole_commits(lake: Lake, catalog: Catalog) -> None:
    table = catalog.load_table(NAME)
    done = threading.Event()

    def read() -> list[int]:
        seen = []
        while not done.is_set():
            seen.append(int(lake.rows(f"select count(*) as n from {NAME}")[0]["n"]))
        return seen

    with ThreadPoolExecutor(4) as threads:
        readers = [threads.submit(read) for _ in range(4)]
        for number in range(8):
            table.append(rows(range(10 * number, 10 * number + 10), MIDNIGHT.replace(hour=1)))
        done.set()
        for reader in readers:
            seen = reader.result(timeout=30)
            assert seen == sorted(seen)
            assert all(count % 10 == 0 for count in seen)
    assert lake.rows(f"select count(*) as n from {NAME}") == [{"n": 80}]


def test_a_query_that_takes_too_long_is_stopped_and_the_next_one_runs(
    settings: LakehouseSettings, catalog: Catalog
) -> None:
    lake = Lake(settings.model_copy(update={"query_timeout_seconds": 0.2}), catalog)
    endless = "select count(*) from range(1_000_000_000) a, range(1_000_000_000) b where a.range * b.range % 7 = 3"
    with pytest.raises(QueryTimeoutError, match=r"0\.2 s"):
        lake.rows(endless)
    assert lake.rows("select 1 as one") == [{"one": 1}]
    lake.close()


def test_wrong_sql_is_an_error_and_costs_no_session(lake: Lake) -> None:
    for _ in range(20):
        with pytest.raises(duckdb.Error):
            lake.rows(f"select nothing from {NAME}")
    assert lake.rows(f"select count(*) as n from {NAME}") == [{"n": 0}]


def test_delete_files_are_honoured_by_reading_the_snapshot_itself(
    lake: Lake, catalog: Catalog, settings: LakehouseSettings
) -> None:
    catalog.load_table(NAME).append(rows(range(3)))
    head = replace(lake.snapshot(NAME), has_deletes=True)
    with pytest.raises(NotImplementedError, match="delete files"):
        files_sql(head, head.files)
    found = connect(settings).execute(f"select count(*), sum(price) from ({snapshot_sql(head, ())})").fetchone()
    assert found == (3, Decimal("185403.60000000"))


def test_parameters_are_values_and_never_sql(lake: Lake, catalog: Catalog) -> None:
    catalog.load_table(NAME).append(rows(range(2)))
    assert lake.rows(f"select * from {NAME} where symbol = ?", ["' or '1' = '1"]) == []
