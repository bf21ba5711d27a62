"""silver.trades: once each, judged, enriched, whatever is redelivered or interrupted."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lakehouse.batch import BatchSession
from lakehouse.dimensions.dim_symbol import SymbolInfo, read_symbols, seed_dim_symbol
from lakehouse.quality.gate import ContractViolationError
from lakehouse.silver.events import TRADES, refine_trades
from lakehouse.silver.step import refine, totals

MIDNIGHT = datetime(2026, 3, 13, tzinfo=UTC)
NOON = MIDNIGHT + timedelta(hours=12)
LATE = MIDNIGHT + timedelta(days=3)


def rows(session: BatchSession, table: str) -> list[dict[str, Any]]:
    return session.catalog.load_table(table).scan().to_arrow().to_pylist()


def ids(session: BatchSession) -> Counter[str]:
    return Counter(row["trade_id"] for row in rows(session, "silver.trades"))


def test_a_trade_is_enriched_with_its_company(session: BatchSession, bronze: Any) -> None:
    bronze.trades({"symbol": "AAPL", "price": Decimal("185.00000001"), "quantity": Decimal("0.00000003")})
    result = refine_trades(session)
    assert (result.arrived, result.new, result.duplicates, result.rejected) == (1, 1, 0, 0)
    (trade,) = rows(session, "silver.trades")
    assert trade["company_name"] == "Apple Inc."
    assert trade["sector"] == "Technology"
    assert trade["market_cap_category"] == "large"
    assert trade["price"] == Decimal("185.00000001")
    assert trade["quantity"] == Decimal("0.00000003")
    assert trade["is_aggressive_buy"] is True
    assert trade["_processed_at"] == session.clock()


def test_a_symbol_without_company_is_kept_with_nulls(session: BatchSession, bronze: Any) -> None:
    bronze.trades({"symbol": "BTCUSDT"})
    refine_trades(session)
    (trade,) = rows(session, "silver.trades")
    assert (trade["company_name"], trade["sector"], trade["market_cap_category"]) == (None, None, None)


def test_a_trade_gets_the_company_of_its_own_time(session: BatchSession, bronze: Any) -> None:
    seed_dim_symbol(session.catalog, [SymbolInfo("AAPL", "Apple Renamed", "Technology", "large")], as_of=NOON)
    bronze.trades({"timestamp": NOON - timedelta(microseconds=1)}, {"timestamp": NOON})
    refine_trades(session)
    names = {row["trade_id"]: row["company_name"] for row in rows(session, "silver.trades")}
    assert names == {"trade-0": "Apple Inc.", "trade-1": "Apple Renamed"}


def test_an_unknown_symbol_gets_its_company_once_the_dimension_knows_it(
    session: BatchSession, bronze: Any
) -> None:
    bronze.trades(
        {"symbol": "NEW", "timestamp": NOON - timedelta(days=1)}, {"symbol": "NEW"}, {}, {"symbol": "OTHER"}
    )
    assert refine_trades(session).unknown == 3
    known = session.catalog.load_table("silver.trades").metadata.current_snapshot_id
    seed_dim_symbol(session.catalog, [*read_symbols(), SymbolInfo("NEW", "New Inc.", "Energy", "mid")], as_of=NOON)
    result = refine_trades(session)
    assert result.reenriched == ((NOON - timedelta(days=1)).date(), NOON.date())
    companies = Counter((row["symbol"], row["company_name"]) for row in rows(session, "silver.trades"))
    assert companies == {("NEW", "New Inc."): 2, ("AAPL", "Apple Inc."): 1, ("OTHER", None): 1}
    head = session.catalog.load_table("silver.trades").metadata.current_snapshot_id
    assert refine_trades(session).reenriched == ()
    assert session.catalog.load_table("silver.trades").metadata.current_snapshot_id == head
    before = session.catalog.load_table("silver.trades").scan(snapshot_id=known).to_arrow()
    assert before["company_name"].null_count == 3


def test_a_change_told_late_corrects_the_trades_since(session: BatchSession, bronze: Any) -> None:
    bronze.trades({"timestamp": MIDNIGHT}, {"timestamp": NOON}, {"timestamp": NOON - timedelta(days=1)})
    refine_trades(session)
    told = [*read_symbols(), SymbolInfo("AAPL", "Apple Renamed", "Technology", "large", NOON.isoformat())]
    seed_dim_symbol(
        session.catalog, [info for info in told if info.symbol != "AAPL" or info.valid_from], as_of=LATE
    )
    assert refine_trades(session).reenriched == (NOON.date(),)
    names = {row["trade_id"]: row["company_name"] for row in rows(session, "silver.trades")}
    assert names == {"trade-0": "Apple Inc.", "trade-1": "Apple Renamed", "trade-2": "Apple Inc."}


def test_everything_that_arrived_is_accounted_for(session: BatchSession, bronze: Any) -> None:
    bronze.trades({"trade_id": "a"}, {"trade_id": "a"}, {"price": Decimal(0)}, {})
    refine_trades(session)
    bronze.trades({"trade_id": "a"}, {}, {"trade_id": "a", "price": Decimal(7)})
    refine_trades(session)
    silver = session.catalog.load_table("silver.trades")
    sums = totals(silver)
    assert (sums.arrived, sums.new, sums.duplicates, sums.rejected) == (7, 3, 2, 2)
    assert sums.arrived == len(rows(session, "bronze.trades"))
    assert sums.new == len(rows(session, "silver.trades"))
    assert sums.rejected == len(rows(session, "silver.rejected_records"))
    head = silver.current_snapshot()
    assert head is not None
    assert head.summary is not None
    counts = {name: head.summary[f"tickhouse.{name}"] for name in ("arrived", "new", "duplicates", "rejected")}
    assert counts == {"arrived": "3", "new": "1", "duplicates": "1", "rejected": "1"}


def test_running_again_changes_nothing(session: BatchSession, bronze: Any) -> None:
    bronze.trades({}, {}, {})
    first = refine_trades(session)
    again = refine_trades(session)
    assert again.arrived == 0
    assert again.snapshot_id == first.snapshot_id
    assert ids(session).total() == 3


def test_only_what_arrived_since_is_read(session: BatchSession, bronze: Any) -> None:
    bronze.trades({}, {})
    refine_trades(session)
    bronze.trades({}, {}, {})
    assert refine_trades(session).arrived == 3
    assert ids(session).total() == 5


def test_redelivered_trades_are_dropped_within_a_batch_and_after_it(session: BatchSession, bronze: Any) -> None:
    first = {"trade_id": "a", "event_id": "e"}
    bronze.trades(first, first, {"trade_id": "b"})
    assert refine_trades(session).duplicates == 1
    bronze.trades({"trade_id": "b"}, first, {"trade_id": "c"})
    result = refine_trades(session)
    assert (result.new, result.duplicates, result.rejected) == (1, 2, 0)
    assert ids(session) == {"a": 1, "b": 1, "c": 1}


def test_an_id_that_comes_again_with_other_content_is_rejected(session: BatchSession, bronze: Any) -> None:
    bronze.trades({"trade_id": "a", "price": Decimal(10)}, {"trade_id": "a", "price": Decimal(11)})
    refine_trades(session)
    bronze.trades({"trade_id": "a", "price": Decimal(12)})
    assert refine_trades(session).rejected == 1
    assert [row["price"] for row in rows(session, "silver.trades")] == [Decimal(10)]
    rejected = rows(session, "silver.rejected_records")
    assert {(row["_kafka_offset"], row["rule"]) for row in rejected} == {
        (1, "trade_id_unique"),
        (2, "trade_id_unique"),
    }


def test_an_id_that_comes_again_on_another_day_is_rejected(session: BatchSession, bronze: Any) -> None:
    bronze.trades({"trade_id": "a"}, {"trade_id": "b", "timestamp": NOON - timedelta(days=9)})
    refine_trades(session)
    bronze.trades({"trade_id": "a", "timestamp": NOON - timedelta(days=9)}, {"trade_id": "b", "timestamp": NOON})
    result = refine_trades(session)
    assert (result.new, result.rejected) == (0, 2)
    assert ids(session) == {"a": 1, "b": 1}


def test_only_files_that_may_hold_an_arrived_id_are_opened(session: BatchSession, bronze: Any) -> None:
    """Silver files with other ids are gone from the disk: a step that opened one of them would fail."""
    for number in range(3):
        bronze.trades(*({"trade_id": f"t-{number}{n}"} for n in range(3)))
        refine_trades(session)
    silver = session.catalog.load_table("silver.trades")
    for file in session.manifests.files("silver.trades", silver).files:
        if file.first_key != "t-10":
            Path(file.path).unlink()
    bronze.trades({"trade_id": "t-11"}, {"trade_id": "t-40", "timestamp": NOON + timedelta(hours=5)})
    result = refine_trades(session)
    assert (result.new, result.duplicates) == (1, 1)


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        ({"price": Decimal(0)}, "price_positive"),
        ({"price": Decimal("-5.00000001")}, "price_positive"),
        ({"quantity": Decimal(0)}, "quantity_positive"),
        ({"trade_id": ""}, "trade_id_present"),
        ({"symbol": ""}, "symbol_present"),
    ],
)
def test_a_row_that_breaks_a_rule_is_kept_apart_with_the_rule(
    session: BatchSession, bronze: Any, broken: dict[str, Any], rule: str
) -> None:
    bronze.trades({"trade_id": "good"}, broken)
    result = refine_trades(session)
    assert (result.new, result.rejected) == (1, 1)
    assert ids(session) == {"good": 1}
    (record,) = rows(session, "silver.rejected_records")
    assert record["rule"] == rule
    assert (record["source_table"], record["_kafka_offset"]) == ("bronze.trades", 1)
    for name, value in broken.items():
        kept = json.loads(record["record"])[name]
        assert kept == value if isinstance(value, str) else Decimal(kept) == value


def test_a_broken_copy_does_not_push_out_a_valid_trade(session: BatchSession, bronze: Any) -> None:
    bronze.trades({"trade_id": "a", "price": Decimal(0)}, {"trade_id": "a"})
    refine_trades(session)
    assert ids(session) == {"a": 1}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("table", ["silver.rejected_records", "quality.check_results", "silver.trades"])
def test_a_crash_at_a_commit_loses_and_doubles_nothing(
    session: BatchSession, bronze: Any, commit_faults: Any, table: str, when: str
) -> None:
    bronze.trades({}, {"price": Decimal(0)}, {})
    commit_faults.at_next_commit(table, when)
    with pytest.raises(ProcessLookupError):
        refine_trades(session)
    bronze.trades({})
    refine_trades(session)
    assert ids(session) == {"trade-0": 1, "trade-2": 1, "trade-3": 1}
    assert [row["_kafka_offset"] for row in rows(session, "silver.rejected_records")] == [1]


def test_a_rival_that_did_the_same_work_meanwhile_doubles_nothing(session: BatchSession, bronze: Any) -> None:
    bronze.trades({}, {})
    rivals = [session]

    def clock() -> datetime:
        if rivals:
            refine_trades(rivals.pop())
        return NOON

    result = refine_trades(replace(session, clock=clock))
    assert result.arrived == 0
    assert ids(session) == {"trade-0": 1, "trade-1": 1}


def test_a_backlog_is_worked_off_in_portions_and_survives_a_crash_between_them(
    session: BatchSession, bronze: Any, commit_faults: Any
) -> None:
    for day in range(4):
        bronze.trades({"timestamp": MIDNIGHT + timedelta(days=day)}, {"timestamp": NOON + timedelta(days=day)})
    commits: list[int] = []

    def clock() -> datetime:
        commits.append(len(commits))
        if len(commits) == 3:
            commit_faults.at_next_commit("silver.trades", "before")
        return NOON

    with pytest.raises(ProcessLookupError):
        refine(replace(session, clock=clock), TRADES, portion_rows=2)
    assert ids(session).total() == 4
    result = refine(session, TRADES, portion_rows=2)
    assert (result.new, result.duplicates) == (4, 0)  # the first two portions were not read again
    assert ids(session) == {f"trade-{i}": 1 for i in range(8)}
    assert refine_trades(session).arrived == 0


def test_rows_that_break_the_contract_stop_the_layer_and_nothing_is_published(
    session: BatchSession, bronze: Any
) -> None:
    dimension = session.catalog.load_table("dimensions.dim_symbol")
    good = dimension.scan().to_arrow()
    dimension.append(good)  # every symbol valid twice: each trade would be doubled
    bronze.trades({"trade_id": "a"}, {"trade_id": "b"})
    with pytest.raises(ContractViolationError) as caught:
        refine_trades(session)
    message = str(caught.value)
    assert "trade_id: No duplicate values: failed on 2 of 4 rows, for example " in message
    assert "trade_id=a" in message or "trade_id=b" in message
    assert rows(session, "silver.trades") == []
    failed = [row for row in rows(session, "quality.check_results") if row["outcome"] == "failed"]
    assert [(row["check_name"], row["severity"]) for row in failed] == [
        ("columns.trade_id.checks.duplicate", "critical")
    ]

    dimension.overwrite(good)
    assert refine_trades(session).new == 2
    assert ids(session) == {"a": 1, "b": 1}


def test_the_time_zone_of_the_machine_does_not_matter(
    session: BatchSession, bronze: Any, machine_time_zone: str
) -> None:
    edge = MIDNIGHT - timedelta(microseconds=1)
    bronze.trades({"trade_id": "a", "timestamp": edge}, {"trade_id": "b", "timestamp": MIDNIGHT})
    refine_trades(session)
    bronze.trades({"trade_id": "a", "timestamp": edge}, {"trade_id": "b", "timestamp": MIDNIGHT})
    assert refine_trades(session).duplicates == 2
    assert {row["trade_id"]: row["timestamp"] for row in rows(session, "silver.trades")} == {
        "a": edge,
        "b": MIDNIGHT,
    }
