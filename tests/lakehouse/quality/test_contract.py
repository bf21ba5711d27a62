"""The data contracts hold on good rows, and every check of theirs can fail."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lakehouse.quality.contract import CheckOutcome, verify
from lakehouse.quality.partition import BOOKS, MISSTATED
from lakehouse.silver.books import misstated
from lakehouse.tables import arrow_schema

ROOT = Path(__file__).resolve().parents[3]

NOW = datetime(2026, 3, 13, 12, tzinfo=UTC)
TRADE = {
    "event_id": "e",
    "timestamp": NOW,
    "sequence": 1,
    "trade_id": "t",
    "symbol": "AAPL",
    "price": Decimal("185.25"),
    "quantity": Decimal(100),
    "buy_order_id": "b",
    "sell_order_id": "s",
    "buyer_agent_id": "x",
    "seller_agent_id": "y",
    "is_aggressive_buy": True,
    "company_name": "Apple Inc.",
    "sector": "Technology",
    "market_cap_category": "large",
    "_processed_at": NOW,
}
DAY = {
    "symbol": "AAPL",
    "trading_date": date(2026, 3, 13),
    "open_price": Decimal(10),
    "high_price": Decimal(12),
    "low_price": Decimal(9),
    "close_price": Decimal(11),
    "vwap": Decimal("10.5"),
    "total_volume": Decimal(4),
    "total_value": Decimal(42),
    "trade_count": 2,
    "buy_volume": Decimal(3),
    "sell_volume": Decimal(1),
    "price_change_pct": 10.0,
    "volatility": None,
    "company_name": "Apple Inc.",
    "sector": "Technology",
    "_aggregated_at": NOW,
}
BOOK = {
    "event_id": "e",
    "timestamp": NOW,
    "sequence": 1,
    "symbol": "AAPL",
    "sequence_number": None,
    "best_bid_price": Decimal(10),
    "best_bid_qty": Decimal(1),
    "best_ask_price": Decimal(11),
    "best_ask_qty": Decimal(2),
    "spread": Decimal(1),
    "mid_price": Decimal("10.5"),
    "bid_depth": Decimal(1),
    "ask_depth": Decimal(5),
    "bid_levels": 1,
    "ask_levels": 2,
    "bids": [{"price": Decimal(10), "quantity": Decimal(1), "order_count": 1}],
    "asks": [
        {"price": Decimal(11), "quantity": Decimal(2), "order_count": 1},
        {"price": Decimal(12), "quantity": Decimal(3), "order_count": 1},
    ],
    "company_name": None,
    "sector": None,
    "_processed_at": NOW,
}
GOOD = {"silver.trades": TRADE, "silver.orderbook": BOOK, "gold.daily_trading_summary": DAY}


def table(contract: str, *rows: dict[str, Any]) -> pa.Table:
    schema = pa.schema([field.with_nullable(True) for field in arrow_schema(contract)])
    return pa.Table.from_pylist(list(rows), schema=schema)


def checked(contract: str, *rows: dict[str, Any]) -> dict[str, CheckOutcome]:
    given = table(contract, *rows)
    observed = {MISSTATED: misstated(given)} if contract == BOOKS else {}
    return {outcome.check: outcome for outcome in verify(contract, {contract: given, **observed})}


@pytest.mark.parametrize("contract", GOOD)
def test_good_rows_pass_every_check(contract: str) -> None:
    assert {outcome.outcome for outcome in checked(contract, GOOD[contract]).values()} == {"passed"}


@pytest.mark.parametrize(
    ("contract", "broken", "check"),
    [
        ("silver.trades", {"price": Decimal(0)}, "checks.failed_rows.price_positive"),
        ("silver.trades", {"quantity": Decimal(-1)}, "checks.failed_rows.quantity_positive"),
        ("silver.trades", {"trade_id": None}, "columns.trade_id.checks.missing"),
        ("silver.trades", {"symbol": None}, "columns.symbol.checks.missing"),
        ("silver.orderbook", {"best_bid_price": Decimal(11)}, "checks.failed_rows.book_not_crossed"),
        ("silver.orderbook", {"spread": Decimal(2)}, "checks.failed_rows.spread_consistent"),
        ("silver.orderbook", {"bid_depth": Decimal("0.5")}, "checks.failed_rows.depth_consistent"),
        ("gold.daily_trading_summary", {"high_price": Decimal("10.9")}, "checks.failed_rows.high_highest"),
        ("gold.daily_trading_summary", {"low_price": Decimal("10.4")}, "checks.failed_rows.low_lowest"),
        ("gold.daily_trading_summary", {"vwap": Decimal("12.1")}, "checks.failed_rows.vwap_in_range"),
        ("gold.daily_trading_summary", {"trade_count": 0}, "checks.failed_rows.trade_count_positive"),
        ("gold.daily_trading_summary", {"buy_volume": Decimal(4)}, "checks.failed_rows.volume_adds_up"),
        ("gold.daily_trading_summary", {"total_volume": Decimal(0)}, "checks.failed_rows.volume_positive"),
        ("gold.daily_trading_summary", {"close_price": None}, "columns.close_price.checks.missing"),
    ],
)
def test_a_broken_row_fails_its_check_and_is_shown(contract: str, broken: dict[str, Any], check: str) -> None:
    other = GOOD[contract] | {
        name: "other" for name in ("trade_id", "event_id", "symbol") if name in GOOD[contract]
    }
    outcomes = checked(contract, other, GOOD[contract] | broken)
    failed = outcomes[check]
    assert (failed.outcome, failed.severity, failed.stops) == ("failed", "critical", True)
    assert (failed.failing_rows, failed.checked_rows) == (1, 2)
    name, value = next(iter(broken.items()))
    assert failed.example is not None
    assert f"{name}={value}" in failed.example


@pytest.mark.parametrize(
    ("contract", "check"),
    [
        ("silver.trades", "columns.trade_id.checks.duplicate"),
        ("silver.orderbook", "columns.event_id.checks.duplicate"),
        ("gold.daily_trading_summary", "checks.duplicate"),
    ],
)
def test_a_key_that_comes_twice_fails(contract: str, check: str) -> None:
    outcomes = checked(contract, GOOD[contract], GOOD[contract])
    assert outcomes[check].stops
    assert outcomes[check].example is not None


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        ({"price": Decimal("100000.01")}, "checks.failed_rows.price_range"),
        ({"quantity": Decimal(1_000_001)}, "checks.failed_rows.quantity_range"),
    ],
)
def test_a_warning_does_not_stop_the_layer(broken: dict[str, Any], check: str) -> None:
    outcomes = checked("silver.trades", TRADE | broken)
    assert (outcomes[check].outcome, outcomes[check].severity) == ("failed", "warning")
    assert not any(o.stops for o in outcomes.values())


def test_a_missing_column_stops_the_layer() -> None:
    rows = table("silver.trades", TRADE).drop_columns(["seller_agent_id"])
    assert any(o.stops for o in verify("silver.trades", {"silver.trades": rows}))


def test_no_rows_at_all_are_a_warning() -> None:
    failed = [o for o in checked("silver.trades").values() if o.outcome != "passed"]
    assert [(o.check, o.severity) for o in failed] == [("checks.row_count", "warning")]


PLUGIN_FAILED = """
from soda_core.contracts.impl.contract_verification_impl import CheckImpl, CheckYaml
CheckImpl.check_parsers.clear()
CheckYaml.check_yaml_parsers.clear()
from lakehouse.quality.contract import verify
from lakehouse.tables import arrow_schema
outcomes = verify("silver.trades", {"silver.trades": arrow_schema("silver.trades").empty_table()})
print(sorted({outcome.outcome for outcome in outcomes}), len(outcomes))
"""


def test_a_process_in_which_sodas_plugin_could_not_be_imported_checks_all_the_same() -> None:
    ran = subprocess.run([sys.executable, "-c", PLUGIN_FAILED], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    whole = checked("silver.trades").values()
    assert ran.stdout.split("\n")[0] == f"{sorted({outcome.outcome for outcome in whole})} {len(whole)}"
