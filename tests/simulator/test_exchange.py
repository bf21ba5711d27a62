"""The session: its events must tell a consistent market, checked by rebuilding the books from them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from decimal import Decimal

import pytest

from simulator.events import (
    AgentActionFrame,
    MarketEvent,
    MarketStatsFrame,
    OrderBookSnapshotFrame,
    OrderCancelledFrame,
    OrderPlacedFrame,
    QuoteUpdateFrame,
    TradeExecutedFrame,
    TradingHaltFrame,
    TradingResumeFrame,
    format_timestamp,
    parse_frame,
)
from simulator.exchange import Exchange
from simulator.market import MarketConfig, load_market
from tests.simulator.rebuilt import RebuiltBook

START_US = 1_771_425_000_123_456
SECOND = 1_000_000
AUCTION_US = START_US + SECOND


@pytest.fixture(scope="module")
def market() -> MarketConfig:
    return load_market()


@pytest.fixture(scope="module")
def calm(market: MarketConfig) -> list[tuple[int, bytes, MarketEvent]]:
    """Twenty seconds of the default market: (event time, frame, validated event)."""
    session = Exchange(market, seed=5, start_us=START_US, duration_us=20 * SECOND)
    return [(time_us, frame, parse_frame(frame)) for time_us, frame in session.events()]


@pytest.fixture(scope="module")
def crash(market: MarketConfig) -> list[tuple[int, bytes, MarketEvent]]:
    """Four minutes of six symbols with terrible and wonderful news, and short halts."""
    value = market.value.model_copy(update={"news_per_hour": 120.0, "news_move": 0.3})
    wild = market.model_copy(update={"value": value, "symbols": market.symbols[-6:]})
    session = Exchange(wild, seed=2, start_us=START_US, activity=0.25, halt_scale=0.05, duration_us=240 * SECOND)
    return [(time_us, frame, parse_frame(frame)) for time_us, frame in session.events()]


@pytest.fixture(params=["calm", "crash"])
def session(request):
    return request.getfixturevalue(request.param)


def of_type(session, kind):
    return [event.data for _, _, event in session if isinstance(event, kind)]


def frames(market, **changes):
    settings = {"seed": 5, "start_us": START_US, "duration_us": 2 * SECOND, **changes}
    return list(Exchange(market, **settings).events())


def test_same_seed_and_start_time_give_the_same_bytes(market, calm):
    again = frames(market, duration_us=20 * SECOND)
    assert again == [(time_us, frame) for time_us, frame, _ in calm]


@pytest.mark.parametrize("change", [{"seed": 6}, {"start_us": START_US + 1}])
def test_another_seed_or_start_time_gives_another_market_with_other_ids(market, change):
    first, second = frames(market), frames(market, **change)

    def ids(some):
        events = [parse_frame(frame).data for _, frame in some]
        names = ("event_id", "order_id", "trade_id")
        return {getattr(event, name) for event in events for name in names if hasattr(event, name)}

    assert not ids(first) & ids(second)
    quantities = [
        [event.data.quantity for _, f in some if isinstance(event := parse_frame(f), OrderPlacedFrame)][:20]
        for some in (first, second)
    ]
    assert quantities[0] != quantities[1]


def test_sequence_counts_from_one_and_times_never_go_backwards(session):
    assert [event.data.sequence for _, _, event in session] == list(range(1, len(session) + 1))
    times = [time_us for time_us, _, _ in session]
    assert times == sorted(times)
    assert times[0] == START_US
    for time_us, frame, _ in session:
        assert f'"timestamp":"{format_timestamp(time_us)}"'.encode() in frame
        assert b"\n" not in frame


def test_ids_of_events_orders_and_trades_are_unique(session):
    events = [event.data.event_id for _, _, event in session]
    assert len(set(events)) == len(events)
    orders = [data.order_id for data in of_type(session, OrderPlacedFrame)]
    assert len(set(orders)) == len(orders)
    trades = [data.trade_id for data in of_type(session, TradeExecutedFrame)]
    assert len(set(trades)) == len(trades) > 0


def test_books_rebuilt_from_the_events_equal_every_quote_and_every_snapshot(session):
    books: dict[str, RebuiltBook] = defaultdict(RebuiltBook)
    newest = ""
    quotes = snapshots = 0
    for time_us, _, event in session:
        data = event.data
        book = books[data.symbol]
        match event:
            case OrderPlacedFrame():
                newest = data.order_id
            case TradeExecutedFrame():
                aggressor, maker = data.buy_order_id, data.sell_order_id
                if not data.is_aggressive_buy:
                    aggressor, maker = maker, aggressor
                assert data.buyer_agent_id != data.seller_agent_id
                if time_us != AUCTION_US:
                    assert aggressor == newest, "the aggressor is the order placed last"
                    opposite = "Sell" if data.is_aggressive_buy else "Buy"
                    assert data.price == book.best(opposite)[0], "trades happen at the best resting price"
                    assert maker == book.first(opposite)
        book.apply(event)
        match event:
            case QuoteUpdateFrame():
                quotes += 1
                assert (data.best_bid, data.best_bid_size) == book.best("Buy")
                assert (data.best_ask, data.best_ask_size) == book.best("Sell")
                if data.best_bid is not None and data.best_ask is not None:
                    assert data.spread == data.best_ask - data.best_bid > 0
            case OrderBookSnapshotFrame():
                snapshots += 1
                for side, levels in (("Buy", data.bids), ("Sell", data.asks)):
                    printed = [(level.price, level.quantity, level.order_count) for level in levels]
                    assert printed == book.side(side)[:10]
    assert quotes > 1000
    assert snapshots > 200


def test_the_market_opens_with_an_auction_after_a_second(calm):
    first = next(time_us for time_us, _, event in calm if isinstance(event, QuoteUpdateFrame))
    assert first == AUCTION_US
    before = [event for time_us, _, event in calm if time_us < AUCTION_US]
    assert any(isinstance(event, OrderPlacedFrame) for event in before)
    assert not any(isinstance(event, (TradeExecutedFrame, OrderBookSnapshotFrame)) for event in before)
    prices = defaultdict(set)
    for time_us, _, event in calm:
        if time_us == AUCTION_US and isinstance(event, TradeExecutedFrame):
            prices[event.data.symbol].add(event.data.price)
    assert all(len(seen) == 1 for seen in prices.values()), "one price a symbol"


def test_market_stats_equal_the_trades_so_far(session):
    prices: dict[str, list[Decimal]] = defaultdict(list)
    volume: dict[str, Decimal] = defaultdict(Decimal)
    notional: dict[str, Decimal] = defaultdict(Decimal)
    checked = 0
    for _, _, event in session:
        data = event.data
        if isinstance(event, TradeExecutedFrame):
            prices[data.symbol].append(data.price)
            volume[data.symbol] += data.quantity
            notional[data.symbol] += data.price * data.quantity
        elif isinstance(event, MarketStatsFrame) and volume[data.symbol]:
            checked += 1
            seen = prices[data.symbol]
            assert (data.open, data.high, data.low, data.close) == (seen[0], max(seen), min(seen), seen[-1])
            assert (data.volume, data.trade_count) == (volume[data.symbol], len(seen))
            assert abs(data.vwap - notional[data.symbol] / volume[data.symbol]) <= Decimal("0.00005")
    assert checked > 400


def test_prices_are_printed_with_two_decimals_and_quantities_whole(session):
    prices = quantities = 0
    for _, frame, _ in session:
        for price in re.findall(rb'"(?:price|best_bid|best_ask|spread|open|high|low|close)":([^,}]+)', frame):
            prices += 1
            assert price == b"null" or re.fullmatch(rb"(?:0|[1-9][0-9]*)\.[0-9]{2}", price), price
        for quantity in re.findall(rb'"(?:quantity|remaining_quantity|volume|best_bid_size)":([^,}]+)', frame):
            quantities += 1
            assert re.fullmatch(rb"0|[1-9][0-9]*", quantity), quantity
    assert prices > 10_000
    assert quantities > 10_000


def test_every_symbol_trades_and_the_mix_of_events_is_that_of_a_live_market(calm, market):
    traded = {data.symbol for data in of_type(calm, TradeExecutedFrame)}
    assert traded == {symbol.ticker for symbol in market.symbols}
    count = Counter(type(event).__name__ for _, _, event in calm)
    share = {name: 100 * number / len(calm) for name, number in count.items()}
    assert 600 <= len(calm) / 20 <= 1600, "events a second; bursts included"
    assert 25 <= share["OrderPlacedFrame"] <= 45
    assert 18 <= share["QuoteUpdateFrame"] <= 30
    assert 8 <= share["TradeExecutedFrame"] <= 20
    assert 8 <= share["AgentActionFrame"] <= 16
    assert 4 <= share["OrderCancelledFrame"] <= 18
    assert 1 <= share["OrderBookSnapshotFrame"] <= 5
    assert 1 <= share["MarketStatsFrame"] <= 5


def test_activity_multiplies_the_agents_but_not_the_clockwork(market):
    calm, busy = (Counter(f.split(b'"')[3] for _, f in frames(market, activity=a)) for a in (1.0, 3.0))
    assert 2 < busy[b"OrderPlaced"] / calm[b"OrderPlaced"] < 4
    assert busy[b"OrderBookSnapshot"] == calm[b"OrderBookSnapshot"]


def test_the_session_ends_after_its_duration(market):
    times = [time_us for time_us, _ in frames(market, duration_us=SECOND)]
    assert START_US + 0.9 * SECOND < times[-1] < START_US + SECOND


def halts_with_what_happened_in_them(crash):
    """(halt, resume or None, events of the symbol from the halt up to the resume), in the order of the halts."""
    open_halts: dict[str, list] = {}
    done = []
    for time_us, _, event in crash:
        data = event.data
        if isinstance(event, TradingHaltFrame):
            assert data.symbol not in open_halts
            open_halts[data.symbol] = [data, None, []]
            done.append(open_halts[data.symbol])
        elif isinstance(event, TradingResumeFrame):
            open_halts.pop(data.symbol)[1] = (time_us, data)
        elif data.symbol in open_halts:
            open_halts[data.symbol][2].append(event)
    return done


def test_all_three_levels_halt_and_resume(crash):
    halts = halts_with_what_happened_in_them(crash)
    assert {int(halt.level) for halt, _, _ in halts} == {1, 2, 3}
    assert sum(resume is not None for _, resume, _ in halts) > 3


def test_nothing_is_placed_or_traded_in_a_halt_and_attempts_are_rejected(crash):
    rejected = 0
    for _, _, events in halts_with_what_happened_in_them(crash):
        assert not [event for event in events if isinstance(event, (OrderPlacedFrame, TradeExecutedFrame))]
        rejected += sum(isinstance(e, AgentActionFrame) and e.data.action == "order_rejected" for e in events)
    assert rejected > 20


def test_a_halt_follows_at_once_on_the_trade_that_tripped_it(crash):
    last = None
    for _, _, event in crash:
        if isinstance(event, TradingHaltFrame):
            halt = event.data
            assert isinstance(last, TradeExecutedFrame)
            assert (last.data.symbol, last.data.price) == (halt.symbol, halt.trigger_price)
            fall = (halt.reference_price - halt.trigger_price) / halt.reference_price * 100
            assert 0 <= fall - halt.decline_pct < Decimal("0.0001")
            assert fall >= {1: 7, 2: 13, 3: 20}[halt.level]
        last = event


def test_level_one_keeps_resting_orders_and_deeper_levels_cancel_all_of_them(crash):
    kept = 0
    for halt, _, events in halts_with_what_happened_in_them(crash):
        snapshots = [event.data for event in events if isinstance(event, OrderBookSnapshotFrame)]
        if halt.level == 1:
            kept += any(snapshot.bids or snapshot.asks for snapshot in snapshots)
        else:
            assert all(not snapshot.bids and not snapshot.asks for snapshot in snapshots)
            reasons = {event.data.reason for event in events if isinstance(event, OrderCancelledFrame)}
            assert reasons <= {"TradingHalt"}
        if halt.level == 3:
            at_once = [
                e for e in events if e.data.timestamp == halt.timestamp and not isinstance(e, AgentActionFrame)
            ]
            assert isinstance(at_once[-1], OrderBookSnapshotFrame)
            assert isinstance(at_once[-2], QuoteUpdateFrame)
    assert kept > 0


def test_trading_resumes_when_the_printed_duration_is_over(crash):
    resumed = 0
    for halt, resume, _ in halts_with_what_happened_in_them(crash):
        if resume is not None:
            resumed += 1
            time_us, data = resume
            assert (data.level, data.halt_duration_secs) == (halt.level, halt.halt_duration_secs)
            assert data.halted_at == halt.timestamp
            assert (data.timestamp - halt.timestamp).total_seconds() == halt.halt_duration_secs
            assert halt.halt_duration_secs == {1: 15, 2: 30, 3: 45}[halt.level]
            assert format_timestamp(time_us).startswith(data.timestamp.strftime("%Y-%m-%dT%H:%M:%S.%f"))
    assert resumed > 3


def test_activity_must_be_positive(market):
    with pytest.raises(ValueError, match="activity"):
        Exchange(market, seed=1, start_us=START_US, activity=0)
