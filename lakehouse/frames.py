"""Frames of the raw topics → rows of the bronze tables.

In: the bytes of Kafka messages with their coordinates. Out: an Arrow table in the bronze table's schema, and the
records that are no such frame, each with the reason. Pure: no I/O, no clock.

What a frame may hold is read off the declared table: a column added there is parsed here. A frame is parsed, not
judged: types and completeness are checked here, plausibility is the silver layer's. Prices and quantities are kept
to the last digit; one with more than eight decimals is refused, never rounded. Derived figures (spread, vwap,
decline_pct) are rounded half-even to eight decimals.

Two decoders do this. The exact one has the last word and words the reasons. The fast one reads amounts as doubles
and leaves times to Arrow; it takes a block of frames only when every one of them surely gives the row that the
exact decoder would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import accumulate, chain
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.tables import arrow_schema

EIGHT_PLACES = Decimal("1e-8")
MOST_DIGITS = 38
"""Of a decimal128. Arrow 26 turns a longer Decimal into 0 when what is too long are zeros at its end."""
BLOCK = 2048
"""Frames decoded together. A frame that the fast decoder does not take costs a block of them the slow way."""

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


@dataclass(slots=True)
class Records:
    """Kafka messages of one topic, a list for each of their parts."""

    topic: str
    partitions: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    timestamps_ms: list[int | None] = field(default_factory=list)
    """Kafka's timestamps; None where a message has none."""
    received_us: list[int | None] = field(default_factory=list)
    """When the bridge received the frames; None where no header says so."""
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.offsets)

    def extend(self, others: Records) -> None:
        """Take in more of the topic."""
        for mine, theirs in zip(self._parts(), others._parts(), strict=True):
            mine += theirs

    def take(self, places: Iterable[int]) -> Records:
        """Those at some places, in that order."""
        chosen = list(places)
        return Records(self.topic, *([part[place] for place in chosen] for part in self._parts()))

    def block(self, begin: int, end: int) -> Records:
        """Those from one place up to another."""
        return Records(self.topic, *(part[begin:end] for part in self._parts()))

    def _parts(self) -> tuple[list[Any], ...]:
        return self.partitions, self.offsets, self.timestamps_ms, self.received_us, self.keys, self.values


class Rejected(NamedTuple):
    """A record that is no frame of its table."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    error: str


class _UnsureError(Exception):
    """The exact decoder is to decide."""


class FrameParser:
    """Parses the frames of one bronze table."""

    def __init__(self, table: str) -> None:
        """Raises KeyError when ``table`` is no bronze table."""
        self._schema = arrow_schema(table)
        kinds = EVENTS_OF_TABLE[table]
        fields = [f for f in self._schema if not f.name.startswith("_") and f.name != "event_type"]
        self._columns = [column.name for column in fields]
        self._times = [f'"{column.name}"'.encode() for column in fields if pa.types.is_timestamp(column.type)]
        self._needs_time = not self._schema.field("timestamp").nullable
        self._decode_fast = _decoder(kinds, fields, float, str)
        self._decode_exact = _decoder(kinds, fields, Decimal, _Time)

    def parse(self, records: Records, ingested_at: datetime) -> tuple[pa.Table, list[Rejected]]:
        """Rows for the table, in the order of ``records``, and the records refused."""
        tables: list[pa.Table] = []
        rejected: list[Rejected] = []
        for begin in range(0, len(records), BLOCK):
            block = records.block(begin, begin + BLOCK)
            rows = self.parse_fast(block, ingested_at)
            if rows is None:
                rows, refused = self.parse_exact(block, ingested_at)
                rejected += refused
            tables.append(rows)
        return pa.concat_tables([self._schema.empty_table(), *tables]), rejected

    def parse_fast(self, records: Records, ingested_at: datetime) -> pa.Table | None:
        """The rows, if each of them surely is what :meth:`parse_exact` makes of its frame; else None."""
        text = b"\n".join(records.values)
        # Of a field that stands in a frame twice only the last is seen here, the exact decoder reads both.
        if b"\\" in text or any(text.count(name) != len(records) for name in self._times):
            return None
        if pc.match_substring_regex(pa.scalar(text, pa.large_binary()), _LONG_NUMBER).as_py():
            return None
        decode = self._decode_fast
        try:
            return self._table(records, [decode(value) for value in records.values], ingested_at, _fast)
        except _UNSURE:
            return None

    def parse_exact(self, records: Records, ingested_at: datetime) -> tuple[pa.Table, list[Rejected]]:
        """The same as :meth:`parse`, slower."""
        good: list[int] = []
        frames: list[Any] = []
        rejected: list[Rejected] = []
        for place, value in enumerate(records.values):
            try:
                frame = self._decode_exact(value)
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                rejected.append(_rejected(records, place, error))
                continue
            if frame.data.timestamp is None:
                frame.data.timestamp = frame.timestamp
                if frame.timestamp is None and self._needs_time:
                    rejected.append(_rejected(records, place, "neither data nor the frame has a timestamp"))
                    continue
            good.append(place)
            frames.append(frame)
        tables = self._build(records.take(good), frames, ingested_at, rejected)
        return pa.concat_tables([self._schema.empty_table(), *tables]), rejected

    def _build(
        self, records: Records, frames: list[Any], ingested_at: datetime, rejected: list[Rejected]
    ) -> list[pa.Table]:
        """Tables of the rows that fit; halves what does not until the rows at fault are found."""
        if not frames:
            return []
        try:
            return [self._table(records, frames, ingested_at, _exact)]
        except _REFUSED as error:
            if len(frames) == 1:
                rejected.append(_rejected(records, 0, error))
                return []
        middle = len(frames) // 2
        return [
            *self._build(records.block(0, middle), frames[:middle], ingested_at, rejected),
            *self._build(records.block(middle, len(frames)), frames[middle:], ingested_at, rejected),
        ]

    def _table(self, records: Records, frames: list[Any], ingested_at: datetime, array: _MakeArray) -> pa.Table:
        types = {column.name: column.type for column in self._schema}
        columns = {"_kafka_topic": pa.repeat(pa.scalar(records.topic, types["_kafka_topic"]), len(frames))}
        for name, values in (
            ("_kafka_partition", records.partitions),
            ("_kafka_offset", records.offsets),
            ("_kafka_timestamp", [None if ms is None else ms * 1000 for ms in records.timestamps_ms]),
            ("_received_at", records.received_us),
        ):
            columns[name] = pa.array(values, types[name])
        columns["_ingested_at"] = pa.repeat(pa.scalar(ingested_at, types["_ingested_at"]), len(frames))
        if "event_type" in types:
            columns["event_type"] = pa.array([frame.event_type for frame in frames], types["event_type"])
        parts = zip(*[msgspec.structs.astuple(frame.data) for frame in frames], strict=True)
        for name, part in zip(self._columns, parts, strict=True):
            columns[name] = array(name, types[name], part)
        return pa.Table.from_arrays([columns[name] for name in types], schema=self._schema)


def _rejected(records: Records, place: int, error: Exception | str) -> Rejected:
    return Rejected(
        records.topic,
        records.partitions[place],
        records.offsets[place],
        records.keys[place],
        records.values[place],
        str(error),
    )


# --- what a frame looks like

_Time = Annotated[datetime, msgspec.Meta(tz=True)]


def _decoder(kinds: Sequence[str], fields: Sequence[pa.Field], amount: Any, time: Any) -> Callable[[bytes], Any]:
    """Decodes a frame whose data has a field for each column, decimals as ``amount`` and times as ``time``."""
    # The time may stand in the envelope instead, so that of the data is never required.
    data = _struct("Data", [f.with_nullable(f.nullable or f.name == "timestamp") for f in fields], amount, time)
    frame = msgspec.defstruct(
        "Frame", [("event_type", Literal[*kinds]), ("data", data), ("timestamp", time | None, None)], gc=False
    )
    return msgspec.json.Decoder(frame).decode


def _struct(name: str, fields: Sequence[pa.Field], amount: Any, time: Any) -> type[msgspec.Struct]:
    members: list[Any] = []
    for column in fields:
        kind = _read_as(column.type, amount, time)
        if column.nullable:
            members.append((column.name, kind | None, None))
        elif column.name in _ZERO_WHERE_MISSING:
            members.append((column.name, kind, kind(0)))
        else:
            members.append((column.name, kind))
    return msgspec.defstruct(name, members, kw_only=True, gc=False)


def _read_as(kind: pa.DataType, amount: Any, time: Any) -> Any:
    if pa.types.is_decimal(kind):
        return amount
    if pa.types.is_timestamp(kind):
        return time
    if pa.types.is_struct(kind):
        return _struct("Item", list(kind), amount, time)
    if pa.types.is_large_list(kind):
        return list[_read_as(kind.value_type, amount, time)]  # type: ignore[misc]
    return {pa.large_string(): str, pa.int64(): int, pa.int32(): int, pa.bool_(): bool}[kind]


# --- columns

_MakeArray = Callable[[str, pa.DataType, Sequence[Any]], pa.Array]
"""(name, type, values) → the column"""
_REFUSED = (pa.ArrowException, ArithmeticError, UnicodeError)
"""What Arrow raises for a value that does not fit its column: too many digits, too large, not text."""
_UNSURE = (msgspec.DecodeError, RecursionError, _UnsureError, *_REFUSED)


def _exact(name: str, kind: pa.DataType, values: Sequence[Any]) -> pa.Array:
    if pa.types.is_decimal(kind):
        values = [_amount(value, rounded=name in _DERIVED) for value in values]
    return _levels(kind, values, _exact) if _is_levels(kind) else pa.array(values, kind)


def _amount(value: Decimal | None, *, rounded: bool) -> Decimal | None:
    if value is None or not value.is_finite():
        return value
    _, digits, exponent = value.as_tuple()
    if rounded and int(exponent) < -8:
        return value.quantize(EIGHT_PLACES, ROUND_HALF_EVEN)
    if len(digits) > MOST_DIGITS:
        raise ArithmeticError(f"a decimal128 has no room for {len(digits)} digits")
    return value


_LONG_NUMBER = r":\s*-?(?:[\d.]{16}|[\d.]+[eE])"
"""A number of sixteen characters or more, or with an exponent. Of others no two are the same double."""
_UNIT = 1e8
_DOUBLE_BELOW = 1e7
"""Eight decimals of a smaller amount make fifteen digits at most, and so a double tells exactly which it is."""
_TIME_LENGTH = len("2026-03-02T09:30:00.123456Z")
_YEAR_1 = pa.scalar(datetime(1, 1, 1, tzinfo=UTC), pa.timestamp("us", "UTC")).cast("int64")


def _fast(_name: str, kind: pa.DataType, values: Sequence[Any]) -> pa.Array:
    """The column.

    Raises:
        _UnsureError: a value is not in the form that nearly all have.
    """
    if pa.types.is_decimal(kind):
        doubles = pa.array(values, pa.float64())
        units = pc.round(pc.multiply(doubles, _UNIT))
        same = pc.and_(pc.equal(pc.divide(units, _UNIT), doubles), pc.less(pc.abs(doubles), _DOUBLE_BELOW))
        _require(same)
        whole = pc.cast(pc.cast(units, pa.int64()), pa.decimal128(19, 0))
        return pa.Array.from_buffers(kind, len(whole), whole.buffers())
    if pa.types.is_timestamp(kind):
        texts = pa.array(values, pa.string())
        if texts.null_count:
            raise _UnsureError
        _require(pc.and_(pc.equal(pc.binary_length(texts), _TIME_LENGTH), pc.ends_with(texts, "Z")))
        times = pc.cast(texts, kind)
        _require(pc.greater_equal(pc.cast(times, pa.int64()), _YEAR_1))
        return times
    return _levels(kind, values, _fast) if _is_levels(kind) else pa.array(values, kind)


def _require(condition: pa.Array) -> None:
    if pc.any(pc.invert(condition)).as_py():  # a null is neither
        raise _UnsureError


def _is_levels(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_list(kind) and pa.types.is_struct(kind.value_type))


def _levels(kind: pa.LargeListType, books: Sequence[Sequence[Any]], array: _MakeArray) -> pa.LargeListArray:
    """A list of structs for each book; from the structs' fields, because Arrow takes dicts only."""
    fields = list(kind.value_type)
    levels = [msgspec.structs.astuple(level) for level in chain.from_iterable(books)]
    parts = zip(*levels, strict=True) if levels else ((),) * len(fields)
    columns = [array(of.name, of.type, part) for of, part in zip(fields, parts, strict=True)]
    offsets = pa.array(accumulate(map(len, books), initial=0), pa.int64())
    return pa.LargeListArray.from_arrays(offsets, pa.StructArray.from_arrays(columns, fields=fields), type=kind)
