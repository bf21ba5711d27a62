"""The wire contract accepts what an exchange prints and refuses, with a reason, what breaks a rule."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from simulator.book import TimeInForce
from simulator.events import EVENT_TYPES, format_timestamp, parse_frame

BASE = {"event_id": "e-1", "timestamp": "2026-02-18T14:30:00.123456Z", "sequence": 7}
TRADE = BASE | {
    "trade_id": "t-1",
    "symbol": "AAPL",
    "price": 185.5,
    "quantity": 100,
    "buy_order_id": "o-1",
    "sell_order_id": "o-2",
    "buyer_agent_id": "retail-0042",
    "seller_agent_id": "mm-003",
    "is_aggressive_buy": True,
}
BOOK = BASE | {
    "symbol": "AAPL",
    "bids": [{"price": 185.4, "quantity": 10, "order_count": 1}, {"price": 185.3, "quantity": 5}],
    "asks": [{"price": 185.6, "quantity": 10, "order_count": 1}, {"price": 185.7, "quantity": 5}],
    "sequence_number": None,
}
VALID: dict[str, dict[str, Any]] = {
    "OrderPlaced": BASE
    | {
        "order_id": "o-1",
        "symbol": "AAPL",
        "side": "Buy",
        "order_type": "Limit",
        "price": 185.4,
        "quantity": 10,
        "agent_id": "retail-0042",
        "agent_type": "RetailTrader",
    },
    "OrderCancelled": BASE
    | {
        "order_id": "o-1",
        "symbol": "AAPL",
        "side": "Buy",
        "price": 185.4,
        "remaining_quantity": 0,
        "agent_id": "retail-0042",
        "reason": "AgentCancelled",
    },
    "TradeExecuted": TRADE,
    "QuoteUpdate": BASE | {"symbol": "AAPL", "best_bid": 185.4, "best_bid_size": 10, "best_ask": None},
    "OrderBookSnapshot": BOOK,
    "MarketStats": BASE
    | {
        "symbol": "AAPL",
        "open": 185,
        "high": 186,
        "low": 184,
        "close": 185.5,
        "volume": 0,
        "trade_count": 0,
        "vwap": 185.2,
    },
    "TradingHalt": {
        "symbol": "AAPL",
        "reason": "CircuitBreaker",
        "level": 1,
        "trigger_price": 172.0,
        "reference_price": 185.0,
        "decline_pct": 7.03,
        "halt_duration_secs": 300,
    },
    "TradingResume": {
        "symbol": "AAPL",
        "halted_at": "2026-02-18T14:30:00Z",
        "halt_duration_secs": 300,
        "level": 1,
    },
    "AgentAction": BASE
    | {
        "agent_id": "retail-0042",
        "agent_type": "RetailTrader",
        "symbol": "AAPL",
        "action": "momentum_limit",
        "decision_factors": ["current_price: Some(185.50)"],
    },
}


def frame(event_type: str, data: Any, **envelope: Any) -> str:
    return json.dumps({"event_type": event_type, "data": data, **envelope})


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_each_of_the_nine_events_is_accepted(event_type: str) -> None:
    assert parse_frame(frame(event_type, VALID[event_type])).event_type == event_type


@pytest.mark.parametrize("event_type", ["TradeExecuted", "QuoteUpdate", "OrderBookSnapshot"])
def test_a_frame_of_an_older_exchange_without_sequence_is_accepted(event_type: str) -> None:
    data = {key: value for key, value in VALID[event_type].items() if key != "sequence"}
    assert parse_frame(frame(event_type, data)).data.sequence is None


def test_an_order_may_say_how_long_it_stands_and_what_it_replaces() -> None:
    plain = parse_frame(frame("OrderPlaced", VALID["OrderPlaced"])).data
    assert (plain.time_in_force, plain.replaces) == (None, None)  # type: ignore[union-attr]
    more = VALID["OrderPlaced"] | {"time_in_force": "PostOnly", "replaces": "o-0"}
    data = parse_frame(frame("OrderPlaced", more)).data
    assert (data.time_in_force, data.replaces) == (TimeInForce.POST_ONLY, "o-0")  # type: ignore[union-attr]


def test_what_is_left_of_a_market_order_is_cancelled_without_a_price() -> None:
    data = VALID["OrderCancelled"] | {"price": None, "reason": "Unfilled"}
    assert parse_frame(frame("OrderCancelled", data)).data.price is None  # type: ignore[union-attr]


def test_an_envelope_timestamp_counts_where_the_data_has_none() -> None:
    at = "2026-02-18T14:30:00.000001Z"
    event = parse_frame(frame("TradingHalt", VALID["TradingHalt"], timestamp=at))
    assert event.data.timestamp == datetime(2026, 2, 18, 14, 30, 0, 1, tzinfo=UTC)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("event_type", "change", "reason"),
    [
        ("TradeExecuted", {"price": -5}, "greater than 0"),
        ("TradeExecuted", {"price": 0}, "greater than 0"),
        ("TradeExecuted", {"quantity": 0}, "greater than 0"),
        ("TradeExecuted", {"timestamp": "not a time"}, "timestamp"),
        ("TradeExecuted", {"timestamp": "2026-02-18T14:30:00"}, "timezone"),
        ("TradeExecuted", {"timestamp": 1771425000}, "not a number"),
        ("TradeExecuted", {"is_aggressive_buy": "yes"}, "boolean"),
        ("TradeExecuted", {"symbol": ""}, "at least 1 character"),
        ("OrderCancelled", {"remaining_quantity": -1}, "greater than or equal to 0"),
        ("OrderPlaced", {"price": None}, "a limit order needs a price"),
        ("OrderPlaced", {"side": "Hold"}, "Buy"),
        ("OrderPlaced", {"time_in_force": "Whenever"}, "GTC"),
        ("OrderBookSnapshot", {"bids": BOOK["asks"]}, "bids must fall"),
        ("OrderBookSnapshot", {"asks": BOOK["bids"]}, "asks must rise"),
        ("TradingHalt", {"level": 4}, "1, 2 or 3"),
    ],
)
def test_a_broken_rule_is_refused_with_its_reason(event_type: str, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        parse_frame(frame(event_type, VALID[event_type] | change))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_a_price_that_is_no_finite_number_is_refused(number: str) -> None:
    with pytest.raises(ValidationError):
        parse_frame(frame("TradeExecuted", TRADE).replace("185.5", number))


@pytest.mark.parametrize("text", ["", "{", "5", "[1, 2]", "null", "{}", '{"event_type": "Nonsense", "data": {}}'])
def test_what_is_no_event_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        parse_frame(text)


@given(st.decimals("0.00000001", "9999999", places=8), st.decimals("0.00000001", "9999999", places=8))
def test_fractional_prices_and_quantities_stay_exact(price: Decimal, quantity: Decimal) -> None:
    text = frame("TradeExecuted", TRADE | {"price": "PRICE", "quantity": "QUANTITY"})
    trade = parse_frame(text.replace('"PRICE"', f"{price:f}").replace('"QUANTITY"', f"{quantity:f}")).data
    assert (trade.price, trade.quantity) == (price, quantity)  # type: ignore[union-attr]


@given(st.integers(0, 4_102_444_799_999_999))
def test_a_formatted_timestamp_reads_back_to_the_same_microsecond(epoch_us: int) -> None:
    text = format_timestamp(epoch_us)
    assert len(text) == 27
    read = datetime.fromisoformat(text)
    assert (read - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() == pytest.approx(epoch_us / 1e6, abs=2e-6)
    assert read.microsecond == epoch_us % 1_000_000
