"""Lake: SQL over the heads of the tables, against real tables."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.types import LongType

from lakehouse.append import expire_snapshots
from lakehouse.as_of import AsOf, parse_as_of
from lakehouse.duck import connect, files_sql, snapshot_sql
from lakehouse.query import BATCH_ROWS, SESSIONS, Hints, Lake, create_views
from lakehouse.running import Cancellation, QueryCancelledError, QueryTimeoutError
from lakehouse.settings import LakehouseSettings
from lakehouse.snapshots import EPOCH, SnapshotUnknownError
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


@pytest.mark.parametrize("name", ['"silver"."trades"', "Silver . TRADES", 'silver."trades"'])
def test_a_new_commit_is_seen_however_the_table_is_written(lake: Lake, catalog: Catalog, name: str) -> None:
    assert lake.rows(f"select count(*) as n from {NAME}") == [{"n": 0}]
    catalog.load_table(NAME).append(rows(range(3)))
    assert lake.rows(f"select count(*) as n from {name}") == [{"n": 3}]


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
    only = lake.rows(sql, hints=Hints((third, third + timedelta(days=1))))
    assert [row["trade_id"] for row in only] == ["t2"]
    assert [row["trade_id"] for row in lake.rows(sql, hints=Hints((third, None)))] == ["t2", "t3"]
    assert [row["trade_id"] for row in lake.rows(sql)] == ["t0", "t1", "t2", "t3"]


def test_a_file_of_dates_is_read_for_every_moment_of_its_day(lake: Lake, catalog: Catalog) -> None:
    row: dict[str, Any] = dict.fromkeys(arrow_schema("gold.market_overview").names, 0)
    row |= {"trading_date": MIDNIGHT.date(), "_aggregated_at": MIDNIGHT}
    catalog.load_table("gold.market_overview").append(
        pa.Table.from_pylist([row], schema=arrow_schema("gold.market_overview"))
    )
    noon = MIDNIGHT.replace(hour=12)
    (file,) = lake.snapshot("gold.market_overview").files
    assert file.overlaps(noon, None)
    assert not file.overlaps(noon + timedelta(days=1), None)


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


def test_a_window_and_a_key_open_only_the_files_that_may_hold_the_row(lake: Lake, catalog: Catalog) -> None:
    table = catalog.load_table(NAME)
    for number in range(3):  # ids longer than the 16 characters that Iceberg keeps of a bound by default
        ids = rows(range(4 * number, 4 * number + 4), MIDNIGHT.replace(hour=1)).to_pylist()
        named = [row | {"trade_id": f"t-0123456789abcdef-{row['sequence']:04}"} for row in ids]
        table.append(pa.Table.from_pylist(named, schema=arrow_schema(NAME)))
    wanted = "t-0123456789abcdef-0005"
    hints = Hints(key=wanted)
    assert [len(hints.select(lake.snapshot(NAME).files)), len(lake.snapshot(NAME).files)] == [1, 3]
    sql = f"select sequence from {NAME} where trade_id = ?"
    assert lake.rows(sql, [wanted], hints=hints) == lake.rows(sql, [wanted]) == [{"sequence": 5}]
    assert lake.rows(sql, ["zzz"], hints=Hints(key="zzz")) == []


def test_a_renamed_key_and_event_time_read_right_too(lake: Lake, catalog: Catalog) -> None:
    table = catalog.load_table(NAME)
    table.append(rows(range(2)))
    with table.update_schema() as change:
        change.rename_column("trade_id", "id")
        change.rename_column("timestamp", "traded_at")
    found = lake.rows(f"select id, traded_at from {NAME} where id = 't1'", hints=Hints(key="t1"))
    assert found == [{"id": "t1", "traded_at": MIDNIGHT + timedelta(seconds=1)}]


ENDLESS = "select count(*) from range(1_000_000_000) a, range(1_000_000_000) b where a.range * b.range % 7 = 3"


def test_a_query_that_takes_too_long_is_stopped_and_the_next_one_runs(
    settings: LakehouseSettings, catalog: Catalog
) -> None:
    lake = Lake(settings.model_copy(update={"query_timeout_seconds": 0.2}), catalog)
    with pytest.raises(QueryTimeoutError, match=r"0\.2 s"):
        lake.rows(ENDLESS)
    assert lake.rows("select 1 as one") == [{"one": 1}]
    lake.close()


def test_a_query_that_finds_no_free_session_in_its_time_is_refused(
    settings: LakehouseSettings, catalog: Catalog
) -> None:
    lake = Lake(settings.model_copy(update={"query_timeout_seconds": 0.2}), catalog)
    with contextlib.ExitStack() as stack:
        for _ in range(SESSIONS):
            stack.enter_context(lake.batches("select 1 as one"))
        with pytest.raises(QueryTimeoutError):
            lake.rows("select 1 as one")
    assert lake.rows("select 1 as one") == [{"one": 1}]
    lake.close()


def test_a_caller_cancels_a_query_and_the_others_go_on(lake: Lake, catalog: Catalog) -> None:
    catalog.load_table(NAME).append(rows(range(3)))
    unwanted = Cancellation()
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(lake.rows, ENDLESS, cancellation=unwanted)
        assert lake.rows(f"select count(*) as n from {NAME}") == [{"n": 3}]
        assert not running.done()
        unwanted.cancel()
        with pytest.raises(QueryCancelledError):
            running.result(timeout=10)
    with pytest.raises(QueryCancelledError):
        lake.rows("select 1 as one", cancellation=unwanted)
    assert lake.rows(f"select count(*) as n from {NAME}", cancellation=Cancellation()) == [{"n": 3}]


def test_a_large_result_comes_in_batches_of_one_snapshot(lake: Lake, catalog: Catalog) -> None:
    table = catalog.load_table(NAME)
    table.append(rows(range(60_000), MIDNIGHT - timedelta(hours=20)))
    with lake.batches(f"select * from {NAME}") as batches:
        first = next(batches)
        table.delete("true")
        sizes = [first.num_rows, *(batch.num_rows for batch in batches)]
    assert sum(sizes) == 60_000
    assert max(sizes) <= BATCH_ROWS
    assert lake.rows(f"select count(*) as n from {NAME}") == [{"n": 0}]


def test_a_query_larger_than_the_memory_limit_spills_and_leaves_nothing(
    settings: LakehouseSettings, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    lake = Lake(settings.model_copy(update={"query_memory_limit": "60MB", "query_threads": 1}), catalog)
    sql = "select count(*) as n, max(u) as u from (select u from spread order by u offset 1)"
    rows = lake.rows(f"with spread as (select md5(range::varchar) || range as u from range(1_000_000)) {sql}")
    assert rows[0]["n"] == 999_999
    lake.close()
    assert not list(tmp_path.glob("tickhouse-spilled-*"))


def commit_times(table: Table) -> list[datetime]:
    return [EPOCH + timedelta(milliseconds=entry.timestamp_ms) for entry in table.history()]


def test_a_snapshot_or_a_time_of_the_past_shows_what_was_known_then(lake: Lake, catalog: Catalog) -> None:
    table = catalog.load_table(NAME)
    table.append(rows(range(2)))
    table.append(rows(range(2, 5)))
    first, second = commit_times(table)
    with table.update_schema() as change:
        change.rename_column("sequence", "position")
    table.delete("symbol = 'MSFT'")
    count = f"select count(*) as n, max(position) as newest from {NAME}"
    assert lake.rows(count) == [{"n": 3, "newest": 4}]
    assert lake.at(first).rows(count) == [{"n": 2, "newest": 1}]
    assert lake.at(second).rows(count) == [{"n": 5, "newest": 4}]
    assert lake.at(first - timedelta(seconds=1)).rows(count) == [{"n": 0, "newest": None}]
    assert lake.at(table.history()[1].snapshot_id).rows(count) == [{"n": 5, "newest": 4}]
    assert lake.at(first).snapshot(NAME).snapshot_id == table.history()[0].snapshot_id


def test_a_snapshot_of_one_table_shows_the_others_as_of_its_commit(lake: Lake, catalog: Catalog) -> None:
    trades, books = catalog.load_table(NAME), catalog.load_table("silver.quotes")
    quote = dict.fromkeys(arrow_schema("silver.quotes").names, None)
    quote |= {"event_id": "q", "timestamp": MIDNIGHT, "symbol": "AAPL", "_processed_at": MIDNIGHT}
    quote |= {"best_bid_size": Decimal(1), "best_ask_size": Decimal(1)}
    trades.append(rows(range(2)))
    books.append(pa.Table.from_pylist([quote], schema=arrow_schema("silver.quotes")))
    trades.append(rows(range(2, 4)))
    both = f"select (select count(*) from {NAME}) as trades, (select count(*) from silver.quotes) as quotes"
    first, second = (entry.snapshot_id for entry in trades.history())
    assert lake.at(first).rows(both) == [{"trades": 2, "quotes": 0}]
    assert lake.at(second, [NAME]).rows(both) == [{"trades": 4, "quotes": 1}]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("8271630412345678901", 8271630412345678901),
        ("2026-03-02", datetime(2026, 3, 2, 23, 59, 59, 999999, UTC)),
        ("2026-03-02T12:00:00+02:00", datetime(2026, 3, 2, 10, tzinfo=UTC)),
        ("2026-03-02T12:00", datetime(2026, 3, 2, 12, tzinfo=UTC)),
    ],
)
def test_a_moment_is_written_as_a_snapshot_a_date_or_a_time(text: str, meant: datetime | int) -> None:
    assert parse_as_of(text) == meant


@pytest.mark.parametrize("text", ["yesterday", "", "9999-12-31T23:59:59-23:59", "-8271630412345678901"])
def test_any_other_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no snapshot's id, date"):
        parse_as_of(text)


def test_what_was_expired_says_so(lake: Lake, catalog: Catalog) -> None:
    table = catalog.load_table(NAME)
    for number in range(4):
        table.append(rows(range(number, number + 1)), snapshot_properties={"tickhouse.state.x": "1"})
    history = table.history()
    before = commit_times(table)[0]
    assert expire_snapshots(table, at=3, keep=2) == 2
    with pytest.raises(SnapshotUnknownError, match=f"oldest that is kept is {history[2].snapshot_id}"):
        lake.at(before).rows(f"select * from {NAME}")
    with pytest.raises(SnapshotUnknownError, match=f"no snapshot of {NAME}"):
        lake.at(history[0].snapshot_id, [NAME])
    assert lake.at(commit_times(table)[-1]).rows(f"select count(*) as n from {NAME}") == [{"n": 4}]


def overview(day: int) -> pa.Table:
    row: dict[str, Any] = dict.fromkeys(arrow_schema("gold.market_overview").names, day)
    row |= {"trading_date": MIDNIGHT.date() + timedelta(days=day), "_aggregated_at": MIDNIGHT}
    return pa.Table.from_pylist([row], schema=arrow_schema("gold.market_overview"))


def test_gold_is_read_from_memory_until_its_head_moves(lake: Lake, catalog: Catalog) -> None:
    table = catalog.load_table("gold.market_overview")
    sql = "select count(*) as n from gold.market_overview"
    for number in range(1, 4):
        table.append(overview(number))
        assert lake.rows(sql) == [{"n": number}]
    for file in lake.snapshot("gold.market_overview").files:
        Path(file.path).unlink()
    assert lake.rows(sql) == [{"n": 3}]
    copies = "select count(*) as n from duckdb_tables() where database_name = 'resident'"
    assert lake.rows(copies) == [{"n": 1}]


def test_a_copy_in_memory_lives_as_long_as_a_query_reads_it(lake: Lake, catalog: Catalog) -> None:
    table = catalog.load_table("gold.market_overview")
    table.append(overview(1))
    sql = "select trading_date from gold.market_overview"
    with lake.batches(sql) as batches:
        table.append(overview(2))
        assert len(lake.rows(sql)) == 2
        assert batches.read_all().num_rows == 1
    assert lake.rows("select count(*) as n from duckdb_tables() where database_name = 'resident'") == [{"n": 1}]


def test_gold_that_is_too_large_for_memory_is_read_from_its_files(
    lake: Lake, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lakehouse.resident.MAX_ROWS", 1)
    table = catalog.load_table("gold.market_overview")
    table.append(overview(1))
    table.append(overview(2))
    assert lake.rows("select count(*) as n from gold.market_overview") == [{"n": 2}]
    assert lake.rows("select count(*) as n from duckdb_tables() where database_name = 'resident'") == [{"n": 0}]


def test_a_program_with_a_duckdb_of_its_own_gets_every_table_as_a_view(catalog: Catalog, tmp_path: Path) -> None:
    table = catalog.load_table(NAME)
    table.append(rows(range(2)))
    file = tmp_path / "bi.duckdb"
    with duckdb.connect(str(file)) as connection:
        shown = create_views(connection, catalog)
        assert shown.keys() == TABLES.keys()
        assert shown[NAME] == table.current_snapshot().snapshot_id  # type: ignore[union-attr]
    table.append(rows(range(2, 3)))
    count = f"select count(*), sum(price) from {NAME}"
    with duckdb.connect(str(file)) as connection:
        assert connection.execute(count).fetchone() == (2, Decimal("123601.40000000"))
        assert connection.execute("select count(*) from gold.minute_bars").fetchone() == (0,)
        create_views(connection, catalog)
        assert connection.execute(count).fetchone() == (3, Decimal("185403.60000000"))
        create_views(connection, catalog, [NAME], AsOf(commit_times(table)[0]))
        assert connection.execute(count).fetchone() == (2, Decimal("123601.40000000"))


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
