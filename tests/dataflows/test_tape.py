"""Trades decoded in columns are those decoded one by one."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflows.frames import decode_prints
from dataflows.tape import CHUNK, Tape, TapeDecoder
from simulator.exchange import Exchange
from simulator.market import load_market
from simulator.recorded.capture import ReplayCounts
from simulator.recorded.venue_frames import FrameNumbering, SymbolFrames
from tests.dataflows.test_frames import AMOUNT, TIME, frame

ODD = [
    b"",
    b"{]",
    b'{"data":{}}',
    frame(sequence=None),
    frame(sequence=1 << 40),
    frame(timestamp="2024-08-08T00:00:00Z"),
    frame(timestamp="2024-02-30T00:00:00.000000Z"),
    frame(timestamp="0000-02-20T00:00:00.000000Z"),
    frame(timestamp="1969-12-31T23:59:59.999999Z"),
    frame(timestamp="2024-08-08 00:00:00.000000Z"),
    frame(timestamp="2024-08-08T00:00:00.00000éZ"),
    frame(timestamp="2024-08-08T00:00:00.000000+"),
    frame(timestamp="2024-08-08T24:00:00.000000Z"),
    frame(price=0),
    frame(price=1e308),
    frame().replace(b'"price":', b'"price":1e1600000,"was":'),
    frame(price=2e7),
    frame(price=123456789.12345678),
    frame(quantity=1e-9),
    frame(quantity=-1),
    frame(price="1"),
]


@st.composite
def one(draw: st.DrawFn) -> bytes:
    text = frame(
        sequence=draw(st.none() | st.integers(0, 1 << 38)),
        symbol=draw(st.sampled_from(["A", "B", "é"])),
        is_aggressive_buy=draw(st.booleans()),
    )
    text = text.replace(b"61800.2", draw(AMOUNT).encode()).replace(b"0.006", draw(AMOUNT).encode())
    return text.replace(b'"2024-08-08T00:00:00.123456Z"', draw(TIME).encode())


@given(st.lists(one() | st.sampled_from(ODD) | st.integers(1, 100).map(lambda i: frame(sequence=i)), max_size=8))
def test_columns_have_the_trades_and_the_reasons_of_one_by_one(frames: list[bytes]) -> None:
    trades, reasons = TapeDecoder().decode(frames)
    assert (list(trades.rows()), reasons) == decode_prints(frames)


@settings(max_examples=1_000)
@given(st.data())
def test_a_frame_with_a_byte_changed_is_what_it_is_one_by_one(data: st.DataObject) -> None:
    text = frame(
        price=data.draw(st.sampled_from([1, 0.5, 61800.2, 100.25])), quantity=data.draw(st.integers(1, 20))
    )
    at = data.draw(st.integers(0, len(text)))
    byte = data.draw(st.sampled_from([b"", *(bytes([b]) for b in b'0159.,:-eE+"\\{}[] \n\x00\x7f\x80\xc3tfTZ')]))
    changed = text[:at] + byte + text[at + data.draw(st.integers(0, 1)) :]
    frames = [text, changed, text]
    trades, reasons = TapeDecoder().decode(frames)
    assert (list(trades.rows()), reasons) == decode_prints(frames)


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_frame_changes_nothing_for_those_beside_it(odd: bytes) -> None:
    frames = [frame(sequence=i, quantity=i + 0.5) for i in range(5)]
    frames[2] = odd
    trades, reasons = TapeDecoder().decode(frames)
    assert (list(trades.rows()), reasons) == decode_prints(frames)


def test_what_exchanges_print_is_not_decoded_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    market = Exchange(load_market(), seed=1, start_us=1_770_000_000_000_000, activity=20)
    venue = SymbolFrames(FrameNumbering("session", ReplayCounts()), "binance", "BTCUSDT")
    recorded = venue.trade(1_770_000_000_000_001, 7, "61800.20", "0.00600000", is_aggressive_buy=False)
    frames = [frame for _, frame in islice(market.events(), 5_000) if b"TradeExecuted" in frame]
    assert recorded is not None
    frames.append(recorded[1])
    expected, _ = decode_prints(frames)
    monkeypatch.setattr("dataflows.tape.decode_prints", None)
    trades, reasons = TapeDecoder().decode(frames)
    assert (list(trades.rows()), reasons) == (expected, {})


def test_rows_become_columns_and_rows_again() -> None:
    prints, _ = decode_prints([frame(sequence=i) for i in range(5)])
    tape = Tape.of(prints)
    assert list(tape.rows()) == prints
    assert list(Tape.joined([tape.part(0, 2), tape.part(2, 5)]).rows()) == prints
    assert list(tape.where(tape.sequence % 2 == 0).rows()) == prints[::2]


def test_more_symbols_than_are_remembered_keep_their_names() -> None:
    decoder = TapeDecoder()
    for begin in range(0, 3 * CHUNK, CHUNK // 3):
        frames = [frame(symbol=f"S{i}" * (1 + i % 12)) for i in range(begin, begin + 2 * CHUNK)]
        trades, reasons = decoder.decode(frames)
        assert (list(trades.rows()), reasons) == decode_prints(frames)
