"""Compaction: fewer files, the same rows; beside writers, readers and crashes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitStateUnknownException
from pyiceberg.table.snapshots import Operation

from lakehouse.batch import BatchSession
from lakehouse.dimensions.step import seed_dimensions
from lakehouse.duck import data_files_sql
from lakehouse.evolution import evolve
from lakehouse.gold.step import publish
from lakehouse.gold.traders import publish_traders
from lakehouse.maintenance import compaction
from lakehouse.maintenance.compaction import Compacted, compact, is_sorted, live_entries, worth_joining
from lakehouse.silver.activity import refine_activity
from lakehouse.silver.events import refine_orderbook, refine_orders, refine_quotes, refine_trades
from lakehouse.snapshots import local_path
from lakehouse.spec import Column
from lakehouse.state import committed_offsets
from lakehouse.tables import TABLES
from tests.lakehouse.conftest import MARKET_OPEN, Bronze, CommitFaults

NAME = "bronze.trades"
YESTERDAY = MARKET_OPEN - timedelta(days=1)


RUNS, REMOVED = "tickhouse_maintenance_runs_total", "tickhouse_maintenance_files_removed_total"


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def contents(catalog: Catalog, name: str = NAME, snapshot_id: int | None = None) -> list[dict[str, Any]]:
    rows = catalog.load_table(name).scan(snapshot_id=snapshot_id).to_arrow()
    key = [(column, "ascending") for column in TABLES[name].key]
    return list(rows.sort_by(key).to_pylist())


def files(catalog: Catalog, name: str = NAME) -> dict[date, list[int]]:
    """Day → sequence numbers of its files."""
    found: dict[date, list[int]] = {}
    for entry in live_entries(catalog.load_table(name)):
        day = date(1970, 1, 1) + timedelta(days=entry.data_file.partition[0])
        found.setdefault(day, []).append(entry.sequence_number or 0)
    return {day: sorted(numbers) for day, numbers in found.items()}


def two_days(bronze: Bronze, commits: int = 4) -> None:
    for number in range(commits):
        bronze.trades(
            {"symbol": "TSLA", "timestamp": YESTERDAY + timedelta(seconds=number)}, {"timestamp": YESTERDAY}
        )
    bronze.trades({})


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """No step follows the tables."""
    for name, spec in TABLES.items():
        monkeypatch.setitem(TABLES, name, replace(spec, follows=()))


@pytest.mark.usefixtures("alone")
def test_a_past_day_becomes_one_sorted_file_with_the_same_rows(
    session: BatchSession, catalog: Catalog, bronze: Bronze
) -> None:
    two_days(bronze)
    before = contents(catalog)
    labels = {"table": NAME, "operation": "compaction"}
    runs, replaced = counted(RUNS, **labels, outcome="done"), counted(REMOVED, **labels)
    report = compact(session, NAME)
    assert counted(RUNS, **labels, outcome="done") == runs + 1
    assert counted(REMOVED, **labels) == replaced + 4
    assert report == Compacted(NAME, 1, 8, 4, 1, bytes_before=report.bytes_before, bytes_after=report.bytes_after)
    assert report.bytes_after < report.bytes_before
    assert contents(catalog) == before
    assert files(catalog) == {YESTERDAY.date(): [4], MARKET_OPEN.date(): [5]}
    table = catalog.load_table(NAME)
    (compacted,) = (e.data_file for e in live_entries(table) if e.sequence_number == 4)
    rows = pq.read_table(local_path(compacted.file_path))
    assert rows["symbol"].to_pylist() == ["AAPL"] * 4 + ["TSLA"] * 4
    assert is_sorted(table, compacted)
    head = table.current_snapshot()
    assert head is not None
    assert head.summary is not None
    assert head.summary.operation == Operation.OVERWRITE
    assert head.summary["total-records"] == "9"
    assert compact(session, NAME) == Compacted(NAME), "nothing is left to do"


@pytest.mark.usefixtures("unread")
def test_a_compacted_file_is_encoded_as_those_it_replaces(session: BatchSession, bronze: Bronze) -> None:
    bronze.trades({})
    refine_trades(session)
    bronze.trades({})
    refine_trades(session)

    def encodings() -> dict[str, set[str]]:
        entry = live_entries(session.catalog.load_table("silver.trades"))[0]
        group = pq.read_metadata(local_path(entry.data_file.file_path)).row_group(0)
        columns = [group.column(number) for number in range(group.num_columns)]
        return {column.path_in_schema: set(column.encodings) for column in columns}

    before = encodings()
    assert before["timestamp"] == {"RLE", "DELTA_BINARY_PACKED"}
    assert before["trade_id"] == {"RLE", "PLAIN"}
    assert "RLE_DICTIONARY" in before["symbol"]
    assert compact(session, "silver.trades", fewest_files=2).files_before == 2
    assert encodings() == before


@pytest.mark.usefixtures("alone")
def test_a_late_row_joins_its_day_and_the_rest_is_left_alone(
    session: BatchSession, catalog: Catalog, bronze: Bronze
) -> None:
    two_days(bronze)
    compact(session, NAME)
    bronze.trades({"timestamp": YESTERDAY})
    report = compact(session, NAME)
    assert (report.files_before, report.files_after, report.rows) == (2, 1, 9)
    assert files(catalog) == {YESTERDAY.date(): [7], MARKET_OPEN.date(): [5]}


@pytest.mark.usefixtures("alone")
def test_the_open_day_waits_for_enough_files(session: BatchSession, catalog: Catalog, bronze: Bronze) -> None:
    for _ in range(3):
        bronze.trades({})
    assert compact(session, NAME, fewest_files=4) == Compacted(NAME)
    bronze.trades({})
    assert compact(session, NAME, fewest_files=4).files_before == 4
    assert files(catalog) == {MARKET_OPEN.date(): [4]}


@given(st.lists(st.integers(1, 100), min_size=1, max_size=400), st.integers(1, 20))
def test_a_row_of_the_open_day_is_rewritten_a_few_times_and_few_files_are_left(
    arriving: list[int], run_every: int
) -> None:
    sizes: list[int] = []
    rewritten = 0
    for number, size in enumerate(arriving, 1):
        sizes.append(size)
        if number % run_every == 0:
            sizes.sort()
            joined = worth_joining(sizes, 4)
            rewritten += sum(sizes[:joined])
            sizes = [sum(sizes[:joined]), *sizes[joined:]] if joined else sizes
    total = sum(arriving)
    assert sum(sizes) == total
    assert rewritten <= total * (math.log2(total) + 1)
    assert len(sizes) <= run_every + 4 + 2 * math.log2(total)


@pytest.mark.usefixtures("alone")
def test_files_are_near_the_target_and_hold_ranges_of_the_sort_order(
    session: BatchSession, catalog: Catalog, bronze: Bronze, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "ROW_GROUP", 2048)
    for part in range(4):
        bronze.trades(
            *(
                {"symbol": f"S{n % 7}", "event_id": f"{n * 2654435761 % 2**32:x}-{part}", "timestamp": YESTERDAY}
                for n in range(4096)
            )
        )
    bronze.trades({})
    size = sum(e.data_file.file_size_in_bytes for e in live_entries(catalog.load_table(NAME)))
    report = compact(session, NAME, target_bytes=size // 4)
    assert (report.rows, report.files_before, report.files_after) == (16384, 4, 4)
    table = catalog.load_table(NAME)
    ranges = []
    for entry in live_entries(table):
        if is_sorted(table, entry.data_file):
            file = pq.ParquetFile(local_path(entry.data_file.file_path))
            assert file.num_row_groups == 2
            symbols = file.read(columns=["symbol"])["symbol"].to_pylist()
            assert symbols == sorted(symbols)
            ranges.append((symbols[0], symbols[-1]))
    ranges.sort()
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(ranges))


@pytest.mark.usefixtures("alone")
def test_columns_that_were_added_and_renamed_since_come_out_right(
    session: BatchSession, catalog: Catalog, bronze: Bronze
) -> None:
    two_days(bronze)
    spec = TABLES[NAME]
    columns = [Column("ticker", c.type, c.doc, was="symbol") if c.name == "symbol" else c for c in spec.columns]
    added = Column("note", spec.columns[0].type, "Note", required=False)
    evolve(catalog.load_table(NAME), replace(spec, columns=(added, *columns), sort_by=("ticker", "timestamp")))
    before = contents(catalog)
    assert compact(session, NAME).files_after == 1
    assert contents(catalog) == before
    assert {row["ticker"] for row in before} == {"AAPL", "TSLA"}
    assert {row["note"] for row in before} == {None}


def test_nested_columns_come_out_right(session: BatchSession, catalog: Catalog, bronze: Bronze) -> None:
    name = "bronze.orderbook_snapshots"
    for price in ("1.5", "2.5"):
        bronze.books({"bids": [(price, 3), ("1.25", 4)], "timestamp": YESTERDAY})
    bronze.books({})
    refine_orderbook(session)
    before = contents(catalog, name)
    assert compact(session, name).files_before == 2
    assert contents(catalog, name) == before


def test_a_table_without_partitions_or_rows(session: BatchSession, catalog: Catalog) -> None:
    assert compact(session, NAME) == Compacted(NAME)
    before = contents(catalog, "dimensions.dim_symbol")
    assert compact(session, "dimensions.dim_symbol", fewest_files=1).groups == 0
    assert contents(catalog, "dimensions.dim_symbol") == before


# --- beside the steps that follow the table


def test_what_silver_has_not_read_is_left_as_it_was_written(
    session: BatchSession, catalog: Catalog, bronze: Bronze
) -> None:
    two_days(bronze)
    assert compact(session, NAME) == Compacted(NAME), "silver has read nothing yet"
    assert refine_trades(session).new == 9
    bronze.trades({"timestamp": YESTERDAY})
    assert compact(session, NAME).files_before == 4
    assert files(catalog)[YESTERDAY.date()] == [4, 6]
    result = refine_trades(session)
    assert (result.arrived, result.new) == (1, 1), "the compacted file is not read again"


def test_orders_do_not_wait_for_the_weekly_look_at_their_agents(
    session: BatchSession, catalog: Catalog, bronze: Bronze
) -> None:
    for number in range(3):
        bronze.orders({"agent_id": f"new-{number}", "agent_type": "RetailTrader", "timestamp": YESTERDAY})
    bronze.orders({})
    refine_orders(session)
    assert compact(session, "bronze.orders").files_before == 3
    seed_dimensions(session)
    agents = set(catalog.load_table("dimensions.dim_trader").scan().to_arrow()["agent_id"].to_pylist())
    assert agents >= {"new-0", "new-1", "new-2"}


def test_quotes_wait_for_the_market_overview_which_follows_them_beside_trades(
    session: BatchSession, bronze: Bronze
) -> None:
    bronze.trades({"timestamp": YESTERDAY})
    refine_trades(session)
    bronze.quotes({})  # of today: yesterday is over
    for _ in range(3):
        bronze.quotes({"timestamp": YESTERDAY})
        refine_quotes(session)
        assert compact(session, "silver.quotes").files_before == 0, "the overview has read none"
    publish(session)
    bronze.quotes({"timestamp": YESTERDAY})
    refine_quotes(session)
    assert compact(session, "silver.quotes").files_before == 3, "and now three of them"
    assert publish(session).days == (YESTERDAY.date(),)
    assert publish(session).days == (), "the compacted file is not read again"


@pytest.mark.usefixtures("unread")
def test_a_row_that_was_not_read_when_its_file_was_compacted_is_still_read_once(
    session: BatchSession, catalog: Catalog, bronze: Bronze
) -> None:
    bronze.trades({"timestamp": YESTERDAY})
    refine_trades(session)
    bronze.trades({"timestamp": YESTERDAY})
    bronze.trades({})
    assert compact(session, NAME).files_before == 2
    result = refine_trades(session)
    assert (result.arrived, result.new, result.duplicates) == (2, 2, 0)


def test_compaction_of_silver_touches_no_day_of_gold(
    session: BatchSession, catalog: Catalog, bronze: Bronze
) -> None:
    for _ in range(3):
        bronze.trades({"timestamp": YESTERDAY})
        refine_trades(session)
    bronze.trades({})
    refine_trades(session)
    assert compact(session, "silver.trades") == Compacted("silver.trades"), "gold has read nothing yet"
    assert publish(session).days == (YESTERDAY.date(), MARKET_OPEN.date())
    refine_activity(session)
    publish_traders(session)
    assert compact(session, "silver.trades").files_before == 3
    assert publish(session).days == refine_activity(session).days == publish_traders(session).days == ()


# --- beside writers


@pytest.fixture
def before_commit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Has something happen between compaction's reading and its commit, once."""
    replace_files = compaction._replace

    def arrange(what: Callable[[], None]) -> None:
        def then(*arguments: Any) -> bool:
            what()
            return replace_files(*arguments)

        monkeypatch.setattr(compaction, "_replace", then)

    return arrange


BeforeCommit = Callable[[Callable[[], None]], None]


@pytest.mark.usefixtures("alone")
def test_an_append_in_between_is_kept_and_its_offsets_too(
    session: BatchSession, catalog: Catalog, bronze: Bronze, before_commit: BeforeCommit
) -> None:
    two_days(bronze)
    before_commit(lambda: bronze.trades({"timestamp": YESTERDAY}, {}))
    assert compact(session, NAME).groups == 1
    assert len(contents(catalog)) == 11
    assert files(catalog) == {YESTERDAY.date(): [4, 6], MARKET_OPEN.date(): [5, 6]}
    assert committed_offsets(catalog.load_table(NAME)) == {"raw.trades": {0: 11}}


@pytest.mark.usefixtures("alone")
def test_it_yields_to_a_writer_that_replaced_the_same_files(
    session: BatchSession, catalog: Catalog, bronze: Bronze, before_commit: BeforeCommit
) -> None:
    two_days(bronze)
    before_commit(lambda: catalog.load_table(NAME).delete("symbol = 'TSLA'"))
    given_up = counted("tickhouse_maintenance_yielded_total", table=NAME)
    assert compact(session, NAME) == Compacted(NAME, yielded=1)
    assert counted("tickhouse_maintenance_yielded_total", table=NAME) == given_up + 1
    assert [row["symbol"] for row in contents(catalog)] == ["AAPL"] * 5


@pytest.mark.usefixtures("alone")
def test_an_answer_that_was_lost_is_found_in_the_table(
    session: BatchSession, catalog: Catalog, bronze: Bronze, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_days(bronze)
    before = contents(catalog)
    commit = SqlCatalog.commit_table

    def lose_the_answer(self: SqlCatalog, *arguments: Any) -> Any:
        commit(self, *arguments)
        monkeypatch.setattr(SqlCatalog, "commit_table", commit)
        raise CommitStateUnknownException("the answer was lost")

    monkeypatch.setattr(SqlCatalog, "commit_table", lose_the_answer)
    assert compact(session, NAME).groups == 1
    assert contents(catalog) == before
    assert len(catalog.load_table(NAME).metadata.snapshots) == 6, "not committed twice"


# --- crashes


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("point", ["reading", "writing", "before", "after"])
def test_a_crash_leaves_the_table_before_or_after_and_the_next_run_ends_it(
    session: BatchSession,
    catalog: Catalog,
    bronze: Bronze,
    commit_faults: CommitFaults,
    monkeypatch: pytest.MonkeyPatch,
    point: Any,
) -> None:
    two_days(bronze)
    before, head = contents(catalog), catalog.load_table(NAME).metadata_location

    def die(*_: Any, **__: Any) -> Any:
        raise ProcessLookupError(f"killed while {point}")

    with monkeypatch.context() as patched:
        if point == "reading":
            patched.setattr(compaction, "data_files_sql", die)
        elif point == "writing":
            patched.setattr(compaction.FileWriter, "finish", die)
        else:
            commit_faults.at_next_commit(NAME, point)
        with pytest.raises(ProcessLookupError):
            compact(session, NAME)
    assert (catalog.load_table(NAME).metadata_location == head) is (point != "after")
    assert contents(catalog) == before
    compact(session, NAME)
    assert contents(catalog) == before
    assert files(catalog)[YESTERDAY.date()] == [4]


@pytest.mark.usefixtures("alone")
def test_rows_that_went_missing_while_rewriting_are_never_committed(
    session: BatchSession, catalog: Catalog, bronze: Bronze, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_days(bronze)
    before = contents(catalog)
    monkeypatch.setattr(compaction, "data_files_sql", lambda source, files: data_files_sql(source, files[:-1]))
    with pytest.raises(RuntimeError, match="hold 6 rows, and their manifests say 8"):
        compact(session, NAME)
    assert contents(catalog) == before
