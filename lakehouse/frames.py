"""Frames of the raw topics → rows of the bronze tables.

In: the bytes of Kafka messages with their coordinates. Out: an Arrow table in the bronze table's schema, and the
records that are no such frame, each with the reason. Pure: no I/O, no clock.

A frame is parsed, not judged: types and completeness are checked here, plausibility is the silver layer's.
Prices and quantities are kept to the last digit; one with more than eight decimals is refused, never rounded.
Derived figures (spread, vwap, decline_pct) are rounded half-even to eight decimals.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import accumulate
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import pyarrow as pa

from lakehouse.tables import TABLES, arrow_schema

EIGHT_PLACES = Decimal("1e-8")

Time = Annotated[datetime, msgspec.Meta(tz=True)]


class Record(NamedTuple):
    """One Kafka message."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int | None
    """Kafka's timestamp; None where the message has none."""
    received_at_ns: int | None
    """When the bridge received the frame; None where no header says so."""
    key: bytes | None
    value: bytes


class Rejected(NamedTuple):
    """A record that is no frame of its table."""

    record: Record
    error: str


class _Event(msgspec.Struct, gc=False):
    event_id: str
    timestamp: Time | None = None
    sequence: int | None = None


class _Trade(_Event, kw_only=True, gc=False):
    trade_id: str
    symbol: str
    price: Decimal
    quantity: Decimal
    buy_order_id: str
    sell_order_id: str
    buyer_agent_id: str
    seller_agent_id: str
    is_aggressive_buy: bool


class _Order(_Event, kw_only=True, gc=False):
    order_id: str
    symbol: str
    side: str
    order_type: str | None = None
    price: Decimal | None = None
    quantity: Decimal | None = None
    remaining_quantity: Decimal | None = None
    agent_id: str
    agent_type: str | None = None
    reason: str | None = None
    time_in_force: str | None = None
    replaces: str | None = None


class _Quote(_Event, kw_only=True, gc=False):
    symbol: str
    best_bid: Decimal | None = None
    best_bid_size: Decimal = Decimal(0)
    best_ask: Decimal | None = None
    best_ask_size: Decimal = Decimal(0)
    spread: Decimal | None = None


class _Level(msgspec.Struct, gc=False):
    price: Decimal
    quantity: Decimal
    order_count: int = 0


class _OrderBook(_Event, kw_only=True, gc=False):
    symbol: str
    bids: list[_Level]
    asks: list[_Level]
    sequence_number: int | None = None


class _Stats(_Event, kw_only=True, gc=False):
    symbol: str
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    trade_count: int
    vwap: Decimal


class _Halt(msgspec.Struct, kw_only=True, gc=False):
    event_id: str | None = None
    timestamp: Time | None = None
    sequence: int | None = None
    symbol: str
    level: int
    halt_duration_secs: int
    reason: str | None = None
    trigger_price: Decimal | None = None
    reference_price: Decimal | None = None
    decline_pct: Decimal | None = None
    halted_at: Time | None = None


class _AgentAction(_Event, kw_only=True, gc=False):
    agent_id: str
    agent_type: str
    symbol: str
    action: str
    decision_factors: list[str]


class _Frame(msgspec.Struct, kw_only=True, gc=False):
    timestamp: Time | None = None
    """Some older frames carry the time here instead of inside ``data``."""
    data: Any


class _TradeFrame(_Frame, kw_only=True, gc=False):
    event_type: Literal["TradeExecuted"]
    data: _Trade


class _OrderFrame(_Frame, kw_only=True, gc=False):
    event_type: Literal["OrderPlaced", "OrderCancelled"]
    data: _Order


class _QuoteFrame(_Frame, kw_only=True, gc=False):
    event_type: Literal["QuoteUpdate"]
    data: _Quote


class _OrderBookFrame(_Frame, kw_only=True, gc=False):
    event_type: Literal["OrderBookSnapshot"]
    data: _OrderBook


class _StatsFrame(_Frame, kw_only=True, gc=False):
    event_type: Literal["MarketStats"]
    data: _Stats


class _HaltFrame(_Frame, kw_only=True, gc=False):
    event_type: Literal["TradingHalt", "TradingResume"]
    data: _Halt


class _AgentActionFrame(_Frame, kw_only=True, gc=False):
    event_type: Literal["AgentAction"]
    data: _AgentAction


_FRAMES: dict[str, type[_Frame]] = {
    "bronze.trades": _TradeFrame,
    "bronze.orders": _OrderFrame,
    "bronze.quotes": _QuoteFrame,
    "bronze.orderbook_snapshots": _OrderBookFrame,
    "bronze.market_stats": _StatsFrame,
    "bronze.trading_halts": _HaltFrame,
    "bronze.agent_actions": _AgentActionFrame,
}
_DERIVED = frozenset({"spread", "vwap", "decline_pct"})
_REFUSED = (pa.ArrowException, ArithmeticError, UnicodeError)
"""What Arrow raises for a value that does not fit its column: too many digits, too large, not text."""


class FrameParser:
    """Parses the frames of one bronze table."""

    def __init__(self, table: str) -> None:
        """Raises KeyError when ``table`` is no bronze table."""
        frame = _FRAMES[table]
        self._decoder = msgspec.json.Decoder(frame)
        self._schema = arrow_schema(table)
        self._columns = [name for name in self._schema.names if not name.startswith("_")]
        self._needs_time = next(c.required for c in TABLES[table].columns if c.name == "timestamp")

    def parse(self, records: Sequence[Record], ingested_at: datetime) -> tuple[pa.Table, list[Rejected]]:
        """Rows for the table, in the order of ``records``, and the records refused."""
        good: list[Record] = []
        frames: list[Any] = []
        rejected: list[Rejected] = []
        decode = self._decoder.decode
        for record in records:
            try:
                frame = decode(record.value)
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                rejected.append(Rejected(record, str(error)))
                continue
            if frame.data.timestamp is None:
                frame.data.timestamp = frame.timestamp
                if frame.timestamp is None and self._needs_time:
                    rejected.append(Rejected(record, "neither data nor the frame has a timestamp"))
                    continue
            good.append(record)
            frames.append(frame)
        tables = self._build(good, frames, ingested_at, rejected)
        return pa.concat_tables(tables) if tables else self._schema.empty_table(), rejected

    def _build(
        self, records: list[Record], frames: list[Any], ingested_at: datetime, rejected: list[Rejected]
    ) -> list[pa.Table]:
        """Tables of the rows that fit; halves what does not until the rows at fault are found."""
        if not records:
            return []
        try:
            return [self._table(records, frames, ingested_at)]
        except _REFUSED as error:
            if len(records) == 1:
                rejected.append(Rejected(records[0], str(error)))
                return []
        middle = len(records) // 2
        return [
            *self._build(records[:middle], frames[:middle], ingested_at, rejected),
            *self._build(records[middle:], frames[middle:], ingested_at, rejected),
        ]

    def _table(self, records: list[Record], frames: list[Any], ingested_at: datetime) -> pa.Table:
        events = [frame.data for frame in frames]
        columns = {name: self._array(name, events) for name in self._columns if name != "event_type"}
        if "event_type" in self._columns:
            kind = self._schema.field("event_type").type
            columns["event_type"] = pa.array([frame.event_type for frame in frames], kind)
        topics, partitions, offsets, timestamps, received, _, _ = zip(*records, strict=True)
        of_kafka: dict[str, Sequence[Any]] = {
            "_kafka_topic": topics,
            "_kafka_partition": partitions,
            "_kafka_offset": offsets,
            "_kafka_timestamp": [None if ms is None else ms * 1000 for ms in timestamps],
            "_received_at": [None if ns is None else ns // 1000 for ns in received],
        }
        for name, values in of_kafka.items():
            columns[name] = pa.array(values, self._schema.field(name).type)
        now = pa.scalar(ingested_at, self._schema.field("_ingested_at").type)
        columns["_ingested_at"] = pa.repeat(now, len(records))
        return pa.Table.from_arrays([columns[name] for name in self._schema.names], schema=self._schema)

    def _array(self, name: str, events: Sequence[Any]) -> pa.Array:
        kind = self._schema.field(name).type
        values = [getattr(event, name) for event in events]
        if name in _DERIVED:
            return pa.array([_rounded(value) for value in values], kind)
        if pa.types.is_large_list(kind) and pa.types.is_struct(kind.value_type):
            return _levels(values, kind)
        return pa.array(values, kind)


def _levels(books: Sequence[Sequence[_Level]], kind: pa.LargeListType) -> pa.LargeListArray:
    flat = [level for book in books for level in book]
    fields = list(kind.value_type)
    columns = [pa.array([getattr(level, field.name) for level in flat], field.type) for field in fields]
    offsets = pa.array(accumulate((len(book) for book in books), initial=0), pa.int64())
    return pa.LargeListArray.from_arrays(offsets, pa.StructArray.from_arrays(columns, fields=fields), type=kind)


def _rounded(value: Decimal | None) -> Decimal | None:
    if value is None or not value.is_finite() or int(value.as_tuple().exponent) >= -8:
        return value
    return value.quantize(EIGHT_PLACES, ROUND_HALF_EVEN)
