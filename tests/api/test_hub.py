"""Fan-out, snapshot, conflation and the candle that forms, without a broker."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from api.live.events import KINDS, LiveEvent, decode
from api.live.hub import Hub, Reader, TooManyStreams

START = datetime(2024, 8, 8, 12, 0, 30, tzinfo=UTC)
ALL = frozenset[str]()


def at(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def event(topic: str, body: str) -> LiveEvent:
    found = decode(topic, body.encode())
    assert found is not None
    return found


def trade(
    number: int, seconds: float = 0, price: str = "10.10", quantity: str = "0.006", symbol: str = "A"
) -> LiveEvent:
    return event(
        "processed.trades",
        f'{{"trade_id":"t{number}","symbol":"{symbol}","timestamp":"{at(seconds)}","sequence":{number},'
        f'"price":{price},"quantity":{quantity},"is_aggressive_buy":true}}',
    )


def quote(number: int, seconds: float = 0, symbol: str = "A") -> LiveEvent:
    return event(
        "raw.quotes",
        f'{{"event_type":"QuoteUpdate","data":{{"event_id":"q{number}","symbol":"{symbol}","timestamp":"{at(seconds)}",'
        f'"best_bid":{number}.5,"best_bid_size":1,"best_ask":null,"best_ask_size":0}}}}',
    )


def bar(minute: int, revision: int = 0, window: str = "1m") -> LiveEvent:
    start = START.replace(second=0) + timedelta(minutes=minute)
    end = start + timedelta(minutes=1)
    return event(
        "processed.vwap",
        f'{{"symbol":"A","window":"{window}","window_start":"{start.isoformat()}","window_end":"{end.isoformat()}",'
        f'"open":1,"close":2,"revision":{revision}}}',
    )


def make_hub(readers: int = 10, queue: int = 100) -> Hub:
    return Hub("run", readers, queue)


def parse(text: bytes) -> list[tuple[str, Any]]:
    """The events of a piece of stream: (name, data)."""
    found = []
    for block in text.decode().strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((fields["event"], json.loads(fields["data"], parse_float=Decimal)))
    return found


def names(text: bytes) -> list[str]:
    return [name for name, _ in parse(text)]


def taken(reader: Reader) -> list[tuple[str, Any]]:
    batch = reader.take(0)
    assert batch is not None
    return parse(b"".join(sent.text for sent in batch)) if batch else []


def test_a_reader_gets_the_events_of_its_symbols_and_kinds_in_order() -> None:
    hub = make_hub()
    reader, _ = hub.subscribe(frozenset({"A"}), frozenset({"trade"}))
    hub.publish([trade(1), quote(1), trade(2, symbol="B"), trade(3)])
    assert [data["trade_id"] for _, data in taken(reader)] == ["t1", "t3"]


def test_numbers_reach_the_reader_exactly_as_they_were_written() -> None:
    hub = make_hub()
    reader, _ = hub.subscribe(ALL, KINDS)
    hub.publish([trade(1, price="61800.20", quantity="0.00000001")])
    batch = reader.take(0)
    assert batch
    assert b'"price":61800.20,"quantity":0.00000001' in batch[0].text


def test_line_breaks_inside_a_message_do_not_break_the_stream() -> None:
    hub = make_hub()
    reader, _ = hub.subscribe(ALL, KINDS)
    hub.publish(
        [
            event(
                "processed.trades",
                '{"trade_id":"a\\nb",\r\n\r\n"symbol":"A","timestamp":"2024-08-08T12:00:00Z","price":1,"quantity":1,'
                '"is_aggressive_buy":false}',
            )
        ]
    )
    ((name, data),) = taken(reader)
    assert (name, data["trade_id"]) == ("trade", "a\nb")


def test_a_snapshot_has_the_latest_of_everything_and_then_says_live() -> None:
    hub = make_hub()
    hub.publish([trade(1), quote(1), quote(2, 1), bar(-1), trade(2, symbol="B")])
    _, snapshot = hub.subscribe(frozenset({"A"}), KINDS)
    assert names(snapshot) == ["hello", "forming", "trade", "quote", "bar", "live"]
    events = dict(parse(snapshot))
    assert events["hello"] == {"run": "run", "symbols": ["A", "B"]}
    assert events["quote"]["event_id"] == "q2"
    assert events["trade"]["trade_id"] == "t1"


def test_no_event_is_lost_or_doubled_between_the_snapshot_and_the_stream() -> None:
    hub = make_hub()
    hub.publish([trade(1)])
    reader, snapshot = hub.subscribe(ALL, KINDS)
    hub.publish([trade(2, 1)])
    ids = [data["trade_id"] for name, data in parse(snapshot) + taken(reader) if name == "trade"]
    assert ids == ["t1", "t2"]


def test_a_trade_that_comes_again_goes_no_further() -> None:
    hub = make_hub()
    reader, _ = hub.subscribe(ALL, KINDS)
    hub.publish([trade(1), trade(2, 1)])
    hub.publish([trade(1), trade(3, 2)])
    assert [data["trade_id"] for _, data in taken(reader)] == ["t1", "t2", "t3"]
    _, snapshot = hub.subscribe(ALL, KINDS)
    assert dict(parse(snapshot))["forming"]["trade_count"] == 3


def test_the_forming_candle_follows_event_time_not_arrival() -> None:
    hub = make_hub()
    hub.publish([trade(2, 2, "11.00"), trade(3, 5, "9.00"), trade(1, 1, "10.50"), trade(4, 40, "12.00")])
    _, snapshot = hub.subscribe(ALL, KINDS)
    first, second = [data for name, data in parse(snapshot) if name == "forming"]
    assert first == {
        "symbol": "A",
        "window": "1m",
        "window_start_us": 1_723_118_400_000_000,
        "open": Decimal("10.50"),
        "high": Decimal("11.00"),
        "low": Decimal("9.00"),
        "close": Decimal("9.00"),
        "volume": Decimal("0.018"),
        "notional": Decimal("0.18300"),
        "trade_count": 3,
        "buy_volume": Decimal("0.018"),
    }
    assert second["open"] == Decimal("12.00")


def test_a_corrected_bar_replaces_the_first_and_an_older_one_does_not() -> None:
    hub = make_hub()
    reader, _ = hub.subscribe(ALL, KINDS)
    hub.publish([bar(0), bar(0, revision=1), bar(0), bar(0, revision=1)])
    assert [data["revision"] for _, data in taken(reader)] == [0, 1]
    _, snapshot = hub.subscribe(ALL, KINDS)
    assert [data["revision"] for name, data in parse(snapshot) if name == "bar"] == [1]


def test_an_older_quote_does_not_replace_a_newer_one() -> None:
    hub = make_hub()
    hub.publish([quote(2, 2), quote(1, 1)])
    _, snapshot = hub.subscribe(ALL, KINDS)
    assert [data["event_id"] for name, data in parse(snapshot) if name == "quote"] == ["q2"]


def test_a_slow_reader_loses_only_outdated_quotes() -> None:
    hub = make_hub(queue=20)
    reader, _ = hub.subscribe(ALL, KINDS)
    for number in range(100):
        hub.publish([quote(number, number)])
        if number % 10 == 0:
            hub.publish([trade(number, number)])
    got = taken(reader)
    assert [data["trade_id"] for name, data in got if name == "trade"] == [f"t{n}" for n in range(0, 100, 10)]
    quotes = [data["event_id"] for name, data in got if name == "quote"]
    assert len(quotes) < 20
    assert quotes[-1] == "q99"


def test_a_reader_too_slow_for_trades_is_cut_off_and_never_given_a_gap() -> None:
    hub = make_hub(queue=20)
    reader, _ = hub.subscribe(ALL, KINDS)
    hub.publish([trade(number, number) for number in range(21)])
    assert reader.take(0) is None
    assert reader.cut_off


def test_more_streams_than_allowed_are_refused_until_one_ends() -> None:
    hub = make_hub(readers=1)
    reader, _ = hub.subscribe(ALL, KINDS)
    with pytest.raises(TooManyStreams):
        hub.subscribe(ALL, KINDS)
    hub.unsubscribe(reader)
    hub.subscribe(ALL, KINDS)


def test_closing_ends_every_stream_and_refuses_new_ones() -> None:
    hub = make_hub()
    reader, _ = hub.subscribe(ALL, KINDS)
    hub.publish([trade(1)])
    hub.close()
    assert len(taken(reader)) == 1
    assert reader.take(5) is None
    with pytest.raises(TooManyStreams):
        hub.subscribe(ALL, KINDS)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        '{"symbol":"A"}',
        '{"trade_id":"t","symbol":"A","timestamp":"never","price":1,"quantity":1,"is_aggressive_buy":true}',
        '{"trade_id":"t","symbol":"A","timestamp":"2024-08-08T12:00:00","price":1,"quantity":1,"is_aggressive_buy":true}',
    ],
)
def test_a_message_that_breaks_the_contract_is_an_error(body: str) -> None:
    with pytest.raises((msgspec.MsgspecError, TypeError)):
        decode("processed.trades", body.encode())


def test_an_event_type_that_the_stream_does_not_carry_is_left_out() -> None:
    assert decode("raw.quotes", b'{"event_type":"OrderPlaced","data":{}}') is None
