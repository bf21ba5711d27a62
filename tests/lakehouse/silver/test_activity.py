"""silver.trader_activity: both sides of every trade, by agent, symbol and day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from lakehouse.batch import BatchSession
from lakehouse.silver.activity import refine_activity
from lakehouse.silver.events import refine_trades

MONDAY = datetime(2026, 3, 9, 12, tzinfo=UTC)


def rows(session: BatchSession) -> dict[Any, dict[str, Any]]:
    found = session.catalog.load_table("silver.trader_activity").scan().to_arrow().to_pylist()
    by_key = {(row["agent_id"], row["symbol"], row["trading_date"]): row for row in found}
    assert len(by_key) == len(found)
    return by_key


def test_buys_and_sells_are_summed_for_both_sides(session: BatchSession, bronze: Any) -> None:
    def trade(minute: int, price: str, quantity: str, buyer: str, seller: str) -> dict[str, Any]:
        return {
            "timestamp": MONDAY + timedelta(minutes=minute),
            "price": Decimal(price),
            "quantity": Decimal(quantity),
            "buyer_agent_id": buyer,
            "seller_agent_id": seller,
        }

    bronze.trades(
        trade(0, "10", "3", "a", "b"),
        trade(1, "11.00000001", "0.00000003", "b", "a"),
        trade(2, "12", "1", "a", "a"),
        trade(24 * 60, "13", "5", "a", "b"),
    )
    refine_trades(session)
    result = refine_activity(session)
    assert (len(result.days), result.rows) == (2, 4)
    row = rows(session)["a", "AAPL", MONDAY.date()]
    assert (row["buy_count"], row["sell_count"]) == (2, 2)
    assert (row["buy_volume"], row["sell_volume"]) == (Decimal(4), Decimal("1.00000003"))
    assert (row["buy_value"], row["sell_value"]) == (Decimal(42), Decimal("12.00000033"))
    assert row["net_quantity"] == Decimal("2.99999997")
    assert row["average_size"] == Decimal("1.25000001")  # 1.2500000075
    assert (row["first_trade_at"], row["last_trade_at"]) == (MONDAY, MONDAY + timedelta(minutes=2))
    assert refine_activity(session).days == ()


def test_only_the_day_of_a_late_trade_is_computed_anew(session: BatchSession, bronze: Any) -> None:
    bronze.trades({"timestamp": MONDAY}, {"timestamp": MONDAY + timedelta(days=1)})
    refine_trades(session)
    refine_activity(session)
    bronze.trades({"timestamp": MONDAY - timedelta(hours=1)})
    refine_trades(session)
    assert refine_activity(session).days == (MONDAY.date(),)
    found = rows(session)
    assert found["mm-001", "AAPL", MONDAY.date()]["sell_count"] == 2
    assert found["mm-001", "AAPL", MONDAY.date() + timedelta(days=1)]["sell_count"] == 1
