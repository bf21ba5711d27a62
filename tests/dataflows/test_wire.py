"""The fast decoder against the contract: what it takes Pydantic takes too, with the same meaning."""

from __future__ import annotations

from datetime import timedelta
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from pydantic import ValidationError

from dataflows.wire import decode_exact, decode_fast
from simulator.events import EVENT_TYPES, MAX_FRAME_BYTES
from simulator.exchange import Exchange
from simulator.market import load_market
from tests.frames import NOW, frames, one_wrong_at_a_time


def _by_the_contract(frame: bytes) -> Any:
    try:
        return decode_exact(frame)
    except ValidationError:
        return None


def agree(frame: bytes) -> None:
    """The fast decoder takes no frame that the contract refuses, and reads the same."""
    fast = decode_fast(frame)
    if fast is None:
        return
    exact = _by_the_contract(frame)
    assert exact is not None, frame[:400]
    assert fast[:3] == exact[:3], frame[:400]
    if fast[3] is None or exact[3] is None:
        assert fast[3] is exact[3], frame[:400]
    else:
        assert abs(fast[3] - exact[3]) <= timedelta(microseconds=1), frame[:400]


@hypothesis_settings(max_examples=400)
@given(frames())
def test_what_the_fast_decoder_takes_the_contract_takes_too_and_reads_the_same(frame: bytes) -> None:
    agree(frame)


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_no_single_wrong_value_passes_the_fast_decoder(event_type: str) -> None:
    as_it_is, *changed = one_wrong_at_a_time(event_type)
    assert decode_fast(as_it_is) == decode_exact(as_it_is)
    for frame in changed:
        agree(frame)


def test_books_out_of_order_and_limit_orders_without_a_price_are_left_to_the_contract() -> None:
    start = f'"event_id":"e","timestamp":{NOW},"symbol":"A"'
    fallen = '[{"price":2,"quantity":1},{"price":1,"quantity":1}]'
    book = f'{{"event_type":"OrderBookSnapshot","data":{{{start},"bids":%s,"asks":%s}}}}'
    assert decode_fast((book % (fallen, "[]")).encode()) is not None
    assert decode_fast((book % ("[]", fallen)).encode()) is None
    order = (
        f'{{"event_type":"OrderPlaced","data":{{{start},"order_id":"o","side":"Buy","order_type":"%s","price":null,'
        '"quantity":1,"agent_id":"a","agent_type":"MarketMaker"}}'
    )
    assert decode_fast((order % "Market").encode()) is not None
    assert decode_fast((order % "Limit").encode()) is None
    with pytest.raises(ValidationError, match="a limit order needs a price"):
        decode_exact((order % "Limit").encode())


def test_an_unknown_field_and_a_time_in_the_envelope_are_the_contracts_business() -> None:
    halt = f'{{"symbol":"A","halted_at":{NOW},"halt_duration_secs":1,"level":1,"new":1}}'
    frame = f'{{"event_type":"TradingResume","data":{halt},"timestamp":{NOW}}}'.encode()
    assert decode_fast(frame) is None
    assert decode_exact(frame)[3] is not None


def test_a_frame_that_is_too_large_is_refused_unread() -> None:
    frame = b" " * (MAX_FRAME_BYTES + 1)
    assert decode_fast(frame) is None
    with pytest.raises(ValueError, match="more than the 1000000 of a frame"):
        decode_exact(frame)


def test_the_fast_decoder_takes_everything_that_the_exchange_prints() -> None:
    exchange = Exchange(load_market(), seed=1, start_us=1_770_000_000_000_000, activity=20)
    for _, frame in islice(exchange.events(), 20_000):
        assert decode_fast(frame) is not None, frame
