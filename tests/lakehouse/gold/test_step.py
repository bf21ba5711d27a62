"""Gold follows silver: whole days, one commit a table, whatever is late or interrupted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from lakehouse.batch import BatchSession
from lakehouse.duck import snapshot_sql
from lakehouse.gold import step
from lakehouse.gold.step import MARKET, TABLES, compute, publish
from lakehouse.gold.traders import PERFORMANCE, POSITIONS, publish_traders
from lakehouse.maintenance.compaction import compact
from lakehouse.quality.gate import ContractViolationError
from lakehouse.reading import read_batches
from lakehouse.silver.activity import TARGET as ACTIVITY
from lakehouse.silver.activity import refine_activity
from lakehouse.silver.events import refine_quotes, refine_trades
from lakehouse.snapshots import snapshot_at
from lakehouse.tables import arrow_schema

MONDAY = datetime(2026, 3, 9, 12, tzinfo=UTC)
TUESDAY = MONDAY + timedelta(days=1)


def rows(session: BatchSession, table: str) -> list[dict[str, Any]]:
    return session.catalog.load_table(table).scan().to_arrow().to_pylist()


def heads(session: BatchSession) -> dict[str, int | None]:
    return {name: session.catalog.load_table(name).metadata.current_snapshot_id for name in TABLES}


def content(session: BatchSession, table: str) -> list[dict[str, Any]]:
    """Rows without the time they were written, in an order of their own."""
    when = {"_aggregated_at", "_processed_at"}
    kept = [{k: v for k, v in row.items() if k not in when} for row in rows(session, table)]
    return sorted(kept, key=repr)


def days(session: BatchSession) -> dict[date, dict[str, Any]]:
    return {row["trading_date"]: row for row in rows(session, "gold.daily_trading_summary")}


def test_nothing_in_silver_is_nothing_to_do(session: BatchSession) -> None:
    assert publish(session).days == ()


def test_running_again_changes_nothing(session: BatchSession, bronze: Any) -> None:
    bronze.trades({"timestamp": MONDAY}, {"timestamp": TUESDAY})
    refine_trades(session)
    assert publish(session).days == (MONDAY.date(), TUESDAY.date())
    before = heads(session)
    assert publish(session).days == ()
    assert heads(session) == before


def test_a_late_trade_of_a_past_day_changes_that_day_only(session: BatchSession, bronze: Any) -> None:
    bronze.trades({"timestamp": MONDAY, "price": Decimal(10)}, {"timestamp": TUESDAY, "price": Decimal(20)})
    refine_trades(session)
    publish(session)
    bronze.trades({"timestamp": MONDAY - timedelta(hours=1), "price": Decimal(8)})
    later = replace(session, clock=lambda: session.clock() + timedelta(hours=1))
    refine_trades(later)
    assert publish(later).days == (MONDAY.date(),)
    found = days(session)
    assert (found[MONDAY.date()]["open_price"], found[MONDAY.date()]["trade_count"]) == (Decimal(8), 2)
    assert found[MONDAY.date()]["_aggregated_at"] == later.clock()
    assert found[TUESDAY.date()]["_aggregated_at"] == session.clock()
    assert len(rows(session, "gold.minute_bars")) == 3
    assert {row["trading_date"]: row["total_trades"] for row in rows(session, "gold.market_overview")} == {
        MONDAY.date(): 2,
        TUESDAY.date(): 1,
    }


def test_what_was_known_before_a_late_trade_can_still_be_read(session: BatchSession, bronze: Any) -> None:
    bronze.trades({"timestamp": MONDAY, "price": Decimal(10)})
    refine_trades(session)
    publish(session)
    name = "gold.daily_trading_summary"
    table = session.catalog.load_table(name)
    known = session.catalog.load_table(name).scan().to_arrow().to_pylist()
    then = datetime.fromtimestamp(table.metadata.snapshots[-1].timestamp_ms / 1000, UTC)
    bronze.trades({"timestamp": MONDAY - timedelta(hours=1), "price": Decimal(8)})
    refine_trades(session)
    publish(session)
    assert days(session)[MONDAY.date()]["open_price"] == Decimal(8)
    table = session.catalog.load_table(name)
    snapshot = session.manifests.files_of(name, table, snapshot_at(name, table, then))
    seen = session.connection.execute(snapshot_sql(snapshot, snapshot.files)).to_arrow_table()
    assert seen.cast(arrow_schema(name)).to_pylist() == known


def test_the_spread_is_the_mean_of_what_the_symbols_quote_on_average(session: BatchSession, bronze: Any) -> None:
    def quote(bid: str | None, ask: str | None, symbol: str = "AAPL", when: datetime = MONDAY) -> None:
        prices = {"best_bid": bid and Decimal(bid), "best_ask": ask and Decimal(ask)}
        bronze.quotes({"symbol": symbol, "timestamp": when, **prices})
        refine_quotes(session)

    def spreads() -> dict[date, float | None]:
        return {row["trading_date"]: row["avg_spread_bps"] for row in rows(session, MARKET)}

    bronze.trades({"timestamp": MONDAY}, {"timestamp": TUESDAY})
    refine_trades(session)
    quote("99", "101")  # 200 basis points
    publish(session)
    assert spreads() == {MONDAY.date(): 200, TUESDAY.date(): None}
    quote("99.5", "100.5")  # 100
    quote("49.95", "50.05", "KO")  # 20
    quote("99", None)  # of one side: no spread
    quote("101", "99")  # crossed: rejected
    quote("3", "3.01", when=TUESDAY)  # 33.277870216306...
    quote("99", "101", when=TUESDAY + timedelta(days=1))  # no trades: no row
    before = heads(session)
    assert publish(session).days == tuple(MONDAY.date() + timedelta(days=n) for n in range(3))
    assert spreads() == {MONDAY.date(): 85, TUESDAY.date(): 33.27787022}
    after = heads(session)
    assert [name for name in TABLES if after[name] != before[name]] == [MARKET], "no trade came"
    assert publish(session).days == ()
    found = content(session, MARKET)
    publish(replace(session, sums={}), [MONDAY.date(), TUESDAY.date()])
    assert content(session, MARKET) == found


def test_quotes_without_any_trade_are_read_once(session: BatchSession, bronze: Any) -> None:
    bronze.quotes({"timestamp": MONDAY})
    refine_quotes(session)
    assert publish(session).rows == dict.fromkeys(TABLES, 0)
    assert publish(session).days == ()


def test_two_runs_at_once_are_as_good_as_one(session: BatchSession, bronze: Any) -> None:
    bronze.trades({"timestamp": MONDAY, "price": Decimal(10)}, {"timestamp": TUESDAY, "price": Decimal(20)})

    def run(_: int) -> None:
        refine_trades(session)
        publish(session)
        publish_traders(session)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(run, range(2)))
    tables = ("silver.trades", *TABLES, PERFORMANCE, POSITIONS)
    before = {name: content(session, name) for name in tables}
    assert [len(before[name]) for name in tables] == [2, 2, 2, 2, 2, 4, 4]
    everything = [MONDAY.date(), TUESDAY.date()]
    publish(session, everything)
    publish_traders(session, everything)
    assert {name: content(session, name) for name in tables} == before


def test_of_a_day_that_is_written_to_only_what_came_is_read(
    session: BatchSession, bronze: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def spied(io: Any, snapshot: Any, files: Any, *others: Any, **named: Any) -> Any:
        read.append(len(files))
        return read_batches(io, snapshot, files, *others, **named)

    monkeypatch.setattr(step, "read_batches", spied)

    def more(number: int) -> None:
        late = {"timestamp": MONDAY - timedelta(minutes=number), "symbol": "TSLA"}
        bronze.trades({"timestamp": MONDAY, "price": Decimal(10 + number)}, late)
        refine_trades(session)
        publish(session)
        refine_activity(session)
        publish_traders(session)

    for number in range(4):
        more(number)
    assert read == [1, 1, 1, 1]
    assert compact(session, "silver.trades", fewest_files=2).files_before == 4
    more(5)
    more(6)
    assert read[4:] == [2, 1], "the compacted file takes the place of those that were read"
    found = {name: content(session, name) for name in (*TABLES, ACTIVITY)}
    fresh = replace(session, sums={})
    assert publish(fresh, [MONDAY.date()]).days == refine_activity(fresh, [MONDAY.date()]).days == (MONDAY.date(),)
    assert {name: content(session, name) for name in found} == found
    publish(session, [MONDAY.date()])
    assert read[6:] == [3, 3], "asked for, a day is computed anew"


def test_after_a_failure_a_day_is_read_again(session: BatchSession, bronze: Any, monkeypatch: Any) -> None:
    bronze.trades({"timestamp": MONDAY, "price": Decimal(10)})
    refine_trades(session)
    publish(session)
    bronze.trades({"timestamp": MONDAY, "price": Decimal(12)})
    refine_trades(session)

    def half(*given: Any, **named: Any) -> Any:
        yield from read_batches(*given, **named)
        raise OSError("broken")

    with monkeypatch.context() as patched:
        patched.setattr(step, "read_batches", half)
        with pytest.raises(OSError, match="broken"):
            publish(session)
    publish(session)
    assert days(session)[MONDAY.date()]["trade_count"] == 2


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("table", TABLES)
def test_a_crash_between_the_tables_is_caught_up_by_the_next_run(
    session: BatchSession, bronze: Any, commit_faults: Any, table: str, when: str
) -> None:
    bronze.trades({"timestamp": MONDAY})
    refine_trades(session)
    publish(session)
    bronze.trades({"timestamp": MONDAY + timedelta(minutes=5)}, {"timestamp": TUESDAY, "symbol": "KO"})
    refine_trades(session)
    commit_faults.at_next_commit(table, when)
    with pytest.raises(ProcessLookupError):
        publish(session)
    publish(session)
    assert [row["trade_count"] for row in content(session, "gold.minute_bars")] == [1, 1, 1]
    assert {d: row["trade_count"] for d, row in days(session).items()} == {MONDAY.date(): 2, TUESDAY.date(): 1}
    assert {row["trading_date"]: row["total_trades"] for row in rows(session, "gold.market_overview")} == {
        MONDAY.date(): 2,
        TUESDAY.date(): 1,
    }
    assert {(row["sector"], row["trade_count"]) for row in rows(session, "gold.sector_daily")} == {
        ("Technology", 2),
        ("Consumer", 1),
    }


def test_bars_that_miss_a_trade_are_not_committed(
    session: BatchSession, bronze: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bronze.trades({"timestamp": MONDAY}, {"timestamp": TUESDAY}, {"symbol": "MSFT", "timestamp": TUESDAY})
    refine_trades(session)

    def lossy(*given: Any) -> dict[str, pa.Table]:
        rows = compute(*given)
        return rows | {TABLES[0]: rows[TABLES[0]].slice(1)}

    monkeypatch.setattr("lakehouse.gold.step.compute", lossy)
    with pytest.raises(ContractViolationError, match=r"those of silver\.trades: failed on 1 "):
        publish(session)


def test_no_gold_table_changes_when_the_contract_is_broken(session: BatchSession, bronze: Any) -> None:
    bronze.trades({"timestamp": MONDAY})
    refine_trades(session)
    publish(session)
    before = heads(session)
    silver = session.catalog.load_table("silver.trades")
    bad = silver.scan().to_arrow().to_pylist()[0] | {"trade_id": "bad", "quantity": Decimal(-500)}
    silver.append(pa.Table.from_pylist([bad], schema=arrow_schema("silver.trades")))
    with pytest.raises(
        ContractViolationError, match="volume is above 0: failed on 1 of 1 rows, for example symbol=AAPL"
    ):
        publish(session)
    assert heads(session) == before
    failed = [row["check_name"] for row in rows(session, "quality.check_results") if row["outcome"] == "failed"]
    assert "checks.failed_rows.volume_positive" in failed


def test_a_trading_date_is_the_utc_date_wherever_the_machine_stands(
    session: BatchSession, bronze: Any, machine_time_zone: str
) -> None:
    midnight = datetime(2026, 3, 10, tzinfo=UTC)
    bronze.trades({"timestamp": midnight - timedelta(microseconds=1)}, {"timestamp": midnight})
    refine_trades(session)
    publish(session)
    assert set(days(session)) == {date(2026, 3, 9), date(2026, 3, 10)}
    assert {row["bar_start"]: row["trading_date"] for row in rows(session, "gold.minute_bars")} == {
        midnight - timedelta(minutes=1): date(2026, 3, 9),
        midnight: date(2026, 3, 10),
    }


def test_every_table_is_replaced_in_one_commit(session: BatchSession, bronze: Any) -> None:
    bronze.trades({"timestamp": MONDAY})
    refine_trades(session)
    publish(session)
    commits: list[str] = []
    catalog = session.catalog
    commit_table = catalog.commit_table

    def counting(table: Any, *changes: Any) -> Any:
        commits.append(".".join(table.name()))
        return commit_table(table, *changes)

    bronze.trades({"timestamp": MONDAY})
    refine_trades(session)
    catalog.commit_table = counting  # type: ignore[method-assign]
    publish(session)
    assert sorted(name for name in commits if name.startswith("gold.")) == sorted(TABLES)
