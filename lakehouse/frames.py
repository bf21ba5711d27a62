"""Frames of the raw topics → rows of the bronze tables.

In: the bytes of Kafka messages with their coordinates. Out: an Arrow table in the bronze table's schema, and the
records that are no such frame, each with the reason. Pure: no I/O, no clock.

What a frame may hold is read off the declared table: a column added there is parsed here. A frame is parsed, not
judged: types and completeness are checked here, plausibility is the silver layer's. Prices and quantities are kept
to the last digit; one with more than eight decimals is refused, never rounded. Derived figures (spread, vwap,
decline_pct) are rounded half-even to eight decimals.

Two decoders do this. Frames as an exchange prints them are scanned by compiled code (:mod:`lakehouse.scan`); the
others, and the reasons, are the exact decoder's. Of a frame that both take they make the same row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import accumulate, chain
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from lakehouse.scanner import Scanner
from lakehouse.tables import arrow_schema
from lakehouse.texts import Integers, Keys, Texts

EIGHT_PLACES = Decimal("1e-8")
MOST_DIGITS = 38
"""Of a decimal128. Arrow 26 turns a longer Decimal into 0 when what is too long are zeros at its end."""
BLOCK = 2048
"""Frames decoded together: they stay in the processor's cache."""

EVENTS_OF_TABLE: dict[str, tuple[str, ...]] = {
    "bronze.trades": ("TradeExecuted",),
    "bronze.orders": ("OrderPlaced", "OrderCancelled"),
    "bronze.quotes": ("QuoteUpdate",),
    "bronze.orderbook_snapshots": ("OrderBookSnapshot",),
    "bronze.market_stats": ("MarketStats",),
    "bronze.trading_halts": ("TradingHalt", "TradingResume"),
    "bronze.agent_actions": ("AgentAction",),
}
_ZERO_WHERE_MISSING = frozenset({"best_bid_size", "best_ask_size", "order_count"})
_DERIVED = frozenset({"spread", "vwap", "decline_pct"})


@dataclass(slots=True, frozen=True)
class Records:
    """Kafka messages of one topic; each of their parts has the same length."""

    topic: str
    partitions: Integers
    offsets: Integers
    timestamps_ms: Integers
    """Kafka's timestamps; -1 where a message has none."""
    received_us: Integers
    """When the bridge received the frames; -1 where no header says so."""
    keys: Keys
    values: Texts

    def __len__(self) -> int:
        return len(self.offsets)

    @classmethod
    def joined(cls, parts: Sequence[Records]) -> Records:
        """Records of a topic, one part behind the other. Raises IndexError when there is none."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            parts[0].topic,
            np.concatenate([part.partitions for part in parts]),
            np.concatenate([part.offsets for part in parts]),
            np.concatenate([part.timestamps_ms for part in parts]),
            np.concatenate([part.received_us for part in parts]),
            Keys.joined([part.keys for part in parts]),
            Texts.joined([part.values for part in parts]),
        )

    def part(self, begin: int, end: int) -> Records:
        """Those from one place to before another."""
        cut = slice(begin, end)
        return Records(
            self.topic,
            *(self.partitions[cut], self.offsets[cut], self.timestamps_ms[cut], self.received_us[cut]),
            *(self.keys.part(begin, end), self.values.part(begin, end)),
        )


class Rejected(NamedTuple):
    """A record that is no frame of its table."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    error: str


class FrameParser:
    """Parses the frames of one bronze table."""

    def __init__(self, table: str) -> None:
        """Raises KeyError when ``table`` is no bronze table."""
        self._schema = arrow_schema(table)
        self._events = EVENTS_OF_TABLE[table]
        self._fields = [f for f in self._schema if not f.name.startswith("_") and f.name != "event_type"]
        self._needs_time = not self._schema.field("timestamp").nullable
        self._scanner = Scanner(self._events, self._fields, _ZERO_WHERE_MISSING)
        self._decode = _decoder(self._events, self._fields)

    def parse(self, records: Records, ingested_at: datetime) -> tuple[pa.Table, list[Rejected]]:
        """Rows for the table, in the order of ``records``, and the records refused."""
        tables: list[pa.Table] = []
        rejected: list[Rejected] = []
        for begin in range(0, len(records), BLOCK):
            rows, refused = self._parse(records.part(begin, begin + BLOCK), ingested_at)
            tables.append(rows)
            rejected += refused
        return pa.concat_tables([self._schema.empty_table(), *tables]), rejected

    def plain(self, records: Records) -> int:
        """How many of them the exact decoder need not look at."""
        return int(self._scanner.scan(records.values)[2].sum())

    def parse_exact(self, records: Records, ingested_at: datetime) -> tuple[pa.Table, list[Rejected]]:
        """The same as :meth:`parse`, slower."""
        rows, _, rejected = self._parse_exact(records, np.arange(len(records)), ingested_at)
        return rows, rejected

    def _parse(self, records: Records, ingested_at: datetime) -> tuple[pa.Table, list[Rejected]]:
        columns, event, plain = self._scanner.scan(records.values)
        places = np.flatnonzero(plain)
        rows = self._table(records, places, event, columns, ingested_at)
        if len(places) == len(records):
            return rows, []
        exact, kept, rejected = self._parse_exact(records, np.flatnonzero(~plain), ingested_at)
        order = np.argsort(np.concatenate([places, kept]))
        return pa.concat_tables([rows, exact]).take(pa.array(order)), rejected

    def _parse_exact(
        self, records: Records, places: Integers, ingested_at: datetime
    ) -> tuple[pa.Table, Integers, list[Rejected]]:
        """Rows of the records at some places; the places they are of; the other records."""
        good: list[int] = []
        frames: list[Any] = []
        reasons: dict[int, str] = {}
        for place in places.tolist():
            try:
                frame = self._decode(records.values[place])
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                reasons[place] = str(error)
                continue
            if frame.data.timestamp is None:
                frame.data.timestamp = frame.timestamp
                if frame.timestamp is None and self._needs_time:
                    reasons[place] = "neither data nor the frame has a timestamp"
                    continue
            good.append(place)
            frames.append(frame)
        tables = self._build(records, good, frames, ingested_at, reasons)
        kept = np.array([place for place in good if place not in reasons], np.int64)
        rejected = [_rejected(records, place, reasons[place]) for place in sorted(reasons)]
        return pa.concat_tables([self._schema.empty_table(), *tables]), kept, rejected

    def _build(
        self,
        records: Records,
        places: list[int],
        frames: list[Any],
        ingested_at: datetime,
        reasons: dict[int, str],
    ) -> list[pa.Table]:
        """Tables of the rows that fit; halves what does not until the rows at fault are found."""
        if not frames:
            return []
        try:
            parts = zip(*[msgspec.structs.astuple(frame.data) for frame in frames], strict=True)
            columns = [_array(of.name, of.type, part) for of, part in zip(self._fields, parts, strict=True)]
        except _REFUSED as error:
            if len(frames) == 1:
                reasons[places[0]] = str(error)
                return []
            middle = len(frames) // 2
            return [
                *self._build(records, places[:middle], frames[:middle], ingested_at, reasons),
                *self._build(records, places[middle:], frames[middle:], ingested_at, reasons),
            ]
        event = np.array([self._events.index(frame.event_type) for frame in frames])
        return [self._table(records, np.array(places), event, columns, ingested_at)]

    def _table(
        self,
        records: Records,
        places: Integers,
        event: Integers,
        columns: Sequence[pa.Array],
        ingested_at: datetime,
    ) -> pa.Table:
        """Of the records at some places, with the columns that their data makes."""
        types = {column.name: column.type for column in self._schema}
        numbers = {
            "_kafka_partition": records.partitions,
            "_kafka_offset": records.offsets,
            "_kafka_timestamp": np.where(records.timestamps_ms < 0, -1, records.timestamps_ms * 1000),
            "_received_at": records.received_us,
        }
        found = {field.name: column for field, column in zip(self._fields, columns, strict=True)}
        for name, part in numbers.items():
            some = part if len(places) == len(part) else part[places]
            missing = some < 0 if self._schema.field(name).nullable else None
            found[name] = pa.array(some, pa.int64(), mask=missing).cast(types[name])
        found["_kafka_topic"] = pa.repeat(pa.scalar(records.topic, types["_kafka_topic"]), len(places))
        found["_ingested_at"] = pa.repeat(pa.scalar(ingested_at, types["_ingested_at"]), len(places))
        if "event_type" in types:
            found["event_type"] = pa.array(self._events, types["event_type"]).take(pa.array(event))
        return pa.Table.from_arrays([found[name] for name in types], schema=self._schema)


def _rejected(records: Records, place: int, error: str) -> Rejected:
    return Rejected(
        records.topic,
        int(records.partitions[place]),
        int(records.offsets[place]),
        records.keys[place],
        records.values[place],
        error,
    )


# --- what a frame looks like

_Time = Annotated[datetime, msgspec.Meta(tz=True)]


def _decoder(events: Sequence[str], fields: Sequence[pa.Field]) -> Callable[[bytes], Any]:
    """Decodes a frame whose data has a field for each column."""
    # The time may stand in the envelope instead, so that of the data is never required.
    data = _struct("Data", [f.with_nullable(f.nullable or f.name == "timestamp") for f in fields])
    frame = msgspec.defstruct(
        "Frame", [("event_type", Literal[*events]), ("data", data), ("timestamp", _Time | None, None)], gc=False
    )
    return msgspec.json.Decoder(frame).decode


def _struct(name: str, fields: Sequence[pa.Field]) -> type[msgspec.Struct]:
    members: list[Any] = []
    for column in fields:
        kind = _read_as(column.type)
        if column.nullable:
            members.append((column.name, kind | None, None))
        elif column.name in _ZERO_WHERE_MISSING:
            members.append((column.name, kind, kind(0)))
        else:
            members.append((column.name, kind))
    return msgspec.defstruct(name, members, kw_only=True, gc=False)


def _read_as(kind: pa.DataType) -> Any:
    if pa.types.is_decimal(kind):
        return Decimal
    if pa.types.is_timestamp(kind):
        return _Time
    if pa.types.is_struct(kind):
        return _struct("Item", list(kind))
    if pa.types.is_large_list(kind):
        return list[_read_as(kind.value_type)]  # type: ignore[misc]
    return {pa.large_string(): str, pa.int64(): int, pa.int32(): int, pa.bool_(): bool}[kind]


# --- columns

_REFUSED = (pa.ArrowException, ArithmeticError, UnicodeError)
"""What Arrow raises for a value that does not fit its column: too many digits, too large, not text."""


def _array(name: str, kind: pa.DataType, values: Sequence[Any]) -> pa.Array:
    if pa.types.is_decimal(kind):
        values = [_amount(value, rounded=name in _DERIVED) for value in values]
    if pa.types.is_large_list(kind) and pa.types.is_struct(kind.value_type):
        return _levels(kind, values)
    return pa.array(values, kind)


def _amount(value: Decimal | None, *, rounded: bool) -> Decimal | None:
    if value is None or not value.is_finite():
        return value
    _, digits, exponent = value.as_tuple()
    if rounded and int(exponent) < -8:
        return value.quantize(EIGHT_PLACES, ROUND_HALF_EVEN)
    if len(digits) > MOST_DIGITS:
        raise ArithmeticError(f"a decimal128 has no room for {len(digits)} digits")
    return value


def _levels(kind: pa.LargeListType, books: Sequence[Sequence[Any]]) -> pa.LargeListArray:
    """A list of structs for each book; from the structs' fields, because Arrow takes dicts only."""
    fields = list(kind.value_type)
    levels = [msgspec.structs.astuple(level) for level in chain.from_iterable(books)]
    parts = zip(*levels, strict=True) if levels else ((),) * len(fields)
    columns = [_array(of.name, of.type, part) for of, part in zip(fields, parts, strict=True)]
    offsets = pa.array(accumulate(map(len, books), initial=0), pa.int64())
    return pa.LargeListArray.from_arrays(offsets, pa.StructArray.from_arrays(columns, fields=fields), type=kind)
