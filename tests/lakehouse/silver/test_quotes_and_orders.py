"""silver.quotes and silver.orders: once each, judged, enriched."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from lakehouse.batch import BatchSession
from lakehouse.silver.events import refine_orders, refine_quotes


def rows(session: BatchSession, table: str) -> list[dict[str, Any]]:
    return session.catalog.load_table(table).scan().to_arrow().to_pylist()


def test_a_quote_has_its_company_and_an_exact_spread(session: BatchSession, bronze: Any) -> None:
    bronze.quotes({"best_bid": Decimal("0.1"), "best_ask": Decimal("0.3"), "spread": Decimal("0.19999999")})
    bronze.quotes({"best_bid": None, "best_bid_size": Decimal(0)}, {"event_id": "quote-0", "symbol": "KO"})
    result = refine_quotes(session)
    assert (result.new, result.rejected) == (2, 1)
    two_sided, one_sided = sorted(rows(session, "silver.quotes"), key=lambda row: row["sequence"])
    assert (two_sided["spread"], two_sided["company_name"]) == (Decimal("0.2"), "Apple Inc.")
    assert one_sided["spread"] is None
    bronze.quotes({"event_id": "quote-1", "best_bid": None, "best_bid_size": Decimal(0)})
    assert refine_quotes(session).duplicates == 1


def test_an_order_and_its_cancellation_are_kept_once(session: BatchSession, bronze: Any) -> None:
    placed = {"order_id": "o", "event_id": "x"}
    cancelled = {
        "order_id": "o",
        "event_id": "y",
        "event_type": "OrderCancelled",
        "order_type": None,
        "quantity": None,
        "remaining_quantity": Decimal(0),
        "reason": "Expired",
    }
    market = {"event_id": "z", "order_type": "Market", "price": None}
    bronze.orders(placed, placed, cancelled, market)
    result = refine_orders(session)
    assert (result.new, result.duplicates, result.rejected) == (3, 1, 0)
    found = {row["event_id"]: row for row in rows(session, "silver.orders")}
    assert (found["y"]["event_type"], found["y"]["reason"]) == ("OrderCancelled", "Expired")
    assert {row["sector"] for row in found.values()} == {"Technology"}


@pytest.mark.parametrize(
    ("table", "broken", "rule"),
    [
        ("quotes", {"best_bid": Decimal("185.26")}, "quote_not_crossed"),
        ("quotes", {"best_bid": Decimal(0)}, "price_positive"),
        ("quotes", {"best_ask_size": Decimal(-1)}, "size_not_negative"),
        ("quotes", {"symbol": ""}, "symbol_present"),
        ("orders", {"price": Decimal(0)}, "price_positive"),
        ("orders", {"price": None}, "limit_has_price"),
        ("orders", {"quantity": Decimal(0)}, "quantity_positive"),
        ("orders", {"order_id": ""}, "order_id_present"),
    ],
)
def test_a_row_that_breaks_a_rule_is_kept_apart_with_the_rule(
    session: BatchSession, bronze: Any, table: str, broken: dict[str, Any], rule: str
) -> None:
    step = {"quotes": refine_quotes, "orders": refine_orders}[table]
    getattr(bronze, table)({}, broken)
    result = step(session)
    assert (result.new, result.rejected) == (1, 1)
    (record,) = rows(session, "silver.rejected_records")
    assert (record["source_table"], record["rule"]) == (f"bronze.{table}", rule)
