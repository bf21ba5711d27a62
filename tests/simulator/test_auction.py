"""The auction's price against a search of every price, and who gets filled at it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.auction import Clearing, clear, uncross
from simulator.book import Book, Order

limits = st.one_of(st.none(), st.integers(1, 30))
sides = st.lists(st.tuples(limits, st.integers(1, 9)), max_size=12)
references = st.integers(1, 40)


def brute_force(bids, asks, reference):
    """The rule, read aloud: every price tried, the best by the four criteria in turn."""

    def rank(price):
        wanted = sum(quantity for limit, quantity in bids if limit is None or limit >= price)
        offered = sum(quantity for limit, quantity in asks if limit is None or limit <= price)
        return (-min(wanted, offered), abs(wanted - offered), abs(price - reference)), price, wanted - offered

    ranked = sorted(rank(price) for price in range(1, 60))
    (executed, _, _), price, imbalance = ranked[0]
    assert not executed or ranked[0][0] != ranked[1][0], "the rule leaves no tie"
    return Clearing(price, -executed, imbalance) if executed else None


@settings(max_examples=500)
@given(sides, sides, references)
def test_the_price_is_the_one_that_a_search_of_all_prices_finds(bids, asks, reference):
    assert clear(bids, asks, reference) == brute_force(bids, asks, reference)


@pytest.mark.parametrize(
    ("bids", "asks", "reference", "expected"),
    [
        ([(100, 5)], [(101, 5)], 100, None),
        ([], [(None, 5)], 100, None),
        ([(None, 5)], [(None, 3)], 100, Clearing(100, 3, 2)),  # no limit at all: the reference price
        ([(105, 5)], [(100, 5)], 90, Clearing(100, 5, 0)),  # all of 100 … 105 is as good: nearest to the reference
        ([(105, 5)], [(100, 5)], 103, Clearing(103, 5, 0)),
        ([(105, 5)], [(100, 5)], 120, Clearing(105, 5, 0)),
        # 10 execute at 100 … 102; 3 more are wanted up to 101: the least imbalance is at 102.
        ([(102, 10), (101, 3)], [(100, 10)], 100, Clearing(102, 10, 0)),
        # 5 execute anywhere; one buyer is left over up to 100, one seller from 101 on: as good, so the reference.
        ([(105, 5), (100, 1)], [(95, 5), (101, 1)], 100, Clearing(100, 5, 1)),
        ([(105, 5), (100, 1)], [(95, 5), (101, 1)], 101, Clearing(101, 5, -1)),
    ],
)
def test_examples_of_the_rule(bids, asks, reference, expected):
    assert clear(bids, asks, reference) == expected


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.booleans(), limits, st.integers(1, 9), st.integers(0, 4)), max_size=20),
    references,
)
def test_allocation_follows_price_then_time_and_leaves_an_uncrossed_book(sent, reference):
    book = Book()
    orders = [Order(n, owner, buy, price, quantity) for n, (buy, price, quantity, owner) in enumerate(sent)]
    for order in orders:
        book.add(order)
    clearing = clear(book.curve(bids=True), book.curve(bids=False), reference)
    executed: dict[int, int] = dict.fromkeys(range(len(orders)), 0)
    if clearing is not None:
        for buy, sell, quantity, is_self_trade in uncross(book, clearing.quantity):
            assert buy.is_buy
            assert not sell.is_buy
            assert is_self_trade == (sent[buy.number][3] == sent[sell.number][3])
            assert buy.price is None or buy.price >= clearing.price
            assert sell.price is None or sell.price <= clearing.price
            executed[buy.number] += quantity
            executed[sell.number] += quantity
    total = 0 if clearing is None else clearing.quantity
    for is_buy in (True, False):
        # Market orders first, then the better price, then the older order: each is full before the next begins.
        mine = [o for o in orders if o.is_buy == is_buy]
        mine.sort(
            key=lambda o: (o.price is not None, (-o.price if is_buy else o.price) if o.price else 0, o.number)
        )
        left = total
        for order in mine:
            asked = sent[order.number][2]
            assert executed[order.number] == min(asked, left)
            assert order.quantity == asked - executed[order.number]
            left -= executed[order.number]
        assert left == 0
    bids = [limit for limit, _ in book.curve(bids=True)]
    asks = [limit for limit, _ in book.curve(bids=False)]
    assert not bids or not asks or (None not in (bids[0], asks[0]) and bids[0] < asks[0])


def test_an_auction_of_more_than_there_is_fails_loudly():
    book = Book()
    book.add(Order(1, "a", True, 10, 5))
    with pytest.raises(ValueError, match="less than the auction executes"):
        list(uncross(book, 1))
