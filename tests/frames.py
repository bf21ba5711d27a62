"""Frames as text for property tests: valid ones, and ones with whatever can be wrong with a frame."""

from __future__ import annotations

import json
from collections.abc import Iterator

from hypothesis import strategies as st

from simulator.events import EVENT_TYPES

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
    '"0000-01-01T00:00:00.000000Z"',
    '"2024-08-08T00:00:00.12+0530"',
    '"2024-08-08T00:00:00.1234+05"',
    '"2024-08-08 00:00:00.123456Z"',
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
    *("185.100000000000000001", "10000000000000001e-16", "0.30000000000000004", "0.000000005", "1.00000000"),
    *("9999999.99999999", "10000000", "10000000.00000001", "19999999.99999999", "-1.25", "0.123456789", "00"),
    *("1.1" + "0" * 47, "1" + "0" * 400, "9" * 5000, "0." + "0" * 400 + "1", "0." + "3" * 5000, "0e99999"),
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
VALUES = (*TIMES, *NUMBERS, *TEXTS, *OTHERS)
ANY_VALUE = st.sampled_from(VALUES)

name = st.text(min_size=1, max_size=32).map(json.dumps)
price = st.one_of(
    st.decimals("0.00000001", "9999999999", allow_nan=False, places=8), st.decimals("0.01", "99999", places=2)
).map(str)
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


SENSIBLE = {
    **dict.fromkeys(("price", "quantity", "remaining_quantity", "best_bid", "best_bid_size", "best_ask"), "1.5"),
    **dict.fromkeys(("best_ask_size", "spread", "open", "high", "low", "close", "vwap", "volume"), "1.5"),
    **dict.fromkeys(("trigger_price", "reference_price", "decline_pct"), "1.5"),
    **dict.fromkeys(("trade_count", "halt_duration_secs", "level"), "1"),
    **dict.fromkeys(("timestamp", "halted_at"), NOW),
    **dict.fromkeys(("bids", "asks"), "[]"),
    "decision_factors": '["a"]',
    "sequence": "7",
    "side": '"Buy"',
    "order_type": '"Limit"',
    "agent_type": '"MarketMaker"',
    "is_aggressive_buy": "true",
}


def one_wrong_at_a_time(event_type: str) -> Iterator[bytes]:
    """A valid frame; then the same with each of VALUES in place of each of its values."""
    fields = {key: SENSIBLE.get(key, '"x"') for key in OF_TYPE[event_type]}
    changes = [{}, *({key: value} for key in fields for value in VALUES)]
    for change in changes:
        data = _object([(f'"{key}"', value) for key, value in (fields | change).items()])
        yield f'{{"event_type":"{event_type}","data":{data}}}'.encode(errors="surrogatepass")
