"""Frames as exchanges print them → columns, by compiled code.

In: frames of ``{"event_type":"…","data":{…}}`` that lie one after the other. Out: a cell for each field of their
data, and which of the frames are plain. Pure.

A frame is plain when it holds no field that was not asked for, none twice, and none is missing or null that must
not be; its text is ASCII without escapes, its numbers have neither an exponent nor more digits than fit, its times
are RFC 3339 in UTC with six decimals, and blanks stand at most behind colons and commas, one at a time. What other
frames say is for a real decoder to find out.
"""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lakehouse.compiled import compiled
from lakehouse.texts import SPARE, Integers

Bytes = NDArray[np.uint8]
Words = NDArray[np.int64]
Flags = NDArray[np.bool_]
Cells = NDArray[np.int64]
"""(rows, columns, 2): of text where it begins, of a list its first item, else the value; and the size of these, or
0; NULL: it is null."""

TEXT, LONG, INT, BOOL, DECIMAL, TIME, LIST = range(7)
NULL, ABSENT = -1, -2
BAD = -1
"""Instead of a place: there is no such thing."""
SCALE = 8

KIND, NULLABLE, OTHERWISE, SIZE, NAME = range(5)
"""Of a field in a layout: what it holds; whether it may be null; what stands where it is missing (0, NULL, or
ABSENT: the frame is not plain); then ``"name":``, its size, its words of eight bytes, and masks for these."""
WORDS = 3
MASK = NAME + WORDS


def words_of(text: Any) -> Words:
    """The eight bytes from each byte on."""
    return np.ndarray(len(text) - SPARE, np.int64, text, strides=(1,))


@compiled
def copy(words: Words, begins: Integers, sizes: Integers, into: Words, offsets: Integers) -> None:
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
def choose(listed: Cells, firsts: Integers, counts: Integers, chosen: Cells, offsets: Integers) -> None:
    """The items of one column among those of all."""
    at = 0
    offsets[0] = 0
    for row in range(len(firsts)):
        for item in range(firsts[row], firsts[row] + counts[row]):
            for field in range(listed.shape[1]):
                chosen[at, field, 0], chosen[at, field, 1] = listed[item, field, 0], listed[item, field, 1]
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
def scan(
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
    filled = 0 * begin  # a plain 0 is a type of its own, for which all would be compiled once more
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
        at += layout[field, SIZE]
        at += raw[at] == ord(" ")
        if layout[field, KIND] == LIST:
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
        if items[0, SIZE]:
            at = _item(raw, words, at, end, items, listed, filled)
        else:
            at = _value(raw, words, at, end, items, len(items) - 1, listed, filled)
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
        at += items[field, SIZE]
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
        size = layout[field, SIZE]
        if end - at >= size:
            differ = (words[at] ^ layout[field, NAME]) & layout[field, MASK]
            for word in range(1, (size + 7) >> 3):
                differ |= (words[at + 8 * word] ^ layout[field, NAME + word]) & layout[field, MASK + word]
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
            if layout[field, OTHERWISE] == ABSENT:
                return False
            cells[row, field, 0], cells[row, field, 1] = 0, layout[field, OTHERWISE]
    return True


@compiled
def _value(
    raw: Bytes, words: Words, at: int, end: int, layout: Integers, field: int, cells: Cells, row: int
) -> int:
    """Where a value ends."""
    cells[row, field, 1] = 0
    kind = layout[field, KIND]
    if layout[field, NULLABLE] and end - at > 4 and words[at] & _FOUR == _NULL_TEXT:
        cells[row, field, 0], cells[row, field, 1] = 0, NULL
        return at + 4
    if kind in (TEXT, TIME):
        if at >= end or raw[at] != ord('"'):
            return BAD
        at += 1
        last = quoted(raw, words, at, end)
        if last == BAD:
            return BAD
        if kind == TEXT:
            cells[row, field, 0], cells[row, field, 1] = at, last - at
        else:
            cells[row, field, 0] = micros(raw, at, last)
            if cells[row, field, 0] < 0:
                return BAD
        return last + 1
    if kind == BOOL:
        if end - at > 5:
            if words[at] & _FOUR == _TRUE_TEXT:
                cells[row, field, 0] = 1
                return at + 4
            if words[at] & _FIVE == _FALSE_TEXT:
                cells[row, field, 0] = 0
                return at + 5
        return BAD
    minus = kind == DECIMAL and raw[at] == ord("-")
    at += minus
    number, decimals, last = number_at(raw, at, end)
    if last == BAD:
        return BAD
    if kind == DECIMAL:
        decimals = max(decimals, 0)
        if decimals > SCALE or number >= TENS[SCALE + 2 + decimals]:
            return BAD
        number *= TENS[SCALE - decimals]
    elif decimals >= 0 or (kind == INT and number >= _INT_ABOVE):
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
