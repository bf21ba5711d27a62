"""Computing days anew gives the rows that are there; after a rule changed, the rows it asks for."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import pytest

from lakehouse.batch import BatchSession
from lakehouse.catalog import open_catalog
from lakehouse.dimensions.dim_symbol import read_symbols, seed_dim_symbol
from lakehouse.gold.step import publish
from lakehouse.gold.traders import publish_traders
from lakehouse.rebuild import REBUILDABLE, days_between, plan, run
from lakehouse.settings import LakehouseSettings
from lakehouse.silver import judging
from lakehouse.silver.activity import refine_activity
from lakehouse.silver.events import STEPS, TRADES, refine_orderbook, refine_orders, refine_quotes, refine_trades
from lakehouse.silver.step import rebuild_day, totals
from lakehouse.tables import create_tables
from tests.lakehouse.conftest import Bronze

MONDAY = datetime(2026, 3, 9, 12, tzinfo=UTC)
CLOCK = datetime(2026, 3, 14, tzinfo=UTC)
WRITTEN = ("_processed_at", "_aggregated_at")
EVERY = (*REBUILDABLE, "silver.rejected_records")


def rows(session: BatchSession, table: str) -> list[dict[str, Any]]:
    return session.catalog.load_table(table).scan().to_arrow().to_pylist()


def content(session: BatchSession) -> dict[str, list[str]]:
    """Every table's rows, without the time they were written, in an order of their own."""
    return {
        name: sorted(repr({k: v for k, v in row.items() if k not in WRITTEN}) for row in rows(session, name))
        for name in EVERY
    }


def rebuild(session: BatchSession, days: Sequence[date], tables: Collection[str] = REBUILDABLE) -> dict[str, int]:
    """Do every piece of the plan; table → rows written."""
    written = Counter[str]()
    for piece in plan(session, days, tables):
        written.update(run(session, piece))
    return written


def refine(session: BatchSession) -> None:
    for step in (refine_trades, refine_activity, refine_orderbook, refine_quotes, refine_orders):
        step(session)
    publish(session)
    publish_traders(session)


@pytest.fixture(scope="module")
def three_days(tmp_path_factory: pytest.TempPathFactory, database: duckdb.DuckDBPyConnection) -> LakehouseSettings:
    """Three days of everything: valid, redelivered, contradicting and broken rows, in several runs."""
    settings = LakehouseSettings(data_dir=tmp_path_factory.mktemp("three-days") / "lake", query_refresh_seconds=0)
    session = open_session(settings, database)
    create_tables(session.catalog)
    seed_dim_symbol(session.catalog, read_symbols(), as_of=CLOCK)
    bronze = Bronze(session.catalog)
    for again in range(2):
        for number in range(3):
            at = {
                "timestamp": MONDAY + timedelta(days=number, minutes=again),
                "symbol": ["AAPL", "KO", "NEW"][number],
            }
            ident = f"{again}-{number}"
            bronze.trades(
                at | {"trade_id": ident, "quantity": Decimal(10 + number), "price": Decimal(100 + again)},
                at | {"trade_id": ident, "quantity": Decimal(10 + number), "price": Decimal(100 + again)},
                at | {"trade_id": ident, "price": Decimal(7)},
                at | {"price": Decimal(0)},
                at | {"trade_id": f"0-{(number + 1) % 3}", "price": Decimal(8)},
            )
            bronze.books(at | {"bids": [("99", "1")], "asks": [("100", "2")]}, at)
            bronze.quotes(at, at | {"event_id": f"q{ident}"})
            bronze.orders(at, at | {"order_id": ""})
        refine(session)
    shutil.copytree(settings.data_dir, settings.data_dir.with_name("saved"))
    return settings


@pytest.fixture
def refined(three_days: LakehouseSettings, database: duckdb.DuckDBPyConnection) -> BatchSession:
    """The three days as they were made, in the same place, because tables know the paths of their files."""
    shutil.rmtree(three_days.data_dir)
    shutil.copytree(three_days.data_dir.with_name("saved"), three_days.data_dir)
    return open_session(three_days, database)


def open_session(settings: LakehouseSettings, database: duckdb.DuckDBPyConnection) -> BatchSession:
    return BatchSession(open_catalog(settings), settings, database, clock=lambda: CLOCK)


def test_a_full_rebuild_gives_the_same_rows(refined: BatchSession) -> None:
    before, sums = content(refined), totals(refined.catalog.load_table("silver.trades"))
    assert all(before.values())
    later = replace(refined, clock=lambda: refined.clock() + timedelta(days=1))
    days = days_between(MONDAY.date() - timedelta(days=1), MONDAY.date() + timedelta(days=3))
    written = rebuild(later, days)
    assert content(refined) == before
    assert {name: written[name] for name in STEPS} == {name: len(before[name]) for name in STEPS}
    assert set(written) == set(REBUILDABLE)
    assert totals(refined.catalog.load_table("silver.trades")) == sums
    assert {row["_processed_at"] for row in rows(refined, "silver.trades")} == {later.clock()}
    publish(refined)
    publish_traders(refined)
    refine_activity(refined)
    assert content(refined) == before


def test_a_day_rebuilt_in_small_portions_is_the_same(
    refined: BatchSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "KEYS_AT_ONCE", 3)
    before = content(refined)
    rebuild_day(refined, TRADES, MONDAY.date(), portion_rows=2)
    assert content(refined) == before


def test_a_day_without_rows_is_rebuilt_to_nothing(refined: BatchSession) -> None:
    before = content(refined)
    assert rebuild_day(refined, TRADES, MONDAY.date() - timedelta(days=90)).arrived == 0
    assert content(refined) == before


def test_only_the_days_and_tables_asked_for_are_touched(refined: BatchSession) -> None:
    heads = {name: refined.catalog.load_table(name).metadata.current_snapshot_id for name in EVERY}
    later = replace(refined, clock=lambda: refined.clock() + timedelta(days=1))
    rebuild(later, [MONDAY.date()], ["silver.quotes"])
    changed = {
        name
        for name, head in heads.items()
        if refined.catalog.load_table(name).metadata.current_snapshot_id != head
    }
    assert changed == {"silver.quotes"}
    written = {
        row["timestamp"].date() for row in rows(refined, "silver.quotes") if row["_processed_at"] == later.clock()
    }
    assert written == {MONDAY.date()}


def test_what_a_rule_refused_wrongly_comes_back(refined: BatchSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a rule gone, rows leave rejected_records for silver, and the sums still add up."""
    from lakehouse.silver import judging as module

    sql_file, nothing_broken = module.sql_file, "cast(null as struct(rule varchar, reason varchar))"
    monkeypatch.setattr(
        module, "sql_file", lambda *of: nothing_broken if of == ("silver", TRADES.rules) else sql_file(*of)
    )
    monkeypatch.setattr(module, "require", lambda *_: None)
    rejected = len(rows(refined, "silver.rejected_records"))
    rebuild_day(refined, TRADES, MONDAY.date())
    assert len(rows(refined, "silver.rejected_records")) == rejected - 2
    sums = totals(refined.catalog.load_table("silver.trades"))
    assert sums.new == len(rows(refined, "silver.trades"))
    assert sums.arrived == sums.new + sums.duplicates + sums.rejected == len(rows(refined, "bronze.trades"))
    of_trades = [row for row in rows(refined, "silver.rejected_records") if row["source_table"] == "bronze.trades"]
    assert sums.rejected == len(of_trades)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("table", ["silver.trades", "gold.minute_bars", "gold.portfolio_positions"])
def test_a_crash_in_a_rebuild_is_made_good_by_the_next(
    refined: BatchSession, commit_faults: Any, table: str, when: str
) -> None:
    before = content(refined)
    names = ["silver.trades", "gold.minute_bars", "gold.portfolio_positions"]
    commit_faults.at_next_commit(table, when)
    with pytest.raises(ProcessLookupError):
        rebuild(refined, [MONDAY.date()], names)
    rebuild(refined, [MONDAY.date()], names)
    assert content(refined) == before


def test_a_table_that_cannot_be_rebuilt_is_named(session: BatchSession) -> None:
    with pytest.raises(ValueError, match=r"cannot rebuild bronze\.trades; what can be rebuilt: silver\.trades, "):
        rebuild(session, [date(2026, 3, 9)], ["bronze.trades"])
