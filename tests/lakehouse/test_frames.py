"""Frames → rows of bronze: exact, complete, or refused with a reason."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from lakehouse.frames import BLOCK, EVENTS_OF_TABLE, FrameParser, Records
from lakehouse.tables import TABLES, arrow_schema
from lakehouse.texts import Keys, Texts
from simulator.events import EVENT_TYPES
from simulator.exchange import Exchange
from simulator.market import load_market
from tests.frames import frames, one_wrong_at_a_time

NOW = datetime(2026, 3, 2, 10, tzinfo=UTC)
EVENT = {"event_id": "e1", "timestamp": "2026-03-02T09:30:00.123456Z", "sequence": 7, "symbol": "AAPL"}
TRADE = {
    **EVENT,
    "trade_id": "t1",
    "buy_order_id": "b",
    "sell_order_id": "s",
    "buyer_agent_id": "x",
    "seller_agent_id": "y",
    "is_aggressive_buy": True,
    "price": 61800.2,
    "quantity": 5,
}
ORDER = {**EVENT, "order_id": "o1", "side": "Buy", "agent_id": "a1"}
STATS = dict.fromkeys(["open", "high", "low", "close", "vwap"], 1.5) | {"volume": 100, "trade_count": 3}
HALT = {"symbol": "AAPL", "level": 1, "halt_duration_secs": 300}
LEVELS = {"bids": [{"price": 9.99, "quantity": 100, "order_count": 2}, {"price": 9.98, "quantity": 5}], "asks": []}
FRAMES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "bronze.trades": [("TradeExecuted", TRADE)],
    "bronze.orders": [
        ("OrderPlaced", {**ORDER, "order_type": "Market", "quantity": 5, "agent_type": "RetailTrader"}),
        ("OrderCancelled", {**ORDER, "price": 9.5, "remaining_quantity": 2, "reason": "Expired"}),
    ],
    "bronze.quotes": [("QuoteUpdate", {**EVENT, "best_bid": 9.5, "best_bid_size": 3})],
    "bronze.orderbook_snapshots": [("OrderBookSnapshot", {**EVENT, **LEVELS})],
    "bronze.market_stats": [("MarketStats", {**EVENT, **STATS})],
    "bronze.trading_halts": [
        ("TradingHalt", {**HALT, "reason": "CircuitBreaker", "trigger_price": 93, "decline_pct": 7.0}),
        ("TradingResume", {**HALT, "halted_at": "2026-03-02T09:25:00Z"}),
    ],
    "bronze.agent_actions": [
        (
            "AgentAction",
            {**EVENT, "agent_id": "a", "agent_type": "MarketMaker", "action": "q", "decision_factors": ["f"]},
        )
    ],
}


def records(*values: bytes, **changes: Any) -> Records:
    """Messages at offsets 0, 1, … or from the one given."""
    fields: dict[str, Any] = {"offset": 0, "timestamp_ms": 1_700_000_000_123, "received_us": 1_700_000_000_123_456}
    fields |= changes
    count = len(values)
    offsets = np.arange(fields["offset"], fields["offset"] + count)
    times = (np.full(count, fields[name]) for name in ("timestamp_ms", "received_us"))
    return Records("raw.x", np.full(count, 2), offsets, *times, Keys.of([b"AAPL"] * count), Texts.of(values))


def frame(event_type: str, data: dict[str, Any], **envelope: Any) -> bytes:
    return json.dumps({"event_type": event_type, "data": data, **envelope}).encode()


def trade(**changes: Any) -> bytes:
    return frame("TradeExecuted", {**TRADE, **changes})


def parse_one(table: str, value: bytes, **changes: Any) -> dict[str, Any]:
    rows, rejected = FrameParser(table).parse(records(value, **changes), NOW)
    assert rejected == []
    (row,) = rows.to_pylist()
    return dict(row)


def reason(value: bytes) -> str:
    rows, rejected = FrameParser("bronze.trades").parse(records(value), NOW)
    assert rows.num_rows == 0
    (letter,) = rejected
    assert letter.value == value
    return letter.error


def test_every_bronze_table_has_its_frames() -> None:
    assert set(FRAMES) == {name for name in TABLES if name.startswith("bronze.")}


@pytest.mark.parametrize("table", FRAMES)
def test_all_events_of_a_table_become_rows_of_its_schema(table: str) -> None:
    frames = [frame(kind, data) for kind, data in FRAMES[table]]
    rows, rejected = FrameParser(table).parse(records(*frames), NOW)
    assert rejected == []
    assert rows.schema == arrow_schema(table)
    for row, (kind, data) in zip(rows.to_pylist(), FRAMES[table], strict=True):
        assert row["symbol"] == data["symbol"]
        assert row.get("event_type", kind) == kind


def test_numbers_are_kept_to_the_last_digit() -> None:
    value = trade().replace(b"61800.2", b"61800.20000001").replace(b'"quantity": 5', b'"quantity": 0.006')
    row = parse_one("bronze.trades", value)
    assert (row["price"], row["quantity"]) == (Decimal("61800.20000001"), Decimal("0.00600000"))
    largest = parse_one("bronze.trades", trade().replace(b"61800.2", b"9999999999.99999999"))
    assert largest["price"] == Decimal("9999999999.99999999")


def test_kafkas_coordinates_and_times_are_stored() -> None:
    row = parse_one("bronze.trades", trade(), offset=9)
    assert [row[name] for name in ("_kafka_topic", "_kafka_partition", "_kafka_offset")] == ["raw.x", 2, 9]
    assert row["_kafka_timestamp"] == datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC)
    assert row["_received_at"] == datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC)
    assert row["_ingested_at"] == NOW
    bare = parse_one("bronze.trades", trade(), timestamp_ms=-1, received_us=-1)
    assert (bare["_kafka_timestamp"], bare["_received_at"]) == (None, None)


def test_a_time_of_another_zone_is_stored_in_utc() -> None:
    row = parse_one("bronze.trades", trade(timestamp="2026-03-02T04:30:00.123456-05:00"))
    assert row["timestamp"] == datetime(2026, 3, 2, 9, 30, 0, 123456, tzinfo=UTC)


def test_the_envelopes_time_counts_where_data_has_none() -> None:
    data = {name: value for name, value in TRADE.items() if name not in ("timestamp", "sequence")}
    row = parse_one("bronze.trades", frame("TradeExecuted", data, timestamp="2026-03-02T09:31:00Z"))
    assert row["timestamp"] == datetime(2026, 3, 2, 9, 31, tzinfo=UTC)
    assert row["sequence"] is None
    assert "timestamp" in reason(frame("TradeExecuted", data))


def test_a_halt_may_have_no_time_and_no_id() -> None:
    row = parse_one("bronze.trading_halts", frame("TradingHalt", {**HALT, "reason": "CircuitBreaker"}))
    assert (row["timestamp"], row["event_id"], row["level"]) == (None, None, 1)


def test_unknown_fields_are_ignored() -> None:
    assert parse_one("bronze.trades", trade(venue={"a": [1]}))["trade_id"] == "t1"


def test_levels_keep_their_order_and_a_missing_count_is_0() -> None:
    row = parse_one("bronze.orderbook_snapshots", frame("OrderBookSnapshot", {**EVENT, **LEVELS}))
    assert row["bids"] == [
        {"price": Decimal("9.99"), "quantity": Decimal(100), "order_count": 2},
        {"price": Decimal("9.98"), "quantity": Decimal(5), "order_count": 0},
    ]
    assert row["asks"] == []


def test_derived_figures_are_rounded_half_even_to_eight_decimals() -> None:
    value = frame("QuoteUpdate", {**EVENT, "spread": 0}).replace(b'"spread": 0', b'"spread": 0.010000005000')
    assert parse_one("bronze.quotes", value)["spread"] == Decimal("0.01000000")
    value = value.replace(b"0.010000005000", b"0.010000015000000001")
    assert parse_one("bronze.quotes", value)["spread"] == Decimal("0.01000002")


@pytest.mark.parametrize("spread", [b"1e999999", b"1" * 40 + b".123456789", b'"NaN"'])
def test_a_derived_figure_that_is_no_price_is_refused(spread: bytes) -> None:
    value = frame("QuoteUpdate", {**EVENT, "spread": 0}).replace(b'"spread": 0', b'"spread": ' + spread)
    rows, rejected = FrameParser("bronze.quotes").parse(records(value), NOW)
    assert (rows.num_rows, len(rejected)) == (0, 1)
    assert rejected[0].error


def test_a_frame_nested_too_deep_is_refused() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    assert "recursion" in reason(trade().replace(b'"quantity": 5', b'"quantity": 5, "x": ' + deep))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"", "truncated"),
        (b"no frame", "malformed"),
        (b"\xff\xfe", "malformed"),
        (b"[1, 2]", "object"),
        (b"[" * 100_000, "object"),
        (trade()[:-1], "truncated"),
        (frame("QuoteUpdate", TRADE), "event_type"),
        (frame("TradeExecuted", {**TRADE, "price": None}), "price"),
        (trade(is_aggressive_buy="True"), "is_aggressive_buy"),
        (trade(timestamp="2026-03-02T09:30:00"), "timestamp"),
        (trade(timestamp=1_700_000_000), "timestamp"),
        (trade().replace(b"61800.2", b"1.123456789"), "data loss"),
        (trade().replace(b"61800.2", b"10000000000"), "precision"),
        (trade().replace(b"61800.2", b"1e400"), "decimal128"),
        (trade(price="NaN"), "NaN"),
        (trade(sequence=2**63), "too large|too big"),
        (trade(trade_id="\ud800"), "surrogate"),
    ],
)
def test_what_is_no_such_frame_is_refused_with_the_reason(value: bytes, said: str) -> None:
    assert re.search(said, reason(value)), reason(value)


def test_bad_records_do_not_cost_the_good_ones_their_order() -> None:
    bad = trade().replace(b"61800.2", b"1.123456789")
    values = [bad if n in (0, 17, 18, 99) else trade(trade_id=f"t{n}") for n in range(100)]
    rows, rejected = FrameParser("bronze.trades").parse(records(*values), NOW)
    assert [letter.offset for letter in rejected] == [0, 17, 18, 99]
    assert rows["_kafka_offset"].to_pylist() == [n for n in range(100) if n not in (0, 17, 18, 99)]


TABLE_OF_EVENT = {kind: table for table, kinds in EVENTS_OF_TABLE.items() for kind in kinds}
PARSERS = {table: FrameParser(table) for table in FRAMES}


def test_every_event_has_its_table() -> None:
    assert set(TABLE_OF_EVENT) == set(EVENT_TYPES)


def agree(table: str, *values: bytes) -> None:
    """Both decoders make the same rows of frames, and refuse the same for the same reasons."""
    given = records(*values)
    rows, refused = PARSERS[table].parse(given, NOW)
    exact, refused_exactly = PARSERS[table].parse_exact(given, NOW)
    assert refused == refused_exactly
    assert rows.equals(exact), values
    rows.validate(full=True)


@hypothesis_settings(max_examples=300)
@given(st.lists(frames(), min_size=1, max_size=2), st.sampled_from(EVENT_TYPES))
def test_scanned_frames_give_the_rows_of_the_exact_decoder(values: list[bytes], event_type: str) -> None:
    agree(TABLE_OF_EVENT[event_type], *values)
    for value in values:
        for kind in EVENT_TYPES:
            if kind.encode() in value:
                agree(TABLE_OF_EVENT[kind], value)


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_both_decoders_agree_on_every_single_wrong_value(event_type: str) -> None:
    for value in one_wrong_at_a_time(event_type):
        agree(TABLE_OF_EVENT[event_type], value)


SEPARATORS = {True: (", ", ": "), False: (",", ":")}
BYTES = [b"", *(bytes([byte]) for byte in b'0159.,:-eE+"\\{}[] \n\x00\x7f\x80\xc3tfTZn')]
SPECIMENS = {
    (kind, blanks): json.dumps({"event_type": kind, "data": data}, separators=SEPARATORS[blanks]).encode()
    for events in FRAMES.values()
    for kind, data in events
    for blanks in (False, True)
}


@pytest.mark.parametrize("blanks", [False, True])
def test_frames_with_and_without_blanks_are_plain(blanks: bool) -> None:
    for kind in EVENT_TYPES:
        value = SPECIMENS[kind, blanks].replace(b"09:25:00Z", b"09:25:00.000000Z")
        assert PARSERS[TABLE_OF_EVENT[kind]].plain(records(value)) == 1, value


@hypothesis_settings(max_examples=1_000)
@given(st.data())
def test_both_decoders_agree_on_a_frame_with_some_bytes_changed(data: st.DataObject) -> None:
    kind, blanks = data.draw(st.sampled_from(sorted(SPECIMENS)))
    text = changed = SPECIMENS[kind, blanks]
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(0, len(changed)))
        byte = data.draw(st.sampled_from(BYTES))
        changed = changed[:at] + byte + changed[at + data.draw(st.integers(0, 1)) :]
    agree(TABLE_OF_EVENT[kind], text, changed, text)


@given(st.sampled_from(sorted(FRAMES)), st.randoms(use_true_random=False))
def test_fields_may_come_in_any_order(table: str, random: Random) -> None:
    for kind, data in FRAMES[table]:
        fields = list(data.items())
        random.shuffle(fields)
        agree(table, frame(kind, dict(fields)), frame(kind, data))
        agree(table, frame(kind, dict([*fields[1:]])))


@given(st.decimals("-20000000", "20000000", allow_nan=False), st.integers(0, 20), st.booleans())
def test_both_decoders_agree_on_every_amount(amount: Decimal, places: int, exponent: bool) -> None:
    text = f"{amount:.{places}{'e' if exponent else 'f'}}"
    agree("bronze.trades", trade().replace(b"61800.2", text.encode()))


def test_all_that_the_exchange_prints_is_plain() -> None:
    exchange = Exchange(load_market(), seed=1, start_us=1_770_000_000_000_000, activity=20)
    printed: dict[str, list[bytes]] = {}
    for _, value in islice(exchange.events(), 20_000):
        printed.setdefault(TABLE_OF_EVENT[value.split(b'"')[3].decode()], []).append(value)
    for table, values in printed.items():
        given = records(*values)
        assert PARSERS[table].plain(given) == len(given), table
        assert PARSERS[table].parse(given, NOW) == PARSERS[table].parse_exact(given, NOW)
    assert set(printed) >= set(FRAMES) - {"bronze.trading_halts"}


def test_one_frame_that_needs_the_exact_decoder_changes_nothing_for_the_others() -> None:
    values = [trade(trade_id=f"t{n}") for n in range(2 * BLOCK + 5)]
    values[BLOCK + 1] = trade(price="61800.2", trade_id="text")
    rows, rejected = PARSERS["bronze.trades"].parse(records(*values), NOW)
    assert rejected == []
    assert rows["_kafka_offset"].to_pylist() == list(range(len(values)))
    assert rows["trade_id"][BLOCK + 1].as_py() == "text"


def test_an_amount_of_more_digits_than_a_decimal_has_is_refused() -> None:
    assert "digits" in reason(trade().replace(b"61800.2", b"1.1" + b"0" * 47))


def test_an_orders_terms_and_the_order_it_replaces_are_kept() -> None:
    terms = {"order_type": "Limit", "price": 9.5, "quantity": 5, "time_in_force": "IOC", "replaces": "o0"}
    row = parse_one("bronze.orders", frame("OrderPlaced", {**ORDER, **terms}))
    assert (row["time_in_force"], row["replaces"]) == ("IOC", "o0")
    cancelled = parse_one("bronze.orders", frame("OrderCancelled", {**ORDER, "remaining_quantity": 2}))
    assert (cancelled["time_in_force"], cancelled["replaces"]) == (None, None)
