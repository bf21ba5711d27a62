"""Frames as exchanges print them → columns, by compiled code.

In: frames of ``{"event_type":"…","data":{…}}`` that lie one after the other. Out: an Arrow array for each field of
the data, and which of the frames are plain. A frame is plain when it holds no field that was not asked for, none
twice, and none is missing or null that must not be; its text is ASCII without escapes, its numbers have neither an
exponent nor more digits than fit, its times are RFC 3339 in UTC with six decimals, and blanks stand at most behind
colons and commas, one at a time. What other frames say is for a real decoder to find out. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lakehouse.compiled import compiled
from lakehouse.texts import SPARE, Integers, Texts

Bytes = NDArray[np.uint8]
Words = NDArray[np.int64]
Flags = NDArray[np.bool_]
Cells = NDArray[np.int64]
"""(rows, columns, 2): of text where it begins, of a list its first item, else the value; and the size of these, or
0; _NULL: it is null."""

_TEXT, _LONG, _INT, _BOOL, _DECIMAL, _TIME, _LIST = range(7)
_NULL, _ABSENT = -1, -2
BAD = -1
"""Instead of a place: there is no such thing."""
_SCALE = 8


_KIND, _NULLABLE, _OTHERWISE, _SIZE, _NAME = range(5)
"""Of a field in a layout: what it holds; whether it may be null; what stands where it is missing (0, _NULL, or
_ABSENT: the frame is not plain); then ``"name":``, its size, its words of eight bytes, and masks for these."""
_WORDS = 3
_MASK = _NAME + _WORDS
_NAME_MAX = 8 * _WORDS - len('"":')
_FIELDS_MAX = 62


class Scanner:
    """Scans the frames of a table.

    Args:
        events: event types that frames may have.
        fields: of the data; a list holds objects, whose own fields are neither lists nor null, or values.
        optional: fields, also of items, that are 0 where they are missing.
    """

    def __init__(self, events: Sequence[str], fields: Sequence[pa.Field], optional: frozenset[str]) -> None:
        self._types = [field.type for field in fields]
        self._layout = _layout(fields, optional)
        prefixes = [f'{{"event_type":{b}"{name}",{b}"data":{b}{{'.encode() for b in ("", " ") for name in events]
        self._prefixes = np.frombuffer(b"".join(prefixes), np.uint8)
        self._prefix_ends = np.cumsum([len(prefix) for prefix in prefixes])
        items = next((_members(kind) for kind in self._types if _is_list(kind)), [])
        if any(_is_list(kind) and _members(kind) != items for kind in self._types):
            raise ValueError("the lists of a table hold different items")
        self._items = _layout(items, optional)
        self._events = len(events)

    def scan(self, frames: Texts) -> tuple[list[pa.Array], Integers, Flags]:
        """The columns of the plain frames; the number of the event type of each; which of all frames they are."""
        count = len(frames)
        raw = np.frombuffer(frames.text, np.uint8)
        words = words_of(frames.text)
        cells = np.empty((count, len(self._types), 2), np.int64)
        listed = np.empty(
            ((frames.end - frames.begin + SPARE) // 2 if len(self._items) else 0, len(self._items), 2), np.int64
        )
        event, plain = np.empty(count, np.int64), np.empty(count, np.bool_)
        _scan(
            *(raw, words, frames.begin, frames.ends, self._prefixes, self._prefix_ends, self._layout, self._items),
            *(cells, listed, event, plain),
        )
        if not plain.all():
            cells, event = cells[plain], event[plain]
        columns = [
            _column(words, cells[:, place], kind, listed, nullable=bool(self._layout[place, _NULLABLE]))
            for place, kind in enumerate(self._types)
        ]
        return columns, event % self._events, plain


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_list(kind))


def _members(kind: pa.LargeListType) -> list[pa.Field]:
    """Fields of a list's items; the one of plain values has no name."""
    item = kind.value_type
    return list(item) if pa.types.is_struct(item) else [pa.field("", item, nullable=False)]


def _layout(fields: Sequence[pa.Field], optional: frozenset[str]) -> Integers:
    """(fields, numbers)"""
    if len(fields) > _FIELDS_MAX:
        raise ValueError(f"more than {_FIELDS_MAX} fields")
    layout = np.empty((len(fields), _MASK + _WORDS), np.int64)
    for row, field in zip(layout, fields, strict=True):
        if len(field.name) > _NAME_MAX:
            raise ValueError(f"{field.name} is longer than {_NAME_MAX}")
        nullable = field.nullable and not _is_list(field.type)
        name = f'"{field.name}":'.encode() if field.name else b""
        otherwise = 0 if field.name in optional else _NULL if nullable else _ABSENT
        row[:_NAME] = _kind(field.type), nullable, otherwise, len(name)
        row[_NAME:_MASK] = np.frombuffer(name.ljust(8 * _WORDS, b"\0"), np.int64)
        row[_MASK:] = np.frombuffer((b"\xff" * len(name)).ljust(8 * _WORDS, b"\0"), np.int64)
    return layout


def _kind(kind: pa.DataType) -> int:
    if pa.types.is_decimal(kind):
        if kind.scale != _SCALE or kind.precision < 2 * _SCALE + 2:
            raise ValueError(f"{kind} does not hold ten digits and eight decimals")
        return _DECIMAL
    if pa.types.is_timestamp(kind):
        return _TIME
    if _is_list(kind):
        return _LIST
    return {pa.large_string(): _TEXT, pa.int64(): _LONG, pa.int32(): _INT, pa.bool_(): _BOOL}[kind]


# --- columns


def words_of(text: Any) -> Words:
    """The eight bytes from each byte on."""
    return np.ndarray(len(text) - SPARE, np.int64, text, strides=(1,))


def _column(words: Words, cells: Cells, kind: pa.DataType, listed: Cells, *, nullable: bool) -> pa.Array:
    """``cells``: (rows, 2)."""
    values, sizes, count = cells[:, 0], cells[:, 1], len(cells)
    validity = None
    if nullable:
        present = sizes != _NULL
        if not present.all():
            validity = _buffer(np.packbits(present, bitorder="little"))
    if pa.types.is_large_string(kind):
        text = np.empty(int(np.maximum(sizes, 0).sum()) + SPARE, np.uint8)
        offsets = np.empty(count + 1, np.int64)
        _copy(words, values, sizes, words_of(text), offsets)
        return pa.Array.from_buffers(kind, count, [validity, _buffer(offsets), _buffer(text[:-SPARE])])
    if _is_list(kind):
        chosen = np.empty((int(sizes.sum()), *listed.shape[1:]), np.int64)
        offsets = np.empty(count + 1, np.int64)
        _choose(listed, values, sizes, chosen, offsets)
        members = _members(kind)
        columns = [
            _column(words, chosen[:, i], member.type, listed, nullable=False) for i, member in enumerate(members)
        ]
        items = pa.StructArray.from_arrays(columns, fields=members) if members[0].name else columns[0]
        return pa.LargeListArray.from_arrays(pa.array(offsets), items, type=kind)
    if pa.types.is_decimal(kind):  # sixteen bytes, the low ones first
        data = _buffer(np.column_stack((values, values >> 63)))
    elif pa.types.is_boolean(kind):
        data = _buffer(np.packbits(values.astype(np.bool_), bitorder="little"))
    else:
        data = _buffer(values.astype(np.int32 if pa.types.is_int32(kind) else np.int64))
    return pa.Array.from_buffers(kind, count, [validity, data])


def _buffer(array: NDArray[Any]) -> pa.Buffer:
    return pa.py_buffer(np.ascontiguousarray(array))


@compiled
def _copy(words: Words, begins: Integers, sizes: Integers, into: Words, offsets: Integers) -> None:
    """Strings from where they begin, one behind the other. Of eight bytes the next one covers the rest."""
    at = 0
    offsets[0] = 0
    for row in range(len(begins)):
        begin, size = begins[row], sizes[row]
        for i in range(0, size, 8):
            into[at + i] = words[begin + i]
        at += max(size, 0)
        offsets[row + 1] = at


@compiled
def _choose(listed: Cells, firsts: Integers, counts: Integers, chosen: Cells, offsets: Integers) -> None:
    """The items of one column among those of all."""
    at = 0
    offsets[0] = 0
    for row in range(len(firsts)):
        for item in range(firsts[row], firsts[row] + counts[row]):
            chosen[at] = listed[item]
            at += 1
        offsets[row + 1] = at


# --- one frame after the other

_LOWS, _HIGHS, _SPACES, _QUOTES, _SLASHES = (np.frombuffer(bytes([c]) * 8, np.uint64)[0] for c in b'\x01\x80 "\\')
_BYTE, _HIGH = np.uint64(8), np.uint64(0x80)
_FOUR, _FIVE = 0xFFFFFFFF, 0xFFFFFFFFFF
_NULL_TEXT, _TRUE_TEXT, _FALSE_TEXT = (int.from_bytes(text, "little") for text in (b"null", b"true", b"false"))
_STAMP = np.frombuffer(b"0000-00-00T00:00:00.000000Z", np.uint8)
"""A time as an exchange prints it; the zeros stand for any digits."""
_DAYS_BEFORE = np.array([0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365])
"""How many days of a common year come before each month."""
_DAYS_TO_EPOCH = date(1970, 1, 1).toordinal() - 1
TENS = 10 ** np.arange(19)
_INT_ABOVE = 1 << 31


@compiled
def _scan(
    raw: Bytes,
    words: Words,
    begin: int,
    ends: Integers,
    prefixes: Bytes,
    prefix_ends: Integers,
    layout: Integers,
    items: Integers,
    cells: Cells,
    listed: Cells,
    event: Integers,
    plain: Flags,
) -> None:
    """Scan frames that lie one after the other.

    Args:
        raw: the frames, and eight bytes more.
        words: the eight bytes from each byte of a frame on.
        begin: where the first one begins.
        ends: where each of them ends.
        prefixes: what a frame may begin with, up to ``prefix_ends`` each.
        cells: receives the fields of each frame.
        listed: receives the items of lists, those of a frame behind those of the frame before.
        event: receives which of the prefixes it is.
        plain: receives which frames are plain; what the others left in the arrays means nothing.
    """
    filled = 0
    for row in range(len(ends)):
        end = ends[row]
        used = BAD
        at, event[row] = _prefix(raw, begin, end, prefixes, prefix_ends)
        if at != BAD:
            used = _data(raw, words, at, end, layout, items, cells, row, listed, filled)
        plain[row] = used != BAD
        if plain[row]:
            filled = used
        begin = end


@compiled
def _data(
    raw: Bytes,
    words: Words,
    at: int,
    end: int,
    layout: Integers,
    items: Integers,
    cells: Cells,
    row: int,
    listed: Cells,
    filled: int,
) -> int:
    """How many items of lists there are behind the data; BAD: the frame is not plain."""
    seen, field = 0, -1
    while True:
        field = _field(words, at, end, layout, field + 1)
        if field == BAD or seen >> field & 1:
            return BAD
        seen |= 1 << field
        at += layout[field, _SIZE]
        at += raw[at] == ord(" ")
        if layout[field, _KIND] == _LIST:
            cells[row, field, 0] = filled
            at, filled = _list(raw, words, at, end, items, listed, filled)
            cells[row, field, 1] = filled - cells[row, field, 0]
        else:
            at = _value(raw, words, at, end, layout, field, cells, row)
        if at == BAD:
            return BAD
        if raw[at] != ord(","):
            break
        at += 1
        at += raw[at] == ord(" ")
    if end - at != 2 or raw[at] != ord("}") or raw[at + 1] != ord("}"):
        return BAD
    return filled if _completed(layout, seen, cells, row) else BAD


@compiled
def _list(
    raw: Bytes, words: Words, at: int, end: int, items: Integers, listed: Cells, filled: int
) -> tuple[int, int]:
    """Where it ends, and how many items there are then."""
    if at >= end or raw[at] != ord("["):
        return BAD, filled
    at += 1
    if raw[at] == ord("]"):
        return at + 1, filled
    while True:
        if items[0, _SIZE]:
            at = _item(raw, words, at, end, items, listed, filled)
        else:
            at = _value(raw, words, at, end, items, 0, listed, filled)
        if at == BAD:
            return BAD, filled
        filled += 1
        if raw[at] != ord(","):
            return at + 1 if raw[at] == ord("]") else BAD, filled
        at += 1
        at += raw[at] == ord(" ")


@compiled
def _item(raw: Bytes, words: Words, at: int, end: int, items: Integers, cells: Cells, row: int) -> int:
    """Where an object in a list ends."""
    if at >= end or raw[at] != ord("{"):
        return BAD
    seen, field = 0, -1
    while True:
        at += 1
        at += raw[at] == ord(" ")
        field = _field(words, at, end, items, field + 1)
        if field == BAD or seen >> field & 1:
            return BAD
        seen |= 1 << field
        at += items[field, _SIZE]
        at += raw[at] == ord(" ")
        at = _value(raw, words, at, end, items, field, cells, row)
        if at == BAD:
            return BAD
        if raw[at] != ord(","):
            return at + 1 if raw[at] == ord("}") and _completed(items, seen, cells, row) else BAD


@compiled
def _prefix(raw: Bytes, begin: int, end: int, prefixes: Bytes, prefix_ends: Integers) -> tuple[int, int]:
    """Where a frame's prefix ends, and which it is."""
    first = 0
    for prefix in range(len(prefix_ends)):
        size = prefix_ends[prefix] - first
        if end - begin >= size:
            differ = 0
            for i in range(size):
                differ |= raw[begin + i] ^ prefixes[first + i]
            if differ == 0:
                return begin + size, prefix
        first = prefix_ends[prefix]
    return BAD, BAD


@compiled
def _field(words: Words, at: int, end: int, layout: Integers, first: int) -> int:
    """Which field's name stands here; looked for from the ``first``-th on, and round."""
    count = len(layout)
    for i in range(count):
        field = first + i
        if field >= count:
            field -= count
        size = layout[field, _SIZE]
        if end - at >= size:
            differ = (words[at] ^ layout[field, _NAME]) & layout[field, _MASK]
            for word in range(1, (size + 7) >> 3):
                differ |= (words[at + 8 * word] ^ layout[field, _NAME + word]) & layout[field, _MASK + word]
            if differ == 0:
                return field
    return BAD


@compiled
def _completed(layout: Integers, seen: int, cells: Cells, row: int) -> bool:
    """Fill in the fields that are not among those ``seen``, a bit each; whether they may be missing."""
    if seen + 1 == 1 << len(layout):
        return True
    for field in range(len(layout)):
        if not seen >> field & 1:
            if layout[field, _OTHERWISE] == _ABSENT:
                return False
            cells[row, field, 0], cells[row, field, 1] = 0, layout[field, _OTHERWISE]
    return True


@compiled
def _value(
    raw: Bytes, words: Words, at: int, end: int, layout: Integers, field: int, cells: Cells, row: int
) -> int:
    """Where a value ends."""
    cells[row, field, 1] = 0
    kind = layout[field, _KIND]
    if layout[field, _NULLABLE] and end - at > 4 and words[at] & _FOUR == _NULL_TEXT:
        cells[row, field, 0], cells[row, field, 1] = 0, _NULL
        return at + 4
    if kind in (_TEXT, _TIME):
        if at >= end or raw[at] != ord('"'):
            return BAD
        at += 1
        last = quoted(raw, words, at, end)
        if last == BAD:
            return BAD
        if kind == _TEXT:
            cells[row, field, 0], cells[row, field, 1] = at, last - at
        else:
            cells[row, field, 0] = micros(raw, at, last)
            if cells[row, field, 0] < 0:
                return BAD
        return last + 1
    if kind == _BOOL:
        if end - at > 5:
            if words[at] & _FOUR == _TRUE_TEXT:
                cells[row, field, 0] = 1
                return at + 4
            if words[at] & _FIVE == _FALSE_TEXT:
                cells[row, field, 0] = 0
                return at + 5
        return BAD
    minus = kind == _DECIMAL and raw[at] == ord("-")
    at += minus
    number, decimals, last = number_at(raw, at, end)
    if last == BAD:
        return BAD
    if kind == _DECIMAL:
        decimals = max(decimals, 0)
        if decimals > _SCALE or number >= TENS[_SCALE + 2 + decimals]:
            return BAD
        number *= TENS[_SCALE - decimals]
    elif decimals >= 0 or (kind == _INT and number >= _INT_ABOVE):
        return BAD
    cells[row, field, 0] = -number if minus else number
    return last


@compiled
def quoted(raw: Bytes, words: Words, at: int, end: int) -> int:
    """Where a string of ASCII without escapes ends.

    Eight bytes at a time: the lowest of them that ends it has its high bit set in ``ends``, after Henry S. Warren,
    Hacker's Delight, 6-1.
    """
    while at < end:
        word = np.uint64(words[at])
        quote, slash = word ^ _QUOTES, word ^ _SLASHES
        ends = ((quote - _LOWS) & ~quote) | ((slash - _LOWS) & ~slash) | ((word - _SPACES) & ~word) | word
        ends &= _HIGHS
        if ends:
            while not ends & _HIGH:
                ends >>= _BYTE
                at += 1
            return at if at < end and raw[at] == ord('"') else BAD
        at += 8
    return BAD


@compiled
def number_at(raw: Bytes, at: int, end: int) -> tuple[int, int, int]:
    """A number of at most 18 figures: these, how many follow the point (-1: there is none), and where it ends."""
    number, decimals, begin = 0, -1, at
    while at < end:
        character = raw[at]
        if ord("0") <= character <= ord("9"):
            number = number * 10 + (character - ord("0"))
            if decimals >= 0:
                decimals += 1
        elif character == ord(".") and decimals < 0 and at > begin:
            decimals = 0
        else:
            break
        at += 1
    size = at - begin
    zero_first = size > 1 and raw[begin] == ord("0") and raw[begin + 1] != ord(".")
    return number, decimals, BAD if size == 0 or size > 18 or decimals == 0 or zero_first else at


@compiled
def micros(raw: Bytes, at: int, end: int) -> int:
    """Microseconds from the epoch to a time as an exchange prints it; negative: it is none, or before."""
    if end - at != len(_STAMP):
        return BAD
    for i in range(len(_STAMP)):
        if _STAMP[i] == ord("0"):
            if not ord("0") <= raw[at + i] <= ord("9"):
                return BAD
        elif raw[at + i] != _STAMP[i]:
            return BAD
    year, month, day = _digits(raw, at, 4), _digits(raw, at + 5, 2), _digits(raw, at + 8, 2)
    hour, minute, second = _digits(raw, at + 11, 2), _digits(raw, at + 14, 2), _digits(raw, at + 17, 2)
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if not 1 <= month <= 12 or hour > 23 or minute > 59 or second > 59:
        return BAD
    in_month = _DAYS_BEFORE[month] - _DAYS_BEFORE[month - 1] + (leap and month == 2)
    if not 1 <= day <= in_month:
        return BAD
    past = year - 1
    days = past * 365 + past // 4 - past // 100 + past // 400 - _DAYS_TO_EPOCH
    days += int(_DAYS_BEFORE[month - 1]) + (leap and month > 2) + day - 1
    return (((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + _digits(raw, at + 20, 6)


@compiled
def _digits(raw: Bytes, at: int, count: int) -> int:
    number = 0
    for i in range(at, at + count):
        number = number * 10 + int(raw[i]) - ord("0")
    return number
