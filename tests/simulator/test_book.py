"""The order book, alone and against a naive one that keeps a list and searches it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.book import MAX_PRICE, Book, Fill, Level, Order, SelfTrade, TimeInForce, Top
from tests.simulator.naive_book import NaiveBook, NaiveOrder

places = st.tuples(
    st.just("place"),
    st.booleans(),
    st.one_of(st.none(), st.integers(95, 105)),
    st.integers(1, 50),
    st.integers(0, 3),
    st.sampled_from([TimeInForce.GTC, TimeInForce.GTC, *TimeInForce]),
    st.sampled_from(SelfTrade),
)
cancels = st.tuples(st.just("cancel"), st.integers(0, 200))
reductions = st.tuples(st.just("reduce"), st.integers(0, 200), st.integers(1, 30))


@settings(max_examples=300)
@given(st.lists(st.one_of(places, places, places, cancels, reductions), max_size=120))
def test_fills_and_book_equal_those_of_a_naive_book_after_every_step(steps):
    book, naive = Book(), NaiveBook()
    placed: list[Order] = []
    sent = filled = cancelled = lapsed = 0
    for step in steps:
        if step[0] == "cancel":
            if placed:
                order = placed[step[1] % len(placed)]
                taken = book.cancel(order)
                assert taken == naive.cancel(order.number)
                cancelled += taken
        elif step[0] == "reduce":
            resting = list(book.orders())
            if resting:
                order = resting[step[1] % len(resting)]
                taken = min(step[2], order.quantity)
                book.take(order, taken)
                naive.find(order.number).quantity -= taken
                if not naive.find(order.number).quantity:
                    naive.cancel(order.number)
                cancelled += taken
        else:
            _, is_buy, price, quantity, owner, tif, stp = step
            if price is None and tif is TimeInForce.POST_ONLY:
                continue
            order = Order(len(placed), owner, is_buy, price, quantity, tif, stp)
            twin = NaiveOrder(len(placed), owner, is_buy, price, quantity, tif.value, stp.value)
            placed.append(order)
            sent += quantity
            fills = book.submit(order)
            assert [(maker.number, *rest) for maker, *rest in fills] == naive.submit(twin)
            assert order.quantity == twin.quantity
            filled += sum(fill.quantity for fill in fills)
            cancelled += sum(fill.maker_cancelled + fill.taker_cancelled for fill in fills)
            lapsed += 0 if order.resting else order.quantity

        assert [(o.number, o.price, o.quantity) for o in book.orders()] == naive.in_priority()
        assert all(order.resting for order in book.orders())
        top = book.top()
        assert top.bid is None or top.ask is None or top.bid < top.ask
        for bids, best, size in ((True, top.bid, top.bid_size), (False, top.ask, top.ask_size)):
            levels = book.depth(bids=bids, levels=1000)
            assert (levels[0].price, levels[0].quantity) == (best, size) if levels else (best, size) == (None, 0)
            assert [level.price for level in levels] == sorted({level.price for level in levels}, reverse=bids)
            assert book.curve(bids=bids) == [(level.price, level.quantity) for level in levels]
            mine = [o for o in book.orders() if o.is_buy == bids]
            assert sum(level.quantity for level in levels) == sum(o.quantity for o in mine)
            assert sum(level.order_count for level in levels) == len(mine)
            assert book.first(bids=bids) is (mine[0] if mine else None)
        # Every lot sent is on two sides of a fill, resting, cancelled or lapsed: none made, none lost.
        assert sent == 2 * filled + sum(o.quantity for o in book.orders()) + cancelled + lapsed


NUMBERS = iter(range(1, 1_000_000))


def order(
    side: str,
    price: int | None,
    quantity: int,
    owner: object = None,
    tif: TimeInForce = TimeInForce.GTC,
    stp: SelfTrade = SelfTrade.DECREMENT,
) -> Order:
    return Order(next(NUMBERS), owner or object(), side == "buy", price, quantity, tif, stp)


def book_of(*orders: Order) -> Book:
    book = Book()
    for one in orders:
        assert book.submit(one) == []
    return book


def test_a_market_order_sweeps_levels_and_fills_the_last_one_partly():
    makers = [order("sell", 101, 10), order("sell", 102, 10), order("sell", 103, 10)]
    book, taker = book_of(*makers), order("buy", None, 25)
    assert book.submit(taker) == [Fill(makers[0], 101, 10), Fill(makers[1], 102, 10), Fill(makers[2], 103, 5)]
    assert taker.quantity == 0
    assert book.depth(bids=False, levels=10) == [Level(103, 5, 1)]


@pytest.mark.parametrize(("price", "tif"), [(None, TimeInForce.GTC), (101, TimeInForce.IOC)])
def test_what_a_market_or_ioc_order_cannot_fill_lapses(price, tif):
    book, taker = book_of(order("sell", 101, 10)), order("buy", price, 25, tif=tif)
    book.submit(taker)
    assert (taker.quantity, taker.resting, book.top()) == (15, False, Top(None, 0, None, 0))


def test_a_limit_order_trades_at_the_makers_price_and_rests_with_what_is_left():
    maker = order("sell", 101, 10)
    book = book_of(maker)
    assert book.submit(order("buy", 105, 30)) == [Fill(maker, 101, 10)]
    assert book.top() == Top(105, 20, None, 0)


def test_a_partly_filled_or_reduced_order_keeps_its_place_in_the_queue():
    first, second = order("buy", 100, 20), order("buy", 100, 10)
    book = book_of(first, second)
    book.submit(order("sell", None, 4))
    book.take(first, 10)
    assert book.submit(order("sell", None, 8)) == [Fill(first, 100, 6), Fill(second, 100, 2)]


def test_a_fill_or_kill_order_trades_in_full_or_not_at_all():
    makers = [order("sell", 101, 10), order("sell", 102, 10)]
    book = book_of(*makers)
    assert book.submit(order("buy", 101, 11, tif=TimeInForce.FOK)) == []
    assert book.submit(order("buy", None, 21, tif=TimeInForce.FOK)) == []
    assert book.top() == Top(None, 0, 101, 10)
    assert book.submit(order("buy", 102, 20, tif=TimeInForce.FOK)) == [
        Fill(makers[0], 101, 10),
        Fill(makers[1], 102, 10),
    ]


@pytest.mark.parametrize(
    ("stp", "fills"),
    [
        (SelfTrade.DECREMENT, []),
        (SelfTrade.CANCEL_NEWEST, []),
        (SelfTrade.CANCEL_BOTH, []),
        (SelfTrade.CANCEL_OLDEST, [("own", 0, 10), ("other", 5, 0)]),
    ],
)
def test_a_fill_or_kill_order_counts_what_self_trade_prevention_leaves_it(stp, fills):
    own, other = order("sell", 101, 10, "x"), order("sell", 102, 5, "y")
    book = book_of(own, other)
    done = book.submit(order("buy", 105, 5, "x", TimeInForce.FOK, stp))
    names = {own.number: "own", other.number: "other"}
    assert [(names[f.maker.number], f.quantity, f.maker_cancelled) for f in done] == fills
    assert own.resting == (not fills)


def test_a_post_only_order_rests_or_is_nothing():
    book = book_of(order("sell", 101, 10))
    late, fine = order("buy", 101, 5, tif=TimeInForce.POST_ONLY), order("buy", 100, 5, tif=TimeInForce.POST_ONLY)
    assert book.submit(late) == book.submit(fine) == []
    assert (late.resting, fine.resting, late.quantity) == (False, True, 5)
    assert book.top() == Top(100, 5, 101, 10)


@pytest.mark.parametrize(
    ("stp", "first", "own_left", "taker_left"),
    [
        (SelfTrade.DECREMENT, (0, 6, 6), 4, 0),
        (SelfTrade.CANCEL_OLDEST, (0, 10, 0), 0, 0),
        (SelfTrade.CANCEL_NEWEST, (0, 0, 6), 10, 0),
        (SelfTrade.CANCEL_BOTH, (0, 10, 6), 0, 0),
    ],
)
def test_self_trade_prevention_is_the_takers_choice(stp, first, own_left, taker_left):
    own, other = order("buy", 100, 10, "x", stp=SelfTrade.CANCEL_BOTH), order("buy", 100, 10, "y")
    book, taker = book_of(own, other), order("sell", 100, 6, "x", stp=stp)
    fills = book.submit(taker)
    assert fills[0] == Fill(own, 100, *first)
    assert fills[1:] == ([Fill(other, 100, 6)] if stp is SelfTrade.CANCEL_OLDEST else [])
    assert (own.quantity, own.resting, taker.quantity) == (own_left, own_left > 0, taker_left)


def test_cancelling_twice_or_after_a_fill_does_nothing():
    cancelled, filled = order("buy", 100, 10), order("buy", 99, 10)
    book = book_of(cancelled, filled)
    assert book.cancel(cancelled) == 10
    assert book.cancel(cancelled) == 0
    book.submit(order("sell", None, 10))
    assert book.cancel(filled) == 0


def test_the_top_is_the_known_one_as_long_as_it_is():
    book = book_of(order("buy", 100, 10))
    top = book.top()
    book.submit(order("buy", 99, 5))
    assert book.top(top) is top
    book.submit(order("buy", 100, 5))
    assert book.top(top) == Top(100, 15, None, 0)


def test_market_orders_wait_for_an_auction_before_every_limit():
    book = Book()
    limit, market = order("sell", 1, 5), order("sell", None, 7)
    book.add(limit)
    book.add(market)
    book.add(order("buy", MAX_PRICE - 1, 3))
    book.add(order("buy", None, 4))
    assert [(o.price, o.quantity) for o in book.orders()] == [(None, 4), (MAX_PRICE - 1, 3), (None, 7), (1, 5)]
    assert book.curve(bids=False) == [(None, 7), (1, 5)]
    assert [o.quantity for o in book.waiting_market_orders()] == [4, 7]


def test_an_order_rests_once_and_gives_no_more_than_it_has():
    one = order("buy", 100, 10)
    book = book_of(one)
    with pytest.raises(ValueError, match="in the book already"):
        book.add(one)
    for quantity in (0, 11):
        with pytest.raises(ValueError, match="lots in the book"):
            book.take(one, quantity)


@pytest.mark.parametrize(("price", "quantity"), [(0, 1), (-1, 1), (100, 0), (100, -5), (None, 0), (MAX_PRICE, 1)])
def test_an_order_without_a_possible_price_and_quantity_is_refused(price, quantity):
    with pytest.raises(ValueError, match="above zero"):
        order("buy", price, quantity)


def test_a_market_order_cannot_be_post_only():
    with pytest.raises(ValueError, match="post-only"):
        order("buy", None, 1, tif=TimeInForce.POST_ONLY)
