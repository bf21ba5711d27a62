"""silver.orderbook: best prices, spread, mid and depth, once each."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from lakehouse.batch import BatchSession
from lakehouse.silver.events import refine_orderbook

BIDS = [("99.98", "300"), ("99.97", "0.5")]
ASKS = [("100.01", "200"), ("100.05", "50"), ("101", "1")]


def rows(session: BatchSession, table: str = "silver.orderbook") -> list[dict[str, Any]]:
    return session.catalog.load_table(table).scan().to_arrow().to_pylist()


def test_a_book_is_summed_up(session: BatchSession, bronze: Any) -> None:
    bronze.books({"bids": BIDS, "asks": ASKS, "sequence_number": 7})
    refine_orderbook(session)
    (book,) = rows(session)
    assert (book["best_bid_price"], book["best_bid_qty"]) == (Decimal("99.98"), Decimal(300))
    assert (book["best_ask_price"], book["best_ask_qty"]) == (Decimal("100.01"), Decimal(200))
    assert book["spread"] == Decimal("0.03")
    assert book["mid_price"] == Decimal("99.995")
    assert (book["bid_depth"], book["ask_depth"]) == (Decimal("300.5"), Decimal(251))
    assert (book["bid_levels"], book["ask_levels"]) == (2, 3)
    assert [level["price"] for level in book["asks"]] == [Decimal(price) for price, _ in ASKS]
    assert (book["company_name"], book["sequence_number"]) == ("Apple Inc.", 7)


@pytest.mark.parametrize(
    ("bid", "ask", "mid"),
    [
        ("0.00000001", "0.00000002", "0.00000002"),
        ("0.00000001", "0.00000004", "0.00000003"),
        ("0.00000001", "9999999999.99999999", "5000000000"),
        ("0.00000001", "9999999999", "4999999999.50000001"),
    ],
)
def test_a_mid_between_two_decimals_is_rounded_half_up(
    session: BatchSession, bronze: Any, bid: str, ask: str, mid: str
) -> None:
    bronze.books({"bids": [(bid, "1")], "asks": [(ask, "1")]})
    refine_orderbook(session)
    assert [row["mid_price"] for row in rows(session)] == [Decimal(mid)]


def test_an_empty_side_has_no_best_price(session: BatchSession, bronze: Any) -> None:
    bronze.books({"asks": ASKS}, {})
    refine_orderbook(session)
    one_sided, empty = sorted(rows(session), key=lambda row: row["sequence"])
    assert one_sided["best_bid_price"] is one_sided["spread"] is one_sided["mid_price"] is None
    assert (one_sided["bid_depth"], one_sided["bid_levels"]) == (Decimal(0), 0)
    assert one_sided["best_ask_price"] == Decimal("100.01")
    assert (empty["ask_depth"], empty["asks"]) == (Decimal(0), [])


@pytest.mark.parametrize(
    ("book", "rule"),
    [
        ({"bids": [("100.01", "1")], "asks": [("100.01", "1")]}, "book_not_crossed"),
        ({"bids": [("99", "0")], "asks": ASKS}, "levels_positive"),
        ({"symbol": "", "asks": ASKS}, "symbol_present"),
    ],
)
def test_an_impossible_book_is_rejected(
    session: BatchSession, bronze: Any, book: dict[str, Any], rule: str
) -> None:
    bronze.books(book)
    assert refine_orderbook(session).rejected == 1
    assert rows(session) == []
    assert [row["rule"] for row in rows(session, "silver.rejected_records")] == [rule]


def test_books_are_kept_once_however_often_they_come_or_the_step_runs(session: BatchSession, bronze: Any) -> None:
    book = {"event_id": "x", "bids": BIDS, "asks": ASKS}
    bronze.books(book, book)
    refine_orderbook(session)
    bronze.books(book, {"event_id": "y", "bids": BIDS})
    result = refine_orderbook(session)
    assert (result.new, result.duplicates) == (1, 1)
    assert refine_orderbook(session).arrived == 0
    assert sorted(row["event_id"] for row in rows(session)) == ["x", "y"]
