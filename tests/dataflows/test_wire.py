"""The fast decoder against the contract: what it takes Pydantic takes too, with the same meaning."""

from __future__ import annotations

import json
from datetime import timedelta
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dataflows.wire import decode_exact, decode_fast
from simulator.events import EVENT_TYPES, MAX_FRAME_BYTES
from simulator.exchange import Exchange
from simulator.market import load_market

NOW = '"2024-08-08T00:00:00.000001Z"'
TIMES = [
    NOW,
    '"2024-08-08T00:00:00Z"',
    '"2024-08-08T00:00:00.123456+05:30"',
    '"2024-08-08t00:00:00z"',
    '"2024-08-08 00:00:00Z"',
    '"2024-08-08T00:00Z"',
    '"2024-08-08T00:00:00"',
    '"2024-08-08T00:00:00.1234567Z"',
    '"2024-08-08T00:00:00.9999999Z"',
    '"9999-12-31T23:59:59.9999999Z"',
    '"2024-08-08T24:00:00Z"',
    '"2024-08-08T23:59:60Z"',
    '"2024-02-30T00:00:00Z"',
    '"0000-01-01T00:00:00Z"',
    '"0001-01-01T00:00:00+01:00"',
    '"9999-12-31T23:59:59-23:59"',
    '"2024-08-08T00:00:00-00:00"',
    '"2024-08-08T00:00:00+24:00"',
    '"2024-08-08T00:00:00+0100"',
    '"2024-08-08T00:00:00 Z"',
    '"1700000000"',
    "1700000000",
    '"2024-08-08"',
]
NUMBERS = [
    *("0", "-0", "-0.0", "1", "1.0", "1e2", "1E+2", "1e-8", "-1", "185.50", "0.1", "01", "1.", ".5", "+1"),
    *("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1e-400", "1e308", "5e-324", "4e-324"),
    *("9999999999", "1e10", "10000000000", "9999999999.9999999", "9999999999.99999999999", "9999999999.999999"),
    *("9223372036854775807", "9223372036854775808", "18446744073709551616", "9007199254740993", "1e3", "1.5"),
    *("1" + "0" * 400, "9" * 5000, "0." + "0" * 400 + "1", "0." + "3" * 5000, "0e99999"),
]
TEXTS = [
    *('""', '"x"', '" "', '"Buy"', '"sell"', '"Market"', '"Limit"', '"MarketMaker"', '"nan"', '"185.5"', '"1"'),
    *(
        '"\\u0041"',
        '"\\ud800"',
        '"\\ud83d\\ude00"',
        '"\\x"',
        '"\\u00"',
        '"a\tb"',
        '"a\\nb"',
        '"\x7f"',
        '"\\u0000"',
    ),
    *(json.dumps("x" * length) for length in (31, 32, 33, 127, 128, 129, 512, 513)),
    *('"' + "é" * length + '"' for length in (32, 33)),
    *('"' + "😀" * length + '"' for length in (32, 33, 128, 129)),
]
OTHERS = ["null", "true", "false", "[]", "{}", "[[]]", '["x"]', '[""]', '[{"price":1,"quantity":1}]', "[" * 3000]
ANY_VALUE = st.sampled_from([*TIMES, *NUMBERS, *TEXTS, *OTHERS])

name = st.text(min_size=1, max_size=32).map(json.dumps)
price = st.decimals("0.00000001", "9999999999", allow_nan=False, places=8).map(str)
size = st.one_of(st.integers(0, 10**9).map(str), price)
count = st.integers(0, 2**63 - 1).map(str)
agent_type = st.sampled_from(
    ['"RetailTrader"', '"InstitutionalInvestor"', '"MarketMaker"', '"HighFrequencyTrader"']
)
side = st.sampled_from(['"Buy"', '"Sell"'])
reason = st.sampled_from(['"CircuitBreaker"', '""', '"Expired"'])
level = st.sampled_from(["1", "2", "3"])
times = st.datetimes().map(lambda at: f'"{at.isoformat()}Z"')


def _book(text: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    entry = st.tuples(text, size).map(lambda pair: f'{{"price":{pair[0]},"quantity":{pair[1]},"order_count":1}}')
    return st.lists(entry, max_size=3).map(lambda entries: f"[{','.join(entries)}]")


EVENT = {"event_id": name, "timestamp": times, "sequence": count}
OF_TYPE: dict[str, dict[str, st.SearchStrategy[str]]] = {
    "OrderPlaced": EVENT
    | {"order_id": name, "symbol": name, "side": side, "order_type": st.sampled_from(['"Market"', '"Limit"'])}
    | {"price": st.just("null") | price, "quantity": price, "agent_id": name, "agent_type": agent_type},
    "OrderCancelled": EVENT
    | {"order_id": name, "symbol": name, "side": side, "price": price, "remaining_quantity": size}
    | {"agent_id": name, "reason": reason},
    "TradeExecuted": EVENT
    | {"trade_id": name, "symbol": name, "price": price, "quantity": price, "buy_order_id": name}
    | {"sell_order_id": name, "buyer_agent_id": name, "seller_agent_id": name}
    | {"is_aggressive_buy": st.sampled_from(["true", "false"])},
    "QuoteUpdate": EVENT
    | {"symbol": name, "best_bid": st.just("null") | price, "best_bid_size": size, "spread": size}
    | {"best_ask": st.just("null") | price, "best_ask_size": size},
    "OrderBookSnapshot": EVENT | {"symbol": name, "bids": _book(price), "asks": _book(price)},
    "MarketStats": EVENT
    | {"symbol": name, **dict.fromkeys(("open", "high", "low", "close", "vwap"), price)}
    | {"volume": size, "trade_count": count},
    "TradingHalt": EVENT
    | {"symbol": name, "reason": reason, "level": level, "trigger_price": price, "reference_price": price}
    | {"decline_pct": price, "halt_duration_secs": count},
    "TradingResume": EVENT | {"symbol": name, "halted_at": times, "halt_duration_secs": count, "level": level},
    "AgentAction": EVENT
    | {"agent_id": name, "agent_type": agent_type, "symbol": name, "action": reason}
    | {"decision_factors": st.lists(name, max_size=3).map(lambda factors: f"[{','.join(factors)}]")},
}


def test_every_kind_of_event_is_generated() -> None:
    assert tuple(OF_TYPE) == EVENT_TYPES


def _object(members: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f"{key}:{value}" for key, value in members) + "}"


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A valid frame as it is, or with some of what can go wrong with one."""
    event_type = draw(st.sampled_from(EVENT_TYPES))
    data = [(json.dumps(key), draw(value)) for key, value in OF_TYPE[event_type].items()]
    for change in draw(st.lists(st.sampled_from(["value", "remove", "double", "add", "shuffle"]), max_size=2)):
        place = draw(st.integers(0, len(data) - 1))
        if change == "value":
            data[place] = (data[place][0], draw(ANY_VALUE))
        elif change == "remove" and len(data) > 1:
            del data[place]
        elif change == "double":
            data.insert(
                draw(st.integers(0, len(data))), (data[place][0], draw(ANY_VALUE | st.just(data[place][1])))
            )
        elif change == "add":
            key = draw(
                st.sampled_from(['"new"', '"sequence_number"', '"timestamp"', '"symbol\\u0000"', '"spread"'])
            )
            data.append((key, draw(ANY_VALUE)))
        elif change == "shuffle":
            data = draw(st.permutations(data))
    envelope = [('"event_type"', json.dumps(event_type)), ('"data"', _object(data))]
    for change in draw(st.lists(st.sampled_from(["type", "time", "double", "reverse", "space"]), max_size=1)):
        if change == "type":
            envelope[0] = ('"event_type"', draw(ANY_VALUE | st.sampled_from([json.dumps(t) for t in EVENT_TYPES])))
        elif change == "time":
            envelope.insert(draw(st.integers(0, 2)), ('"timestamp"', draw(ANY_VALUE)))
        elif change == "double":
            key = draw(st.integers(0, 1))
            envelope.append((envelope[key][0], draw(ANY_VALUE | st.just(envelope[key][1]))))
        elif change == "reverse":
            envelope.reverse()
        else:
            envelope = [(f" {key}\n", f"\t{value} ") for key, value in envelope]
    frame = _object(envelope).encode(errors="surrogatepass")
    for _ in range(draw(st.integers(0, 2)) if draw(st.booleans()) else 0):
        place = draw(st.integers(0, len(frame)))
        cut = draw(st.integers(0, 2))
        frame = frame[:place] + draw(st.binary(max_size=2) | st.just(b"\xff")) + frame[place + cut :]
    return frame


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


@hypothesis_settings(max_examples=400, deadline=None)
@given(frames())
def test_what_the_fast_decoder_takes_the_contract_takes_too_and_reads_the_same(frame: bytes) -> None:
    agree(frame)


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_no_single_wrong_value_passes_the_fast_decoder(event_type: str) -> None:
    fields = {"sequence": "7", "symbol": '"A"'} | {
        key: {"timestamp": NOW, "halted_at": NOW, "bids": "[]", "asks": "[]", "decision_factors": '["a"]'}.get(
            key, '"x"'
        )
        for key in OF_TYPE[event_type]
        if key not in ("sequence", "symbol")
    }
    fields |= {key: value for key, value in SENSIBLE.items() if key in fields}
    as_it_is = _object([('"event_type"', f'"{event_type}"'), ('"data"', _object(_quoted(fields)))]).encode()
    assert decode_fast(as_it_is) == decode_exact(as_it_is)
    for key in fields:
        for value in (*TIMES, *NUMBERS, *TEXTS, *OTHERS):
            data = _object(_quoted(fields | {key: value}))
            frame = f'{{"event_type":"{event_type}","data":{data}}}'.encode(errors="surrogatepass")
            agree(frame)


def _quoted(fields: dict[str, str]) -> list[tuple[str, str]]:
    return [(f'"{key}"', value) for key, value in fields.items()]


SENSIBLE = {
    **dict.fromkeys(("price", "quantity", "remaining_quantity", "best_bid", "best_bid_size", "best_ask"), "1.5"),
    **dict.fromkeys(("best_ask_size", "spread", "open", "high", "low", "close", "vwap", "volume"), "1.5"),
    **dict.fromkeys(("trigger_price", "reference_price", "decline_pct"), "1.5"),
    **dict.fromkeys(("trade_count", "halt_duration_secs", "level"), "1"),
    "side": '"Buy"',
    "order_type": '"Limit"',
    "agent_type": '"MarketMaker"',
    "is_aggressive_buy": "true",
}


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
