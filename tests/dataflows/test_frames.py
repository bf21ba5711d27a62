"""Exact amounts and times of frames."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dataflows.frames import UNIT, FrameError, decode_prints, decode_trade, event_time, number, units
from simulator.events import TradeExecuted, format_timestamp, parse_frame

TRADE = {
    "event_id": "e1",
    "timestamp": "2024-08-08T00:00:00.123456Z",
    "sequence": 7,
    "trade_id": "t1",
    "symbol": "BTCUSDT",
    "price": 61800.2,
    "quantity": 0.006,
    "buy_order_id": "b",
    "sell_order_id": "s",
    "buyer_agent_id": "ba",
    "seller_agent_id": "sa",
    "is_aggressive_buy": True,
}


def frame(**changes: object) -> bytes:
    return json.dumps(
        {"event_type": "TradeExecuted", "data": {**TRADE, **changes}}, separators=(",", ":")
    ).encode()


@given(st.integers(1, 10**18 - 1))
def test_units_and_number_are_inverse_and_exact(value: int) -> None:
    assert units(Decimal(number(value))) == value


@given(st.integers(-(10**30), 10**30), st.sampled_from([8, 16]))
def test_number_is_the_exact_decimal(value: int, decimals: int) -> None:
    assert Fraction(number(value, decimals)) * 10**decimals == value


@given(st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)))  # noqa: DTZ001 (made aware below)
def test_event_time_is_exact_to_the_microsecond(moment: datetime) -> None:
    aware = moment.replace(tzinfo=UTC)
    exact = (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert event_time(aware) == exact
    assert datetime.fromisoformat(format_timestamp(exact)) == aware


@given(st.decimals("0.00000001", "9999999999", places=8))
def test_a_price_on_the_wire_is_decoded_digit_by_digit(price: Decimal) -> None:
    assert decode_trade(frame().replace(b"61800.2", str(price).encode()))[0].price == price


MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1))  # noqa: DTZ001 (a Z follows)


@given(st.decimals("0.00000001", "999999", places=8), MOMENTS)
def test_a_decoded_trade_equals_the_contract_s(price: Decimal, moment: datetime) -> None:
    text = frame(timestamp=moment.isoformat() + "Z").replace(b"61800.2", str(price).encode())
    trade, time_us = decode_trade(text)
    expected = parse_frame(text).data
    assert isinstance(expected, TradeExecuted)
    assert (trade.price, trade.quantity) == (expected.price, expected.quantity)
    assert (trade.symbol, trade.sequence) == (expected.symbol, expected.sequence)
    assert time_us == event_time(expected.timestamp)


@pytest.mark.parametrize(
    "price",
    [
        "0",
        "-1",
        "1e10",
        "NaN",
        "Infinity",
        "0.000000001",
        "1e-400",
        "1e400",
        "1e1600000",
        "1e-1600000",
        "1.123456789",
        "1." + "0" * 40 + "1",
    ],
)
def test_units_refuses_what_it_cannot_hold_exactly(price: str) -> None:
    with pytest.raises(FrameError):
        units(Decimal(price))


@pytest.mark.parametrize(
    "bad",
    [b"", b"[]", b"{}", b"\xff", frame(price=None), frame(timestamp=None), frame(timestamp="2024-08-08T00:00:00")],
)
def test_what_is_no_trade_is_a_frame_error(bad: bytes) -> None:
    with pytest.raises(FrameError):
        decode_trade(bad)


def test_a_timestamp_of_the_envelope_counts_where_the_data_has_none() -> None:
    old = json.loads(frame(timestamp=None))
    old["timestamp"] = "1970-01-01T00:00:01Z"
    assert decode_trade(json.dumps(old).encode())[1] == 1_000_000


def test_a_frame_of_nothing_but_brackets_is_refused_and_does_not_kill_the_flow() -> None:
    nested = b'{"data":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001
    with pytest.raises(FrameError):
        decode_trade(nested)


AMOUNT = st.one_of(
    st.decimals("0.00000001", "9999999999", places=8).map(str),
    st.decimals(allow_nan=True, allow_infinity=True).map(str),
    st.floats().map(repr),
    st.integers().map(str),
    st.sampled_from(["null", "true", '"12.5"', '"x"', "[]", "1e400", "0.1234567890", "1.00000000000000000000001"]),
)
TIME = st.one_of(
    MOMENTS.map(lambda moment: f'"{moment.isoformat()}Z"'),
    MOMENTS.map(lambda moment: f'"{moment.isoformat()}+05:30"'),
    MOMENTS.map(lambda moment: f'"{moment.isoformat()}"'),
    st.sampled_from(["null", '""', "12", '"2024-02-30T00:00:00Z"']),
)


@given(AMOUNT, AMOUNT, TIME, st.none() | st.integers())
@example("1", "1", '"2000-01-01T00:00:00Z"', 1 << 63)
@example("1", "1", '"2000-01-01T00:00:00Z"', -(1 << 63))
def test_the_fast_way_takes_what_the_slow_one_takes_and_reads_the_same(
    price: str, quantity: str, time: str, sequence: int | None
) -> None:
    text = frame(sequence=sequence).replace(b"61800.2", price.encode()).replace(b"0.006", quantity.encode())
    text = text.replace(b'"2024-08-08T00:00:00.123456Z"', time.encode())
    try:
        trade, time_us = decode_trade(text)
        expected = [("BTCUSDT", time_us, trade.sequence or 0, units(trade.price), units(trade.quantity), True)]
    except FrameError:
        expected = []
    if sequence is not None and not -(1 << 63) <= sequence < 1 << 63:
        expected = []  # the windows keep it in 64 bits
    for _ in range(2):  # amounts are remembered
        prints, reasons = decode_prints([text])
        if prints and not expected:  # more digits than a double has: the only thing it may take for another
            assert (float(price), float(quantity)) == (prints[0][3] / UNIT, prints[0][4] / UNIT)
        else:
            assert [found[:6] for found in prints] == expected
        assert len(prints) + len(reasons) == 1


def test_an_amount_that_no_double_tells_from_one_of_eight_decimals_is_taken_for_that() -> None:
    prints, _ = decode_prints([frame().replace(b"0.006", b"0.00600000000000000000001")])
    assert prints[0][4] == 600_000


def test_places_say_which_frames_are_trades() -> None:
    prints, reasons = decode_prints([frame(), b"{]", frame(sequence=8), frame(price="x"), frame(timestamp=None)])
    assert [found[7] for found in prints] == [0, 2]
    assert list(reasons) == [1, 3, 4]
    assert "malformed" in reasons[1]
    assert "price" in reasons[3]
    assert "timestamp" in reasons[4]


IDENTIFIED = st.tuples(
    st.none() | st.integers(-1, 1 << 40), st.sampled_from(["t1", "t2", "é"]), st.integers(0, 50)
)


@given(IDENTIFIED, IDENTIFIED)
def test_only_copies_share_an_identity_and_it_fits_64_bits(
    one: tuple[int | None, str, int], other: tuple[int | None, str, int]
) -> None:
    def identity(sequence: int | None, trade_id: str, second: int) -> int:
        moment = f"2024-08-08T00:00:{second:02d}.000001Z"
        prints, reasons = decode_prints([frame(sequence=sequence, trade_id=trade_id, timestamp=moment)])
        assert reasons == {}
        assert -(1 << 63) <= prints[0][6] < 1 << 63
        return prints[0][6]

    numbered = all(sequence is not None and 0 < sequence < 1 << 37 for sequence, _, _ in (one, other))
    if one == other:
        assert identity(*one) == identity(*other)
    elif one[1] != other[1] and one[0] != other[0]:
        assert identity(*one) != identity(*other)
    elif numbered:
        assert (identity(*one) == identity(*other)) == ((one[0], one[2]) == (other[0], other[2]))
