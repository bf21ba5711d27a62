"""The order book, alone and against a naive one that keeps a list and searches it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.book import Book, Fill, Level, Order, Top


class NaiveBook:
    """Price-time priority by definition: of the orders that can trade, take the best price, then the oldest."""

    def __init__(self) -> None:
        self.resting: list[Order] = []

    def submit(self, taker: Order) -> list[tuple[str, int, int]]:
        fills = []
        while taker.quantity:
            makers = [
                order
                for order in self.resting
                if order.is_buy != taker.is_buy
                and (
                    taker.price is None
                    or (order.price <= taker.price if taker.is_buy else order.price >= taker.price)
                )
            ]
            if not makers:
                break
            # min() returns the first of equals, and the list is in order of arrival.
            maker = min(makers, key=lambda order: order.price if taker.is_buy else -order.price)
            if maker.agent_id == taker.agent_id:
                self.resting.remove(maker)
                fills.append((maker.order_id, maker.price, 0))
                continue
            quantity = min(maker.quantity, taker.quantity)
            maker.quantity -= quantity
            taker.quantity -= quantity
            fills.append((maker.order_id, maker.price, quantity))
            if not maker.quantity:
                self.resting.remove(maker)
        if taker.quantity and taker.price is not None:
            self.resting.append(taker)
        return fills

    def cancel(self, order_id: str) -> bool:
        for order in self.resting:
            if order.order_id == order_id:
                self.resting.remove(order)
                return True
        return False

    def in_priority(self) -> list[tuple[str, int, int]]:
        bids = sorted((o for o in self.resting if o.is_buy), key=lambda o: -o.price)
        asks = sorted((o for o in self.resting if not o.is_buy), key=lambda o: o.price)
        return [(o.order_id, o.price, o.quantity) for o in bids + asks]


orders = st.tuples(
    st.just("order"),
    st.booleans(),
    st.one_of(st.none(), st.integers(90, 110)),
    st.integers(1, 50),
    st.sampled_from(["a", "b", "c", "d"]),
)
cancels = st.tuples(st.just("cancel"), st.integers(0, 200))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(orders, orders, orders, cancels), max_size=120))
def test_fills_and_book_equal_those_of_a_naive_book_after_every_step(steps):
    book, naive = Book(), NaiveBook()
    placed: list[Order] = []
    sent = filled = cancelled = lapsed = 0
    for step in steps:
        if step[0] == "cancel":
            if placed:
                order = placed[step[1] % len(placed)]
                left = order.quantity
                was_there = book.cancel(order)
                assert was_there == naive.cancel(order.order_id)
                cancelled += left if was_there else 0
        else:
            _, is_buy, price, quantity, agent = step
            order = Order(f"o{len(placed)}", agent, is_buy, price, quantity)
            twin = Order(f"o{len(placed)}", agent, is_buy, price, quantity)
            placed.append(order)
            sent += quantity
            fills = book.submit(order)
            assert [(f.maker.order_id, f.price, f.quantity) for f in fills] == naive.submit(twin)
            assert order.quantity == twin.quantity
            filled += sum(fill.quantity for fill in fills)
            cancelled += sum(fill.maker.quantity for fill in fills if not fill.quantity)
            lapsed += order.quantity if price is None else 0

        resting = [(o.order_id, o.price, o.quantity) for o in book.orders()]
        assert resting == naive.in_priority()
        assert all(order.resting for order in book.orders())
        top = book.top()
        assert top.bid is None or top.ask is None or top.bid < top.ask
        for bids, best, size in ((True, top.bid, top.bid_size), (False, top.ask, top.ask_size)):
            levels = book.depth(bids=bids, levels=1000)
            assert (levels[0].price, levels[0].quantity) == (best, size) if levels else (best, size) == (None, 0)
            assert [level.price for level in levels] == sorted({level.price for level in levels}, reverse=bids)
            mine = [o for o in book.orders() if o.is_buy == bids]
            assert sum(level.quantity for level in levels) == sum(o.quantity for o in mine)
            assert sum(level.order_count for level in levels) == len(mine)
        # Every lot sent is on two sides of a fill, resting, cancelled or lapsed: none made, none lost.
        assert sent == 2 * filled + sum(o.quantity for o in book.orders()) + cancelled + lapsed


def order(order_id: str, side: str, price: int | None, quantity: int, agent: str | None = None) -> Order:
    return Order(order_id, agent or order_id, side == "buy", price, quantity)


def test_a_market_order_sweeps_levels_and_fills_the_last_one_partly():
    book = Book()
    makers = [order("a", "sell", 101, 10), order("b", "sell", 102, 10), order("c", "sell", 103, 10)]
    for maker in makers:
        book.submit(maker)
    taker = order("t", "buy", None, 25)
    assert book.submit(taker) == [Fill(makers[0], 101, 10), Fill(makers[1], 102, 10), Fill(makers[2], 103, 5)]
    assert taker.quantity == 0
    assert book.depth(bids=False, levels=10) == [Level(103, 5, 1)]


def test_what_a_market_order_cannot_fill_lapses():
    book = Book()
    book.submit(order("a", "sell", 101, 10))
    taker = order("t", "buy", None, 25)
    book.submit(taker)
    assert (taker.quantity, taker.resting, book.top()) == (15, False, Top(None, 0, None, 0))


def test_a_limit_order_trades_at_the_makers_price_and_rests_with_what_is_left():
    book = Book()
    maker = order("a", "sell", 101, 10)
    book.submit(maker)
    taker = order("t", "buy", 105, 30)
    assert book.submit(taker) == [Fill(maker, 101, 10)]
    assert book.top() == Top(105, 20, None, 0)


def test_a_partly_filled_order_keeps_its_place_in_the_queue():
    book = Book()
    first, second = order("a", "buy", 100, 10), order("b", "buy", 100, 10)
    book.submit(first)
    book.submit(second)
    book.submit(order("t", "sell", None, 4))
    assert book.submit(order("u", "sell", None, 8)) == [Fill(first, 100, 6), Fill(second, 100, 2)]


def test_an_agent_does_not_trade_with_itself_but_with_the_next_in_the_queue():
    book = Book()
    own, other = order("a", "buy", 100, 10, agent="x"), order("b", "buy", 100, 10, agent="y")
    book.submit(own)
    book.submit(other)
    assert book.submit(order("t", "sell", 100, 5, agent="x")) == [Fill(own, 100, 0), Fill(other, 100, 5)]
    assert not own.resting
    assert own.quantity == 10, "what the order had left is what its cancellation reports"


def test_cancelling_twice_or_after_a_fill_does_nothing():
    book = Book()
    cancelled, filled = order("a", "buy", 100, 10), order("b", "buy", 99, 10)
    book.submit(cancelled)
    book.submit(filled)
    assert book.cancel(cancelled)
    assert not book.cancel(cancelled)
    book.submit(order("t", "sell", None, 10))
    assert not book.cancel(filled)


def test_clearing_returns_every_order_and_leaves_an_empty_book():
    book = Book()
    placed = [order("a", "buy", 99, 1), order("b", "buy", 100, 2), order("c", "sell", 101, 3)]
    for one in placed:
        book.submit(one)
    assert [o.order_id for o in book.clear()] == ["b", "a", "c"]
    assert book.top() == Top(None, 0, None, 0)
    assert not any(o.resting for o in placed)
    assert not book.cancel(placed[0])


def test_resting_an_order_that_would_cross_is_refused():
    book = Book()
    book.submit(order("a", "sell", 101, 10))
    with pytest.raises(ValueError, match="cross"):
        book.rest(order("b", "buy", 101, 5))
    with pytest.raises(ValueError, match="cannot rest"):
        book.rest(order("c", "buy", None, 5))


@pytest.mark.parametrize(("price", "quantity"), [(0, 1), (-1, 1), (100, 0), (100, -5), (None, 0)])
def test_an_order_without_a_positive_price_and_quantity_is_refused(price, quantity):
    with pytest.raises(ValueError, match="above zero"):
        order("a", "buy", price, quantity)
