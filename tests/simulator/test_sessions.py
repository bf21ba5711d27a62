"""What stops and starts the matching engine: halts, the phases of the day, limit-up/limit-down pauses."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.book import TimeInForce
from simulator.events import TradeExecutedFrame
from simulator.matching import Phase
from tests.simulator.floor import Floor
from tests.simulator.rebuilt import RebuiltBook

# --- halts


def test_a_halt_stops_between_two_fills_and_what_is_left_is_cancelled():
    floor = Floor()
    for price in (10_000, 9_200, 9_100):
        floor.send(0, "buy", 10, price)
    floor.story()
    floor.send(1, "sell", 30)
    assert floor.story() == [
        "placed Sell 30 at None",
        "traded 10 at 100.00",
        "traded 10 at 92.00",
        "halt CircuitBreaker 1 at 92.00",
        "cancelled 10 at None: TradingHalt",
        "quote 10 91.00 / None 0",
    ]


def test_a_fill_or_kill_order_is_filled_before_trading_halts_at_the_deepest_level_reached():
    floor = Floor()
    for price in (9_200, 8_600, 8_500):
        floor.send(0, "buy", 10, price)
    floor.story()
    floor.send(1, "sell", 20, 8_600, tif=TimeInForce.FOK)
    assert floor.story()[1:5] == [
        "traded 10 at 92.00",
        "traded 10 at 86.00",
        "halt CircuitBreaker 2 at 86.00",
        "cancelled 10 at 85.00: TradingHalt",
    ]


def test_in_a_halt_orders_are_cancelled_and_reduced_but_not_placed_or_moved():
    floor = Floor()
    one, two = floor.send(0, "buy", 10, 9_000), floor.send(0, "buy", 20, 9_000)
    floor.send(0, "buy", 10, 9_300)
    floor.send(1, "sell", 10)
    floor.story()
    assert floor.send(1, "sell", 10, 9_500) is None
    assert floor.replace(two, 9_001, 20) is None
    assert floor.replace(two, 9_000, 5) is two
    floor.engine.cancel(floor.listing, one)
    assert floor.story() == [
        "AgentAction",
        "cancelled 15 at 90.00: Reduced",
        "quote 15 90.00 / None 0",
        "cancelled 10 at 90.00: AgentCancelled",
        "quote 5 90.00 / None 0",
    ]
    floor.at(300)
    assert floor.story() == ["TradingResume"]
    assert floor.send(1, "sell", 10, 9_500) is not None


# --- the day


def test_orders_rest_silently_before_the_opening_auction_and_trade_at_one_price_in_it():
    floor = Floor(phase=Phase.PRE_OPEN)
    floor.send(0, "buy", 10, 10_020)
    floor.send(1, "buy", 20)
    floor.send(2, "sell", 25, 9_990, tif=TimeInForce.POST_ONLY)
    floor.send(3, "sell", 5, 10_040)
    floor.send(3, "buy", 5, 10_040, tif=TimeInForce.IOC)
    floor.engine.print_snapshot(floor.listing)
    assert floor.story() == [
        "placed Buy 10 at 100.20",
        "placed Buy 20 at None",
        "placed Sell 25 at 99.90",
        "placed Sell 5 at 100.40",
        "placed Buy 5 at 100.40",
        "cancelled 5 at 100.40: Unfilled",
    ]
    floor.engine.enter(Phase.CONTINUOUS)
    # 25 execute at 99.90 to 100.20, and the reference price is one of these.
    assert floor.story() == ["traded 20 at 100.00", "traded 5 at 100.00", "quote 5 100.20 / 100.40 5"]


def test_market_orders_that_find_nobody_in_an_auction_lapse():
    floor = Floor(phase=Phase.PRE_OPEN)
    floor.send(0, "buy", 10)
    floor.send(1, "sell", 4, 10_030)
    floor.story()
    floor.engine.enter(Phase.CONTINUOUS)
    assert floor.story() == ["traded 4 at 100.30", "cancelled 6 at None: Unfilled"]


def test_an_agent_that_meets_itself_in_an_auction_loses_both_sides():
    floor = Floor(phase=Phase.PRE_OPEN)
    floor.send(0, "buy", 10, 10_000)
    floor.send(0, "sell", 4, 10_000)
    floor.story()
    floor.engine.enter(Phase.CONTINUOUS)
    assert floor.story() == [
        "cancelled 4 at 100.00: SelfTradePrevention",
        "cancelled 4 at 100.00: SelfTradePrevention",
        "quote 6 100.00 / None 0",
    ]


def test_the_day_closes_with_an_auction_and_the_next_begins_at_its_price():
    floor = Floor()
    floor.send(0, "buy", 10, 9_900)
    floor.send(1, "sell", 10, 9_700)
    floor.send(1, "sell", 5, 9_950)
    floor.story()
    floor.engine.enter(Phase.CLOSING_CALL)
    floor.send(2, "buy", 8, 9_960)
    assert floor.story() == ["placed Buy 8 at 99.60"]
    floor.engine.enter(Phase.CLOSED)
    assert floor.story() == [
        "traded 5 at 99.50",
        "quote 3 99.60 / None 0",
        "cancelled 3 at 99.60: Expired",
        "quote 0 None / None 0",
    ]
    assert floor.send(2, "buy", 8, 9_960) is None
    (rejected,) = floor.events()
    assert rejected.data.decision_factors == ["reason: MarketClosed", "side: Buy"]
    floor.engine.enter(Phase.PRE_OPEN)
    listing = floor.listing
    assert (listing.open, listing.volume, listing.breaker.reference_price) == (9_950, 0, 9_950)
    floor.send(0, "buy", 1, 9_000)
    assert floor.story() == ["placed Buy 1 at 90.00"]


def test_an_opening_auction_far_below_the_reference_halts():
    floor = Floor(phase=Phase.PRE_OPEN)
    floor.send(0, "buy", 10, 9_000)
    floor.send(1, "sell", 10, 8_900)
    floor.story()
    floor.engine.enter(Phase.CONTINUOUS)
    assert floor.story() == ["traded 10 at 90.00", "halt CircuitBreaker 1 at 90.00"]


def test_a_halt_outlasts_the_close():
    floor = Floor()
    floor.send(0, "buy", 10, 9_300)
    floor.send(0, "buy", 10, 9_000)
    floor.send(1, "sell", 10)
    floor.engine.enter(Phase.CLOSING_CALL)
    floor.story()
    floor.engine.enter(Phase.CLOSED)
    assert floor.story() == ["cancelled 10 at 90.00: Expired", "quote 0 None / None 0"]
    floor.engine.enter(Phase.PRE_OPEN)
    assert floor.send(1, "sell", 10, 9_300) is None
    floor.at(300)
    assert floor.story()[-1] == "TradingResume"
    assert floor.send(1, "sell", 10, 9_300).resting


# --- limit-up/limit-down


def test_a_price_through_a_band_is_accepted_at_the_band_and_a_market_order_stops_there():
    floor = Floor(percent=5)
    floor.send(0, "sell", 10, 10_490)
    floor.send(0, "sell", 10, 10_600)
    floor.story()
    floor.send(1, "buy", 15)
    floor.send(1, "buy", 5, 99_999, tif=TimeInForce.IOC)
    assert floor.story() == [
        "placed Buy 15 at None",
        "traded 10 at 104.90",
        "cancelled 5 at None: Unfilled",
        "quote 0 None / 106.00 10",
        "placed Buy 5 at 105.00",
        "cancelled 5 at 105.00: Unfilled",
    ]


def test_after_an_auction_the_bands_lie_around_its_price():
    floor = Floor(phase=Phase.PRE_OPEN, percent=5)
    floor.send(0, "buy", 10, 10_400)
    floor.send(1, "sell", 10, 10_400)
    floor.engine.enter(Phase.CONTINUOUS)
    bands = floor.listing.bands
    assert (bands.reference, bands.lower, bands.upper) == (10_400, 9_880, 10_920)
    assert floor.send(3, "sell", 5, 9_000).price == 9_880


def test_a_quote_at_a_band_for_fifteen_seconds_pauses_and_an_auction_reopens():
    floor = Floor(percent=5)
    floor.send(0, "buy", 10, 12_000)
    floor.story()
    floor.at(14.9)
    assert floor.story() == []
    floor.at(15)
    (halt,) = floor.events()
    assert (halt.data.reason, halt.data.level) == ("LimitUpLimitDown", 1)
    assert (halt.data.trigger_price, halt.data.reference_price) == (105, 100)
    assert (halt.data.decline_pct, halt.data.halt_duration_secs) == (-5, 300)
    floor.send(1, "sell", 4, 9_000)
    assert floor.story() == ["placed Sell 4 at 95.00"], "collected, at the band"
    floor.at(315)
    assert floor.story() == ["TradingResume", "traded 4 at 100.00", "quote 6 105.00 / None 0"]


def test_a_quote_that_leaves_the_band_in_time_does_not_pause():
    floor = Floor(percent=5)
    order = floor.send(0, "sell", 10, 9_000)
    floor.at(10)
    floor.engine.cancel(floor.listing, order)
    floor.at(12)
    floor.send(0, "sell", 10, 9_000)
    floor.at(26.9)
    assert "halt" not in " ".join(floor.story())
    floor.at(27)
    assert floor.story() == ["halt LimitUpLimitDown 1 at 95.00"]


def test_orders_beyond_bands_that_have_moved_are_cancelled():
    floor = Floor(percent=5)
    floor.send(0, "sell", 10, 10_450)
    floor.send(1, "buy", 10, 10_450)
    floor.send(0, "sell", 7, 9_600)
    floor.at(31)
    floor.story()
    floor.send(1, "buy", 1, 9_000)
    assert floor.story() == ["placed Buy 1 at 90.00", "cancelled 7 at 96.00: PriceBand", "quote 1 90.00 / None 0"]
    assert (floor.listing.bands.reference, floor.listing.bands.lower) == (10_450, 9_928)


bands_steps = st.lists(
    st.tuples(
        st.integers(0, 3), st.booleans(), st.one_of(st.none(), st.integers(8_000, 12_000)), st.integers(1, 20)
    ),
    max_size=80,
)


@settings(max_examples=100)
@given(bands_steps)
def test_no_trade_of_continuous_trading_lies_outside_the_bands_and_readers_keep_up(steps):
    floor, rebuilt = Floor(percent=5, scale=0.2), RebuiltBook()
    for number, (agent, is_buy, price, quantity) in enumerate(steps, 1):
        floor.at(4 * number)
        collecting = floor.listing.halt is not None
        lower, upper = floor.listing.bands.lower, floor.listing.bands.upper
        for event in floor.events():
            rebuilt.apply(event)
        floor.send(agent, "buy" if is_buy else "sell", quantity, price)
        for event in floor.events():
            rebuilt.apply(event)
            if isinstance(event, TradeExecutedFrame):
                assert not collecting
                assert lower <= event.data.price * 100 <= upper
        resting = {(o.price, o.quantity) for o in floor.listing.book.orders()}
        assert {(None if o[1] is None else o[1] * 100, o[2]) for o in rebuilt.orders.values()} == resting
        if floor.listing.halt is None:
            top = floor.listing.book.top()
            assert top == floor.listing.top
            assert top.bid is None or top.bid <= floor.listing.bands.upper
            assert top.ask is None or top.ask >= floor.listing.bands.lower
