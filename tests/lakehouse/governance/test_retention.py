"""Days past their time go; the rest stays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lakehouse.batch import BatchSession
from lakehouse.dimensions.step import seed_dimensions
from lakehouse.gold.traders import publish_traders
from lakehouse.governance.retention import purge, retention_of
from lakehouse.silver.activity import refine_activity
from lakehouse.silver.events import refine_trades
from lakehouse.tables import TABLES

NOW = datetime(2026, 6, 30, 1, tzinfo=UTC)
AGES = (0, 90, 91, 400)


def days(session: BatchSession, table: str) -> list[int]:
    """Ages of the rows, in days."""
    found = session.catalog.load_table(table).scan().to_arrow().column("timestamp").to_pylist()
    return sorted((NOW.date() - at.date()).days for at in found)


def test_days_past_their_time_are_deleted_and_silver_goes_on(session: BatchSession, bronze: Any) -> None:
    bronze.trades(*({"timestamp": NOW - timedelta(days=age)} for age in AGES))
    refine_trades(session)
    dry = purge(session, "bronze.trades", NOW, dry_run=True)
    assert dry is not None
    assert (dry.rows, dry.keep_days, len(dry.days)) == (2, retention_of("bronze.trades"), 2)
    assert days(session, "bronze.trades") == list(AGES)
    done = purge(session, "bronze.trades", NOW)
    assert done is not None
    assert done.rows == 2
    assert days(session, "bronze.trades") == [0, 90]
    again = purge(session, "bronze.trades", NOW)
    assert again is not None
    assert again.rows == 0
    bronze.trades({"timestamp": NOW})
    assert refine_trades(session).new == 1, "silver reads on from where it was"
    assert days(session, "silver.trades") == [0, *AGES]


def test_every_table_with_a_limit_can_be_purged(session: BatchSession, bronze: Any) -> None:
    """Dimensions, though they point at persons, have no days."""
    bronze.trades({"timestamp": NOW - timedelta(days=400)})
    refine_trades(session)
    refine_activity(session)
    publish_traders(session)
    seed_dimensions(session)
    done = {name: purge(session, name, NOW) for name in TABLES}
    purged = {name for name, found in done.items() if found is not None and found.rows}
    assert purged == {
        "bronze.trades",
        "silver.trades",
        "silver.trader_activity",
        "gold.trader_performance",
        "gold.portfolio_positions",
    }


def test_a_table_without_a_limit_is_kept(session: BatchSession) -> None:
    assert retention_of("gold.daily_trading_summary") is None
    assert purge(session, "gold.daily_trading_summary", NOW) is None


def test_today_is_never_deleted(session: BatchSession) -> None:
    with pytest.raises(ValueError, match="at least one day"):
        purge(session, "bronze.trades", NOW, keep_days=0)
