"""The six kinds of agents, recognised by what they do on the wire."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import groupby
from statistics import median

import pytest

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
        ("inst", AgentType.INSTITUTIONAL, 1, 10_000),  # a slice of an order of 1,000 to 10,000
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


def small_market(symbols=1, **counts):
    """A few symbols with makers and high-frequency traders, and the given others."""
    market = load_market()
    agents = dict.fromkeys(type(market.agents).model_fields, 0) | {"market_makers": 10, "hft_traders": 15} | counts
    return market.model_copy(
        update={"symbols": market.symbols[:symbols], "agents": market.agents.model_copy(update=agents)}
    )


def test_an_institution_works_each_order_in_slices_over_seconds():
    session = Exchange(
        small_market(institutional_investors=1), seed=6, start_us=1_771_425_000_000_000, duration_us=240_000_000
    )
    fills = []
    for time_us, frame in session.events():
        if b'"TradeExecuted"' in frame[:40] and b'"inst-0000"' in frame:
            trade = parse_frame(frame).data
            fills.append((time_us, trade.buyer_agent_id == "inst-0000", int(trade.quantity)))
    runs = [list(run) for _, run in groupby(fills, key=lambda fill: fill[1])]
    assert len(runs) >= 5, "orders of both directions"
    for run in runs[:-1]:
        assert sum(quantity for _, _, quantity in run) >= 1_000, "no order is smaller"
    assert median(run[-1][0] - run[0][0] for run in runs[:-1]) > 2_000_000
    assert median(len({time_us for time_us, _, _ in run}) for run in runs[:-1]) >= 3


def test_vwap_trades_more_of_its_orders_than_twap_while_the_symbol_is_busy():
    market = small_market(symbols=6, institutional_investors=12)
    session = Exchange(market, seed=8, start_us=1_771_425_000_000_000, duration_us=90_000_000)
    values = {listing.symbol: listing.fundamental for listing in session.listings}
    weighted, shares = Counter(), Counter()
    for _, frame in session.events():
        if b'"TradeExecuted"' in frame[:40] and b'"inst-' in frame:
            trade = parse_frame(frame).data
            for agent in (trade.buyer_agent_id, trade.seller_agent_id):
                if agent.startswith("inst-"):
                    style = "vwap" if int(agent[-4:]) % 2 else "twap"
                    weighted[style] += values[trade.symbol].activity * int(trade.quantity)
                    shares[style] += int(trade.quantity)
    # With one schedule for both the two agree within some 15 %.
    assert weighted["vwap"] / shares["vwap"] > 2 * weighted["twap"] / shares["twap"]


def test_agents_use_the_kinds_of_orders_that_real_ones_would(events, orders):
    def share(kind, tif):
        limits = [order for order in orders[kind] if order.order_type is OrderType.LIMIT]
        return sum(order.time_in_force == tif for order in limits) / len(limits)

    assert share("hft", "PostOnly") > 0.7, "the rest replaces an order"
    assert share("informed", "IOC") == 1
    assert 0.1 < share("inst", "IOC") < 0.9
    assert share("retail", None) == 1
    replaced = Counter(
        order.agent_id.split("-")[0] for kind in orders.values() for order in kind if order.replaces
    )
    assert replaced["mm"] > 100
    assert replaced["hft"] > 20


def test_makers_quote_lower_the_more_they_hold():
    def middle_of_quotes(held):
        session = Exchange(small_market(), seed=9, start_us=1_771_425_000_000_000, duration_us=20_000_000)
        for agent in session.agents:
            agent.positions["AAPL"] = held if agent.kind == "market_makers" else 0
        quotes = []
        for _, frame in session.events():
            if b'"OrderPlaced"' in frame[:40] and b'"mm-' in frame:
                quotes.append(float(parse_frame(frame).data.price) * 100)
        return median(quotes) - session.listings[0].fundamental.value

    long, flat, short = (middle_of_quotes(held) for held in (5_000, 0, -5_000))
    assert long < flat - 1
    assert short > flat + 1


def test_an_institution_waits_while_its_symbol_is_halted():
    market = small_market(institutional_investors=1, informed_traders=8)
    value = market.value.model_copy(update={"news_per_hour": 720.0, "news_move": 1.0})
    session = Exchange(
        market.model_copy(update={"value": value}),
        seed=3,
        start_us=1_771_425_000_000_000,
        duration_us=100_000_000,
        halt_scale=0.02,
    )
    halted, halts, sent = False, 0, Counter()
    for _, frame in session.events():
        if frame.startswith(b'{"event_type":"TradingHalt"'):
            halted, halts = True, halts + 1
        elif frame.startswith(b'{"event_type":"TradingResume"'):
            halted = False
        elif b'"inst-0000"' in frame and b'"AgentAction"' in frame[:40]:
            sent[halted] += 1
    assert halts
    assert sent[False] > 20
    assert sent[True] == 0
