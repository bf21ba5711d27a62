"""Figures of an order book."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from dataflows.kafka import Frames
from dataflows.orderbook import decode_book, figures, process
from dataflows.sink import DeadLetter, Output


def book(bids: list[tuple[float, float]], asks: list[tuple[float, float]], **fields: object) -> bytes:
    data = {
        "event_id": "e",
        "timestamp": "2024-08-08T00:00:00.5Z",
        "sequence": 7,
        "symbol": "A",
        "bids": [{"price": price, "quantity": quantity, "order_count": 1} for price, quantity in bids],
        "asks": [{"price": price, "quantity": quantity, "order_count": 1} for price, quantity in asks],
        **fields,
    }
    return json.dumps({"event_type": "OrderBookSnapshot", "data": data}).encode()


def test_every_figure_of_a_two_sided_book() -> None:
    bids = [(99.5, 30), (99.4, 10), (99.3, 10), (99.2, 10), (99.1, 10), (99.0, 1000)]
    found = figures(*decode_book(book(bids, [(100.5, 10)], sequence_number=3)))
    assert found == {
        "symbol": "A",
        "timestamp": "2024-08-08T00:00:00.500000Z",
        "sequence_number": 3,
        "best_bid": Decimal("99.5"),
        "best_bid_size": Decimal(30),
        "best_ask": Decimal("100.5"),
        "best_ask_size": Decimal(10),
        "spread": Decimal("1.0"),
        "spread_bps": Decimal(100),
        "mid": Decimal(100),
        "microprice": Decimal("100.25"),
        "bid_depth_5": Decimal(70),
        "ask_depth_5": Decimal(10),
        "imbalance": Decimal("0.75"),
        "bid_levels": 6,
        "ask_levels": 1,
    }


def test_a_one_sided_book_has_nulls_for_the_other_side_and_an_empty_one_has_no_imbalance() -> None:
    found = figures(*decode_book(book([(99.5, 30)], [])))
    assert [
        found[name] for name in ("best_ask", "best_ask_size", "spread", "spread_bps", "mid", "microprice")
    ] == [None] * 6
    assert (found["imbalance"], found["ask_depth_5"], found["sequence_number"]) == (1, 0, 7)
    assert figures(*decode_book(book([], [])))["imbalance"] is None


def test_each_snapshot_gives_one_output_known_by_its_offset_and_garbage_a_dead_letter() -> None:
    values = [book([(1, 1)], []), b"null", book([(2, 1)], [])]
    items = list(process(Frames("raw.orderbook-snapshots", 2, range(5, 8), values, [b"A"] * 3, [0] * 3)))
    (_, first), (_, letter), (_, last) = items
    assert isinstance(first, Output)
    assert isinstance(last, Output)
    assert isinstance(letter, DeadLetter)
    assert (first.origin, first.version, last.version) == ("raw.orderbook-snapshots/2", 5, 7)
    assert json.loads(last.value)["best_bid"] == 2
    assert letter.output.value == b"null"


@pytest.mark.parametrize("amount", ["0", "-1", "1e1600000", "1e308", '"NaN"', '"sNaN"', '"-Infinity"', "1e-9"])
@pytest.mark.parametrize("field", ["price", "quantity"])
def test_amounts_that_no_book_has_are_a_dead_letter(field: str, amount: str) -> None:
    level = {"price": "1", "quantity": "1"} | {field: amount}
    written = f'{{"price": {level["price"]}, "quantity": {level["quantity"]}, "order_count": 1}}'
    value = book([(1, 1)], []).decode().replace('"asks": []', f'"asks": [{written}]').encode()
    (item,) = process(Frames("raw.orderbook-snapshots", 2, range(5, 6), [value], [b"A"], [0]))
    assert isinstance(item[1], DeadLetter)
