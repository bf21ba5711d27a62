"""A session as a whole: its orders replayed, its accounts added up, its days one after another."""

from __future__ import annotations

from collections import Counter, defaultdict
from decimal import Decimal
from hashlib import blake2b

import pytest

from simulator.book import Order
from simulator.events import (
    MarketStatsFrame,
    OrderBookSnapshotFrame,
    OrderPlacedFrame,
    TradeExecutedFrame,
    parse_frame,
)
from simulator.exchange import Exchange
from simulator.market import AgentCounts, MarketConfig, Sessions, load_market
from tests.simulator.rebuilt import RebuiltBook

START_US = 1_771_425_000_123_456
SECOND = 1_000_000


@pytest.fixture(scope="module")
def market() -> MarketConfig:
    return load_market()


def test_replaying_the_recorded_orders_gives_the_same_events(market):
    """What agents sent, played into an exchange without agents, is the same stream, to the last byte."""
    settings = {"seed": 5, "start_us": START_US, "duration_us": 5 * SECOND}
    session = Exchange(market, **settings)
    engine, sent = session.engine, []

    def record(name):
        call = getattr(engine, name)

        def recorded(*arguments, **options):
            after, time_us = engine.frames.sequence, engine.now_us
            result = call(*arguments, **options)
            sent.append((after, time_us, name, arguments, options, result))
            return result

        setattr(engine, name, recorded)

    for name in ("submit", "replace", "explain"):
        record(name)
    cancel = engine.cancel

    def recorded_cancel(listing, order, reason="AgentCancelled"):
        if reason == "AgentCancelled":  # the others are the engine's own
            sent.append((engine.frames.sequence, engine.now_us, "cancel", (listing, order), {}, None))
        cancel(listing, order, reason)

    engine.cancel = recorded_cancel
    stream = [frame for _, frame in session.events()]
    assert {"submit", "cancel", "explain"} <= {name for _, _, name, *_ in sent}

    nobody = market.model_copy(update={"agents": AgentCounts(**dict.fromkeys(AgentCounts.model_fields, 0))})
    again = Exchange(nobody, **settings)
    listings = {listing.symbol: listing for listing in again.listings}
    twins: dict[int, object] = {}

    def play(name, arguments, options, result):
        first, second, *rest = arguments
        if name in ("submit", "explain"):
            done = getattr(again.engine, name)(first, listings[second.symbol], *rest, **options)
        else:
            done = getattr(again.engine, name)(listings[first.symbol], twins[second.number], **options)
        if isinstance(result, Order):
            twins[result.number] = done

    events = again.events()
    played: list[bytes] = []
    for after, time_us, *call in sent:
        if call[0] == "explain" and call[1][2] == "order_rejected":
            continue  # printed by the rejection itself
        while len(played) < after:
            played.append(next(events)[1])
        again.engine.now_us = time_us
        again.engine.frames.at(time_us)
        play(*call)
    played += [frame for _, frame in events]
    assert blake2b(b"".join(played)).digest() == blake2b(b"".join(stream)).digest()


def test_shares_and_cash_of_all_agents_are_conserved(market):
    session = Exchange(market, seed=5, start_us=START_US, duration_us=5 * SECOND)
    bought: Counter[tuple[str, str]] = Counter()
    paid: Counter[str] = Counter()
    for _, frame in session.events():
        event = parse_frame(frame)
        if isinstance(event, TradeExecutedFrame):
            data = event.data
            bought[data.buyer_agent_id, data.symbol] += int(data.quantity)
            bought[data.seller_agent_id, data.symbol] -= int(data.quantity)
            paid[data.buyer_agent_id] += int(data.price * 100 * data.quantity)
            paid[data.seller_agent_id] -= int(data.price * 100 * data.quantity)
    assert len(paid) > 50
    for agent in session.agents:
        assert agent.cash == -paid[agent.agent_id]
        assert agent.positions == {s: n for (a, s), n in bought.items() if a == agent.agent_id}
    assert sum(agent.cash for agent in session.agents) == 0


def test_a_configured_day_closes_and_the_next_opens_at_its_prices(market):
    day = Sessions(pre_open_seconds=1, trading_seconds=4, closing_call_seconds=1, closed_seconds=3)
    small = market.model_copy(update={"sessions": day, "symbols": market.symbols[:4]})
    books: dict[str, RebuiltBook] = defaultdict(RebuiltBook)
    last: dict[str, Decimal] = {}
    placed = Counter()
    trades_of_day = [0, 0]
    session = Exchange(small, seed=5, start_us=START_US, duration_us=18 * SECOND)
    for time_us, frame in session.events():
        event = parse_frame(frame)
        data, second = event.data, (time_us - START_US) / SECOND % 9
        books[data.symbol].apply(event)
        if isinstance(event, OrderPlacedFrame):
            placed[int(second)] += 1
            assert second < 6, "nothing is placed while the market is closed"
        elif isinstance(event, TradeExecutedFrame):
            assert 1 <= second < 5 or second == 6, "in continuous trading and in the auctions"
            last[data.symbol] = data.price
            trades_of_day[time_us >= START_US + 9 * SECOND] += 1
        elif isinstance(event, OrderBookSnapshotFrame) and second > 6:
            assert not data.bids
            assert not data.asks
        elif isinstance(event, MarketStatsFrame) and (time_us == START_US + 9 * SECOND or 9 < second < 10):
            assert (data.open, data.close, data.volume) == (last[data.symbol], last[data.symbol], 0)
        if 6 < second < 9:
            assert not books[data.symbol].orders
    assert all(placed[second] for second in range(6))
    assert min(trades_of_day) > 100
