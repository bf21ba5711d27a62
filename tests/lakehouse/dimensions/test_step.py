"""All dimensions follow their files and the agents seen: one commit a table, and none without a change."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lakehouse.batch import BatchSession
from lakehouse.dimensions.reference import ReferenceFileError
from lakehouse.dimensions.step import seed_dimensions
from lakehouse.quality.gate import ContractViolationError
from simulator.exchange import Exchange
from simulator.market import load_market
from tests.lakehouse.conftest import reference_files

TABLES = ("dim_symbol", "dim_trader", "dim_account", "dim_exchange", "dim_time")
LATER = datetime(2026, 4, 1, tzinfo=UTC)


def rows(session: BatchSession, name: str) -> list[dict[str, Any]]:
    return session.catalog.load_table(f"dimensions.{name}").scan().to_arrow().to_pylist()


def heads(session: BatchSession) -> dict[str, int | None]:
    return {name: session.catalog.load_table(f"dimensions.{name}").metadata.current_snapshot_id for name in TABLES}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return reference_files(tmp_path)


def reading(session: BatchSession, folder: Path, at: datetime | None = None) -> BatchSession:
    """The session of a user who keeps the files in ``folder``."""
    settings = session.settings.model_copy(update={"reference_dir": folder})
    return replace(session, settings=settings, clock=session.clock if at is None else lambda: at)


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_every_agent_of_the_default_market_is_a_trader_with_an_account(session: BatchSession) -> None:
    seed_dimensions(session)
    agents = {
        (agent.agent_id, agent.agent_type, agent.kind)
        for agent in Exchange(load_market(), seed=1, start_us=0).agents
    }
    assert {(r["agent_id"], r["agent_type"], r["strategy"]) for r in rows(session, "dim_trader")} == agents
    assert {row["agent_id"] for row in rows(session, "dim_account")} == {agent for agent, _, _ in agents}


def test_seeding_again_changes_nothing(session: BatchSession) -> None:
    done = seed_dimensions(session)
    assert {name: result.rows for name, result in done.items()} == {
        "dimensions.dim_symbol": 24,
        "dimensions.dim_trader": 258,
        "dimensions.dim_account": 258,
        "dimensions.dim_exchange": 3,
        "dimensions.dim_time": 1440,
    }
    before = heads(session)
    again = seed_dimensions(replace(session, clock=lambda: LATER))
    assert not any(result.changed for result in again.values())
    assert heads(session) == before


def test_an_edited_file_takes_effect(session: BatchSession, folder: Path) -> None:
    seed_dimensions(reading(session, folder))
    edit(folder / "traders.csv", "mm-0003,MarketMaker,market_makers", "mm-0003,MarketMaker,inventory_skew")
    edit(folder / "accounts.csv", "retail-0007,retail,active", "retail-0007,professional,active")
    edit(folder / "exchanges.csv", "Tickhouse simulated exchange", "Tickhouse")
    done = seed_dimensions(reading(session, folder, LATER))
    assert {name.split(".")[1] for name, result in done.items() if result.changed} == {
        "dim_trader",
        "dim_account",
        "dim_exchange",
    }
    versions = [row for row in rows(session, "dim_trader") if row["agent_id"] == "mm-0003"]
    assert sorted((row["strategy"], row["valid_to"]) for row in versions) == [
        ("inventory_skew", None),
        ("market_makers", LATER),
    ]
    (account,) = [row for row in rows(session, "dim_account") if row["agent_id"] == "retail-0007"]
    assert (account["tier"], account["previous_tier"], account["tier_changed_at"]) == (
        "professional",
        "retail",
        LATER,
    )
    names = {row["exchange_code"]: row["exchange_name"] for row in rows(session, "dim_exchange")}
    assert (len(names), names["TICKHOUSE"]) == (3, "Tickhouse")


def test_a_faulty_file_changes_no_table(session: BatchSession, folder: Path) -> None:
    seed_dimensions(reading(session, folder))
    before = heads(session)
    edit(folder / "symbols.csv", "Apple Inc.", "Apple")
    edit(folder / "exchanges.csv", ",UTC,USD", ",UTC,")
    with pytest.raises(ReferenceFileError, match=r"exchanges\.csv, line 2, column currency"):
        seed_dimensions(reading(session, folder, LATER))
    assert heads(session) == before


def test_rows_that_break_their_contract_are_not_committed(session: BatchSession, folder: Path) -> None:
    seed_dimensions(reading(session, folder))
    before = rows(session, "dim_exchange")
    edit(folder / "exchanges.csv", ",UTC,USD", ",UTC,US-Dollars")
    with pytest.raises(ContractViolationError, match=r"dimensions\.dim_exchange: not committed.*codes"):
        seed_dimensions(reading(session, folder, LATER))
    assert rows(session, "dim_exchange") == before


def test_an_agent_that_nobody_listed_is_a_trader_once_it_is_seen(session: BatchSession, bronze: Any) -> None:
    seed_dimensions(session)
    bronze.orders(
        {"agent_id": "whale-1", "agent_type": "InstitutionalInvestor"},
        {"agent_id": "whale-1", "event_type": "OrderCancelled"},
        {"agent_id": "mm-0003", "agent_type": "MarketMaker"},
    )
    assert seed_dimensions(session)["dimensions.dim_trader"].rows == 259
    (whale,) = [row for row in rows(session, "dim_trader") if row["agent_id"] == "whale-1"]
    assert (whale["agent_type"], whale["strategy"]) == ("InstitutionalInvestor", "unknown")
    before = heads(session)
    seed_dimensions(replace(session, clock=lambda: LATER))
    assert heads(session) == before


def test_the_minutes_of_the_day_have_their_sessions(session: BatchSession) -> None:
    seed_dimensions(session)
    minutes = {row["time_of_day"]: row for row in rows(session, "dim_time")}
    edges = ["03:59", "04:00", "09:29", "09:30", "15:59", "16:00", "19:59", "20:00"]
    assert [minutes[minute]["trading_session"] for minute in edges] == [
        "closed",
        "pre-market",
        "pre-market",
        "regular",
        "regular",
        "after-hours",
        "after-hours",
        "closed",
    ]
    assert [minutes[minute]["is_market_hours"] for minute in edges[2:6]] == [False, True, True, False]
    assert minutes["19:59"]["time_key"] == 1959


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("table", TABLES)
def test_a_crash_leaves_a_table_as_before_or_as_it_should_be(
    session: BatchSession, folder: Path, commit_faults: Any, table: str, when: str
) -> None:
    edit(folder / "symbols.csv", "Apple Inc.", "Apple")
    commit_faults.at_next_commit(f"dimensions.{table}", when)
    with pytest.raises(ProcessLookupError):
        seed_dimensions(reading(session, folder, LATER))
    seed_dimensions(reading(session, folder, LATER))
    names = [row["company_name"] for row in rows(session, "dim_symbol") if row["symbol"] == "AAPL"]
    assert sorted(names) == ["Apple", "Apple Inc."]
    assert [len(rows(session, name)) for name in TABLES] == [25, 258, 258, 3, 1440]


def test_two_runs_at_once_are_as_good_as_one(session: BatchSession) -> None:
    faults: list[BaseException] = []

    def run() -> None:
        try:
            seed_dimensions(session)
        except BaseException as error:  # noqa: BLE001 - a thread's fault is the test's
            faults.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert [len(rows(session, name)) for name in TABLES] == [24, 258, 258, 3, 1440]
