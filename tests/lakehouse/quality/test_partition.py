"""A day is compared with what it was computed from, and with the days before it."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.table import Table

from lakehouse.batch import BatchSession
from lakehouse.gold.step import publish
from lakehouse.gold.traders import publish_traders
from lakehouse.quality.layer import check, last_scores
from lakehouse.silver.events import refine_trades
from lakehouse.snapshots import SnapshotFiles
from lakehouse.tables import arrow_schema
from tests.lakehouse.conftest import MARKET_OPEN

NOT_ASKED = {"fresh", "row_count"}
"""The clock of these tests stands a day later, and most tables are empty."""


def failing(session: BatchSession, layer: str, table: str, **given: Any) -> dict[str, int | None]:
    found = check(session, layer, **given).tables[table].failing
    return {outcome.rule: outcome.failing_rows for outcome in found if outcome.rule not in NOT_ASKED}


def test_what_bronze_got_since_silver_read_it_is_not_lost(session: BatchSession, bronze: Any) -> None:
    bronze.trades({}, {})
    refine_trades(session)
    bronze.trades({})
    assert failing(session, "silver", "silver.trades") == {}


def test_a_row_that_silver_lost_and_one_it_invented_are_found(session: BatchSession, bronze: Any) -> None:
    bronze.trades({"trade_id": "a"}, {"trade_id": "b"}, {"trade_id": "c", "quantity": Decimal(0)})
    refine_trades(session)
    silver = session.catalog.load_table("silver.trades")
    rows = silver.scan().to_arrow().to_pylist()
    rows[1]["trade_id"] = "x"
    silver.overwrite(pa.Table.from_pylist(rows, schema=arrow_schema("silver.trades")))
    assert failing(session, "silver", "silver.trades") == {"nothing_lost": 1, "nothing_invented": 1}


def test_gold_is_compared_with_the_trades_that_it_has_read(session: BatchSession, bronze: Any) -> None:
    bronze.trades({}, {})
    refine_trades(session)
    publish(session)
    bronze.trades({})
    refine_trades(session)
    assert failing(session, "gold", "gold.minute_bars") == {}
    bars = session.catalog.load_table("gold.minute_bars")
    bars.delete("symbol = 'AAPL'")
    assert failing(session, "gold", "gold.minute_bars", day=MARKET_OPEN.date()) == {"volume_matches_trades": 1}


@pytest.mark.parametrize("table", ["gold.daily_trading_summary", "gold.trader_performance"])
def test_what_is_committed_while_a_table_is_checked_is_left_to_the_next_check(
    session: BatchSession, bronze: Any, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    """The rows of one snapshot are held against what that one has read."""
    bronze.trades({})
    refine_trades(session)
    publish(session)
    publish_traders(session)
    bronze.trades({})
    refine_trades(session)
    files = session.manifests.files

    def and_then_commit(name: str, loaded: Table) -> SnapshotFiles:
        found = files(name, loaded)
        if name == table:
            monkeypatch.setattr(session.manifests, "files", files)
            assert publish(session).days == publish_traders(session).days == (MARKET_OPEN.date(),)
        return found

    monkeypatch.setattr(session.manifests, "files", and_then_commit)
    assert failing(session, "gold", table) == {}
    assert session.manifests.files == files, "it was committed"


def test_a_day_unlike_the_days_before_is_reported_and_measured(session: BatchSession, bronze: Any) -> None:
    days = [MARKET_OPEN - timedelta(days=back) for back in (4, 3, 2, 1)]
    for number, day in enumerate(days):
        bronze.trades(*({"timestamp": day, "quantity": Decimal(100 + number)} for _ in range(10)))
    bronze.trades(*({"timestamp": MARKET_OPEN, "quantity": Decimal(900), "sequence": None} for _ in range(14)))
    for day in days:
        assert failing(session, "bronze", "bronze.trades", day=day.date()) == {}
    today = failing(session, "bronze", "bronze.trades", day=MARKET_OPEN.date())
    assert set(today) == {"volume", "null_drift", "mean_quantity_drift"}
    last = last_scores(session.catalog.load_table("quality.scores"))["bronze.trades"]
    assert round(last.volume_deviation_percent, 6) == 40
    assert last.z_scores is not None
    assert last.z_scores["mean_quantity"] > 300
    assert last.z_scores["share_bought"] == 0
