"""An order's way through the matching engine: its events must tell every book and every account."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.book import SelfTrade, TimeInForce
from simulator.events import OrderCancelledFrame, TradeExecutedFrame, parse_frame
from tests.simulator.floor import SECOND, Floor
from tests.simulator.naive_book import NaiveBook, NaiveOrder
from tests.simulator.rebuilt import RebuiltBook

# --- every order type, against the naive book

places = st.tuples(
    st.just("place"),
    st.integers(0, 3),
    st.booleans(),
    st.one_of(st.none(), st.integers(9_995, 10_005)),
    st.integers(1, 50),
    st.sampled_from([TimeInForce.GTC, TimeInForce.GTC, *TimeInForce]),
    st.sampled_from(SelfTrade),
    st.sampled_from([0, 0, 3 * SECOND]),
)
cancels = st.tuples(st.just("cancel"), st.integers(0, 200))
replacements = st.tuples(st.just("replace"), st.integers(0, 200), st.integers(-2, 2), st.integers(1, 60))
steps_of = st.lists(st.one_of(places, places, places, cancels, replacements), max_size=60)


def play(floor: Floor, steps, after_each=lambda *_: None) -> None:
    """One step a second, the same calls for the same steps."""
    orders = []
    for second, step in enumerate(steps, 1):
        floor.at(second)
        if step[0] == "place":
            _, agent, is_buy, price, quantity, tif, stp, lifetime_us = step
            if price is None and tif is TimeInForce.POST_ONLY:
                continue
            order = floor.send(
                agent, "buy" if is_buy else "sell", quantity, price, tif=tif, stp=stp, lifetime_us=lifetime_us
            )
            orders.append(order)
            after_each(second, step, order, None)
        elif orders:
            order = orders[step[1] % len(orders)]
            if step[0] == "cancel":
                floor.engine.cancel(floor.listing, order)
                after_each(second, step, order, None)
            else:
                price = order.price or 10_000
                new = floor.replace(order, price + step[2], step[3])
                if new is not None and new is not order:
                    orders.append(new)
                after_each(second, step, order, new)


@settings(max_examples=200)
@given(steps_of)
def test_fills_and_books_equal_those_of_a_naive_book_and_of_a_reader_after_every_step(steps):
    floor, naive, rebuilt = Floor(), NaiveBook(), RebuiltBook()
    expiries: dict[int, int] = {}
    traded: list[tuple[Decimal, Decimal]] = []
    placed = gone = 0

    def number(order_id: str) -> int:
        return int(order_id.rsplit("-", 1)[1])

    def check(second, step, order, new):
        nonlocal placed, gone
        for due in sorted(expiries, key=lambda n: (expiries[n], n)):
            if expiries[due] <= second:
                naive.cancel(due)
                del expiries[due]
        if step[0] == "place":
            _, agent, is_buy, price, quantity, tif, stp, lifetime_us = step
            twin = NaiveOrder(order.number, agent, is_buy, price, quantity, tif.value, stp.value)
            fills = naive.submit(twin)
            assert order.resting == (naive.find(order.number) is not None)
            if lifetime_us and order.resting:
                expiries[order.number] = second + 3
        elif step[0] == "cancel":
            fills = []
            naive.cancel(order.number)
        else:
            was_there = naive.find(order.number) is not None
            assert was_there == (new is not None)
            fills = naive.replace(
                order.number, (order.price or 10_000) + step[2], step[3], new.number if new else -1
            )
            if new is not None and new is not order and order.number in expiries:
                expiries[new.number] = expiries.pop(order.number)
        prices = [Decimal(price) / 100 for _, price, quantity, _, _ in fills if quantity]
        events = floor.events()
        trades = [event.data for event in events if isinstance(event, TradeExecutedFrame)]
        assert [(t.price, t.quantity) for t in trades] == list(
            zip(prices, [fill[2] for fill in fills if fill[2]], strict=True)
        )
        for event in events:
            rebuilt.apply(event)
            if event.event_type == "OrderPlaced":
                placed += int(event.data.quantity)
            elif isinstance(event, TradeExecutedFrame):
                assert event.data.buyer_agent_id != event.data.seller_agent_id
                gone += 2 * int(event.data.quantity)
                traded.append((event.data.price, event.data.quantity))
            elif isinstance(event, OrderCancelledFrame):
                gone += int(event.data.remaining_quantity)
        resting = [(o.number, o.price, o.quantity) for o in floor.listing.book.orders()]
        assert resting == naive.in_priority()
        assert {(number(i), o[1] * 100, o[2]) for i, o in rebuilt.orders.items()} == set(resting)
        assert placed == gone + sum(quantity for _, _, quantity in resting)
        top = floor.listing.top
        assert top == floor.listing.book.top(), "the quote printed last is the top of book"
        assert top.bid is None or top.ask is None or top.bid < top.ask
        assert sum(agent.cash for agent in floor.agents) == 0
        assert sum(agent.positions.get("AAPL", 0) for agent in floor.agents) == 0

    play(floor, steps, check)
    bought = sum(max(0, agent.positions.get("AAPL", 0)) for agent in floor.agents)
    assert bought <= sum(quantity for _, quantity in traded) == floor.listing.volume
    assert sum(price * quantity for price, quantity in traded) * 100 == floor.listing.notional
    floor.at(len(steps) + 10)
    sequences = [parse_frame(frame).data.sequence for frame in floor.frames.pending]
    assert sequences == list(range(1, len(sequences) + 1))
    assert not floor.engine.plans


@settings(max_examples=50)
@given(steps_of)
def test_the_same_orders_give_the_same_bytes(steps):
    first, second = Floor(), Floor()
    play(first, steps)
    play(second, steps)
    assert first.frames.pending == second.frames.pending


# --- replacing


def test_a_smaller_quantity_at_the_same_price_keeps_the_place_and_prints_what_was_taken_away():
    floor = Floor()
    first, _ = floor.send(0, "buy", 50, 9_990), floor.send(1, "buy", 50, 9_990)
    floor.story()
    assert floor.replace(first, 9_990, 20) is first
    assert floor.story() == ["cancelled 30 at 99.90: Reduced", "quote 70 99.90 / None 0"]
    floor.send(2, "sell", 30)
    assert [first.quantity, first.resting] == [0, False]
    assert floor.replace(first, 9_990, 5) is None, "it is gone"


@pytest.mark.parametrize(("price", "quantity"), [(9_990, 60), (9_989, 50), (9_991, 10)])
def test_anything_else_is_a_new_order_behind_the_others(price, quantity):
    floor = Floor()
    first, _ = floor.send(0, "buy", 50, 9_990), floor.send(1, "buy", 50, price)
    floor.events()
    new = floor.replace(first, price, quantity)
    assert new is not first
    cancelled, placed, *_ = floor.events()
    assert (cancelled.data.reason, cancelled.data.remaining_quantity) == ("Replaced", 50)
    assert (placed.data.replaces, placed.data.quantity) == (cancelled.data.order_id, quantity)
    floor.send(2, "sell", 50)
    assert new.quantity == quantity, "the other one is filled first"


def test_the_same_price_and_quantity_change_nothing():
    floor = Floor()
    order = floor.send(0, "buy", 50, 9_990)
    floor.events()
    assert floor.replace(order, 9_990, 50) is order
    assert floor.events() == []


def test_a_replacement_may_trade_and_keeps_the_time_of_its_expiry():
    floor = Floor()
    order = floor.send(0, "buy", 50, 9_990, lifetime_us=5 * SECOND)
    floor.send(1, "sell", 20, 10_010)
    floor.at(4)
    floor.story()
    floor.replace(order, 10_010, 50)
    assert floor.story() == [
        "cancelled 50 at 99.90: Replaced",
        "placed Buy 50 at 100.10",
        "traded 20 at 100.10",
        "quote 30 100.10 / None 0",
    ]
    floor.at(5)
    assert floor.story() == ["cancelled 30 at 100.10: Expired", "quote 0 None / None 0"]


@pytest.mark.parametrize(("price", "quantity"), [(0, 5), (9_990, 0)])
def test_a_replacement_without_price_or_quantity_is_refused(price, quantity):
    floor = Floor()
    order = floor.send(0, "buy", 50, 9_990)
    with pytest.raises(ValueError, match="above zero"):
        floor.replace(order, price, quantity)
    assert order.resting


# --- what the events say of the other kinds


def test_what_cannot_trade_or_must_not_is_cancelled_with_its_reason():
    floor = Floor()
    floor.send(0, "sell", 10, 10_000)
    floor.story()
    floor.send(1, "buy", 30, 10_000, tif=TimeInForce.FOK)
    floor.send(1, "buy", 30, 10_000, tif=TimeInForce.POST_ONLY)
    floor.send(1, "buy", 30, 10_000, tif=TimeInForce.IOC)
    floor.send(1, "buy", 30)
    assert [line for line in floor.story() if "placed" not in line] == [
        "cancelled 30 at 100.00: Unfilled",
        "cancelled 30 at 100.00: PostOnly",
        "traded 10 at 100.00",
        "cancelled 20 at 100.00: Unfilled",
        "quote 0 None / None 0",
        "cancelled 30 at None: Unfilled",
    ]


def test_the_time_in_force_is_printed_where_it_is_not_good_till_cancelled():
    floor = Floor()
    for tif in TimeInForce:
        floor.send(0, "buy", 10, 9_990, tif=tif)
    printed = [event.data.time_in_force for event in floor.events() if event.event_type == "OrderPlaced"]
    assert printed == [None, TimeInForce.IOC, TimeInForce.FOK, TimeInForce.POST_ONLY]
