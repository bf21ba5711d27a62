"""The six kinds of agents, recognised by what they do on the wire."""

from __future__ import annotations

from collections import Counter, defaultdict
from random import Random
from statistics import median

import pytest

from simulator.agents import draw_size
from simulator.events import (
    AgentType,
    OrderCancelledFrame,
    OrderPlacedFrame,
    OrderType,
    TradeExecutedFrame,
    parse_frame,
)
from simulator.exchange import Exchange
from simulator.market import load_market


@pytest.fixture(scope="module")
def events():
    session = Exchange(load_market(), seed=3, start_us=1_771_425_000_000_000, duration_us=20_000_000)
    return [parse_frame(frame) for _, frame in session.events()]


@pytest.fixture(scope="module")
def orders(events):
    """Orders by kind, the kind being the agent id's prefix."""
    placed = defaultdict(list)
    for event in events:
        if isinstance(event, OrderPlacedFrame):
            placed[event.data.agent_id.split("-")[0]].append(event.data)
    return placed


@pytest.mark.parametrize(
    ("kind", "agent_type", "low", "high"),
    [
        ("retail", AgentType.RETAIL, 10, 500),
        ("noise", AgentType.RETAIL, 10, 200),
        ("informed", AgentType.RETAIL, 200, 2_000),
        ("inst", AgentType.INSTITUTIONAL, 1, 1_000),  # a slice of an order of 1,000 to 10,000
        ("mm", AgentType.MARKET_MAKER, 100, 1_000),
        ("hft", AgentType.HIGH_FREQUENCY, 50, 500),
    ],
)
def test_every_kind_trades_in_its_sizes_and_announces_its_type(orders, kind, agent_type, low, high):
    assert len(orders[kind]) >= 5
    assert {order.agent_type for order in orders[kind]} == {agent_type}
    sizes = [order.quantity for order in orders[kind]]
    assert low <= min(sizes)
    assert max(sizes) <= high
    if len(sizes) > 100:
        assert max(sizes) > 2 * min(sizes), "sizes vary"


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [("retail", 65, 75), ("noise", 40, 60), ("inst", 3, 20), ("mm", 0, 0), ("hft", 0, 0), ("informed", 5, 40)],
)
def test_every_kind_has_its_share_of_market_orders(orders, kind, low, high):
    market = sum(order.order_type is OrderType.MARKET for order in orders[kind])
    assert low <= 100 * market / len(orders[kind]) <= high


def test_market_makers_quote_both_sides_of_every_symbol(orders):
    sides = {(order.symbol, order.side) for order in orders["mm"]}
    assert len(sides) == 48


def test_high_frequency_traders_cancel_a_large_part_of_what_they_place(events, orders):
    cancelled = Counter(e.data.agent_id.split("-")[0] for e in events if isinstance(e, OrderCancelledFrame))
    assert cancelled["hft"] > 0.25 * len(orders["hft"])


def test_market_makers_keep_their_inventory_within_bounds(events):
    position: Counter[tuple[str, str]] = Counter()
    for event in events:
        if isinstance(event, TradeExecutedFrame):
            position[event.data.buyer_agent_id, event.data.symbol] += int(event.data.quantity)
            position[event.data.seller_agent_id, event.data.symbol] -= int(event.data.quantity)
    assert sum(position.values()) == 0
    assert max(abs(shares) for (agent, _), shares in position.items() if agent.startswith("mm-")) < 20_000


def test_prices_follow_the_value_when_informed_agents_trade():
    market = load_market()
    value = market.value.model_copy(update={"news_per_hour": 60.0, "news_move": 0.1})
    lively = market.model_copy(update={"value": value})
    session = Exchange(lively, seed=4, start_us=1_771_425_000_000_000, duration_us=40_000_000)
    for _ in session.events():
        pass
    off, moved = [], []
    for listing in session.listings:
        worth = listing.fundamental.ticks(session.now_us)
        off.append(abs(listing.last / worth - 1))
        moved.append(abs(worth / listing.breaker.reference_price - 1))
    assert median(off) < 0.0015, "where no news came in the last seconds, the price is right"
    assert median(moved) > 2 * median(off)


def test_sizes_stay_within_their_bounds():
    rng = Random(1)
    sizes = [draw_size(rng, 10, 500) for _ in range(2_000)]
    assert min(sizes) == 10
    assert 450 <= max(sizes) <= 500
    assert sorted(sizes)[1000] < 110, "small orders are the common ones"
