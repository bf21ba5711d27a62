"""Kafka messages → live events.

In: topic and bytes of one message. Out: one :class:`LiveEvent`, or None for what the stream does not show.
The JSON of a message is passed on as it stands, never re-encoded, so prices and quantities stay exact.
Pure: no state, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, Literal

import msgspec

from dataflows.topics import ALERTS_PRICE, PROCESSED_TRADES, PROCESSED_VWAP, RAW_ORDERBOOK_SNAPSHOTS, RAW_QUOTES

Kind = Literal["trade", "quote", "book", "bar", "alert"]

KIND_OF_TOPIC: Final[dict[str, Kind]] = {
    PROCESSED_TRADES: "trade",
    RAW_QUOTES: "quote",
    RAW_ORDERBOOK_SNAPSHOTS: "book",
    PROCESSED_VWAP: "bar",
    ALERTS_PRICE: "alert",
}
KINDS: Final[frozenset[str]] = frozenset(KIND_OF_TOPIC.values())

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Trade(msgspec.Struct):
    """The fields of an enriched trade that the hub needs; prices in currency, quantities in units."""

    symbol: str
    timestamp: datetime
    trade_id: str
    price: Decimal
    quantity: Decimal
    is_aggressive_buy: bool
    sequence: int | None = None


class Quote(msgspec.Struct):
    """Top of book; a side without orders is None."""

    symbol: str
    timestamp: datetime
    best_bid: Decimal | None = None
    best_ask: Decimal | None = None


class Level(msgspec.Struct):
    """One price of one side of a book."""

    price: Decimal
    quantity: Decimal
    order_count: int = 0


class Book(msgspec.Struct):
    """A snapshot of one book, best prices first."""

    symbol: str
    timestamp: datetime
    bids: list[Level]
    asks: list[Level]
    sequence_number: int | None = None


class Bar(msgspec.Struct):
    """A closed or corrected window; a later revision replaces an earlier one."""

    symbol: str
    window: str
    window_start: datetime
    window_end: datetime
    revision: int = 0
    computed_at: datetime | None = None


class Alert(msgspec.Struct):
    """One alert; ``alert_id`` is deterministic, so a repeated message can be told."""

    symbol: str
    alert_id: str
    triggered_at: datetime


Payload = Trade | Quote | Book | Bar | Alert


class _Frame(msgspec.Struct):
    event_type: str
    data: msgspec.Raw


@dataclass(slots=True, frozen=True)
class LiveEvent:
    """One event on its way to readers: ``payload`` for the hub, ``data`` (one line of JSON) for the reader."""

    kind: Kind
    symbol: str
    event_us: int
    """Event time, microseconds since the epoch; for a bar the end of its window."""
    payload: Payload
    data: bytes


_FRAME = msgspec.json.Decoder(_Frame)
_TRADE = msgspec.json.Decoder(Trade)
_QUOTE = msgspec.json.Decoder(Quote)
_BOOK = msgspec.json.Decoder(Book)
_BAR = msgspec.json.Decoder(Bar)
_ALERT = msgspec.json.Decoder(Alert)


def epoch_us(moment: datetime) -> int:
    """Aware datetime → microseconds since the epoch, exactly."""
    return (moment - _EPOCH) // _MICROSECOND


def decode(topic: str, value: bytes) -> LiveEvent | None:
    """Decode one message of one of the topics in :data:`KIND_OF_TOPIC`.

    Returns None for an event type that the live stream does not carry.

    Raises:
        msgspec.DecodeError: not the JSON that this topic promises (includes a wrong type of a field).
        TypeError: a time without zone.
    """
    kind = KIND_OF_TOPIC[topic]
    payload: Payload
    data = value
    if kind == "trade":
        payload = _TRADE.decode(value)
        moment = payload.timestamp
    elif kind == "quote" or kind == "book":
        frame = _FRAME.decode(value)
        if frame.event_type != ("QuoteUpdate" if kind == "quote" else "OrderBookSnapshot"):
            return None
        data = bytes(frame.data)
        payload = _QUOTE.decode(data) if kind == "quote" else _BOOK.decode(data)
        moment = payload.timestamp
    elif kind == "bar":
        payload = _BAR.decode(value)
        moment = payload.window_end
    else:
        payload = _ALERT.decode(value)
        moment = payload.triggered_at
    # Inside JSON a raw line break can only be layout; in an event stream it would end the field.
    line = data.replace(b"\r", b" ").replace(b"\n", b" ")
    return LiveEvent(kind, payload.symbol, epoch_us(moment), payload, line)
