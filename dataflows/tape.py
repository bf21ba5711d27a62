"""Trades in columns: decoding many frames at once.

In: frames of raw.trades. Out: a :class:`Tape`, the trades that :func:`dataflows.frames.decode_prints` makes rows
of. Frames that are as an exchange prints them, byte for byte, are scanned by compiled code; others are decoded one
by one. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from itertools import accumulate
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataflows.compiled import compiled
from dataflows.frames import DECIMALS, SEQUENCES, Print, decode_prints

Integers = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Words = NDArray[np.uint64]
Flags = NDArray[np.bool_]


class Tape(NamedTuple):
    """Columns of one length; a row is a :data:`dataflows.frames.Print`."""

    symbol: NDArray[np.object_]
    time: Integers
    sequence: Integers
    price: Integers
    quantity: Integers
    buy: Flags
    identity: Integers
    place: Integers

    @classmethod
    def of(cls, prints: Iterable[Print]) -> Tape:
        columns = list(zip(*prints, strict=True)) or [()] * len(cls._fields)
        return cls._make(map(np.array, columns, _TYPES))

    @classmethod
    def joined(cls, tapes: Sequence[Tape]) -> Tape:
        return tapes[0] if len(tapes) == 1 else cls._make(map(np.concatenate, zip(*tapes, strict=True)))

    def part(self, begin: int, end: int) -> Tape:
        """The rows from ``begin`` to before ``end``."""
        return Tape._make(column[begin:end] for column in self)

    def where(self, good: Flags) -> Tape:
        """The rows that are true in ``good``."""
        return Tape._make(column[good] for column in self)

    def rows(self) -> Iterator[Print]:
        return zip(*(column.tolist() for column in self), strict=True)


_TYPES = [np.object_, *[np.int64] * 4, np.bool_, *[np.int64] * 2]
CHUNK = 1_024
"""Frames decoded at a time: they stay in the processor's cache, and those of a large batch do not."""


class TapeDecoder:
    """Decodes frames; remembers symbols, of which a market has few. For one thread."""

    def __init__(self) -> None:
        self._names = np.empty(_SYMBOLS, np.object_)
        self._named = np.zeros((_SYMBOLS, _SYMBOL_MAX), np.uint8)
        self._sizes = np.empty(_SYMBOLS, np.int64)
        self._slots = np.full(4 * _SYMBOLS, -1)
        self._symbols = 0

    def decode(self, frames: Sequence[bytes]) -> tuple[Tape, dict[int, str]]:
        """The trades among some frames, and why the others are none, by place."""
        tapes: list[Tape] = []
        reasons: dict[int, str] = {}
        for begin in range(0, len(frames), CHUNK):
            tape, plain = self._decode_plain(frames[begin : begin + CHUNK], begin)
            if not plain.all():
                others = []
                for place in (np.flatnonzero(~plain) + begin).tolist():
                    prints, refused = decode_prints(frames[place : place + 1], place)
                    others += prints
                    reasons |= refused
                tape = Tape.of(sorted([*tape.where(plain).rows(), *others], key=itemgetter(-1)))
            tapes.append(tape)
        return Tape.joined(tapes) if tapes else Tape.of(()), reasons

    def _decode_plain(self, frames: Sequence[bytes], begin: int) -> tuple[Tape, Flags]:
        """The frames that are as an exchange prints them, and which these are; other rows mean nothing."""
        if self._symbols + len(frames) > _SYMBOLS:
            self._slots.fill(-1)
            self._symbols = 0
        count = len(frames)
        raw = b"".join((*frames, bytes(8)))
        words = np.ndarray(len(raw) - 8, np.uint64, raw, strides=(1,))
        ends = np.fromiter(accumulate(map(len, frames)), np.int64, count)
        figures = np.zeros((5, count), np.int64)
        buy, plain = np.empty((2, count), np.bool_)
        symbols = _scan(
            *(np.frombuffer(raw, np.uint8), words, ends, figures, buy, plain),
            *(self._slots, self._named, self._sizes, self._symbols),
        )
        for number in range(self._symbols, symbols):
            self._names[number] = bytes(self._named[number, : self._sizes[number]]).decode()
        self._symbols = symbols
        symbol, time, sequence, price, quantity = figures
        identity, place = sequence << 26 ^ time, np.arange(begin, begin + count)
        return Tape(self._names[symbol], time, sequence, price, quantity, buy, identity, place), plain


_SYMBOLS = 4 * CHUNK
"""As many are remembered, of at most _SYMBOL_MAX bytes."""
_SYMBOL_MAX = 32
_TEXTS = (
    *(b'{"event_type":"TradeExecuted","data":{"event_id":"', b'","timestamp":"', b'","sequence":'),
    *(b',"trade_id":"', b'","symbol":"', b'","price":', b',"quantity":', b',"buy_order_id":"'),
    *(b'","sell_order_id":"', b'","buyer_agent_id":"', b'","seller_agent_id":"', b'","is_aggressive_buy":'),
)
"""What an exchange prints of each trade around its twelve values, of which the last ends the frame."""
_WORDS = [(i, at) for i, text in enumerate(_TEXTS) for at in (*range(0, len(text) - 7, 8), len(text) - 8)]
"""Texts are compared in words of eight bytes; the last word of one may overlap the one before."""
_TEXT_SIZE = np.array([len(text) for text in _TEXTS])
_TEXT_WORDS = np.cumsum([sum(i == of for of, _ in _WORDS) for i in range(-1, len(_TEXTS))])
"""Where the words of each text begin; one more at the end."""
_WORD_AT = np.array([at for _, at in _WORDS])
_WORD = np.frombuffer(b"".join(_TEXTS[i][at : at + 8] for i, at in _WORDS), np.uint64)
_LOWS, _HIGHS, _SPACES, _QUOTES, _SLASHES = (np.frombuffer(bytes([c]) * 8, np.uint64)[0] for c in b'\x01\x80 "\\')
_BYTE, _HIGH = np.uint64(8), np.uint64(0x80)
_TIME, _SEQUENCE, _SYMBOL, _PRICE, _QUANTITY, _BUY = 1, 2, 4, 5, 6, 11
_TRUE, _FALSE = np.frombuffer(b"true}}", np.uint8), np.frombuffer(b"false}}", np.uint8)
_STAMP = np.frombuffer(b"0000-00-00T00:00:00.000000Z", np.uint8)
"""A time as an exchange prints it; the zeros stand for any digits."""
_DAYS_BEFORE = np.array([0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365])
"""How many days of a common year come before each month."""
_DAYS_TO_EPOCH = date(1970, 1, 1).toordinal() - 1
_TENS = 10 ** np.arange(19)
_BAD = -1


@compiled
def _scan(
    raw: Bytes,
    words: Words,
    ends: Integers,
    figures: Integers,
    buy: Flags,
    plain: Flags,
    slots: Integers,
    named: NDArray[np.uint8],
    sizes: Integers,
    symbols: int,
) -> int:
    """Scan frames that lie one after the other.

    Args:
        raw: the frames, and eight bytes more.
        words: the eight bytes from each byte of a frame on.
        ends: where each of them ends.
        figures: receives the number of the symbol, time, sequence, price and quantity of each.
        buy: receives whether the buyer was the aggressor.
        plain: receives which of the frames are as an exchange prints them.
        slots: a hash table of the numbers of symbols, -1 where it is empty; its length is a power of two.
        named: the symbols by number, of the sizes ``sizes``.
        symbols: how many there are; how many there are afterwards is returned.
    """
    begin = 0
    for row in range(len(ends)):
        first, last = _scan_frame(raw, words, begin, ends[row], figures, buy, row)
        begin = ends[row]
        size = last - first
        plain[row] = first != _BAD and size <= _SYMBOL_MAX
        if not plain[row]:
            continue
        slot = 0
        for i in range(first, last):
            slot = slot * 31 + raw[i]
        slot &= len(slots) - 1
        while slots[slot] >= 0 and not _is_named(raw, first, size, named, sizes, slots[slot]):
            slot = (slot + 1) & (len(slots) - 1)
        if slots[slot] < 0:
            slots[slot] = symbols
            sizes[symbols] = size
            for i in range(size):
                named[symbols, i] = raw[first + i]
            symbols += 1
        figures[0, row] = slots[slot]
    return symbols


@compiled
def _is_named(raw: Bytes, at: int, size: int, named: NDArray[np.uint8], sizes: Integers, number: int) -> bool:
    if size != sizes[number]:
        return False
    differ = 0
    for i in range(size):
        differ |= raw[at + i] ^ named[number, i]
    return differ == 0


@compiled
def _scan_frame(
    raw: Bytes, words: Words, at: int, end: int, figures: Integers, buy: Flags, row: int
) -> tuple[int, int]:
    """Where the symbol begins and ends; the former is _BAD where the frame is not plain."""
    first = size = 0
    for value in range(len(_TEXT_SIZE)):
        at = _after(words, at, end, value)
        if at == _BAD:
            break
        if value in (_SEQUENCE, _PRICE, _QUANTITY):
            number, decimals, last = _number(raw, at, end)
            if value == _SEQUENCE:
                if last == _BAD or decimals >= 0 or number >= SEQUENCES:
                    break
                figures[2, row] = number
            else:
                decimals = max(decimals, 0)
                if last == _BAD or decimals > DECIMALS or not 0 < number < _TENS[10 + decimals]:
                    break
                figures[value - _PRICE + 3, row] = number * _TENS[DECIMALS - decimals]
            at = last
        elif value == _BUY:
            buy[row] = _flag(raw, at, end, _TRUE)
            if buy[row] or _flag(raw, at, end, _FALSE):
                return first, first + size
        else:
            last = _quoted(raw, words, at, end)
            if last == _BAD:
                break
            if value == _TIME:
                figures[1, row] = _micros(raw, at, last)
                if figures[1, row] < 0:
                    break
            elif value == _SYMBOL:
                first, size = at, last - at
            at = last
    return _BAD, _BAD


@compiled
def _after(words: Words, at: int, end: int, value: int) -> int:
    """Where the text before a value ends, which has to stand here."""
    if end - at < _TEXT_SIZE[value]:
        return _BAD
    for i in range(_TEXT_WORDS[value], _TEXT_WORDS[value + 1]):
        if words[at + _WORD_AT[i]] != _WORD[i]:
            return _BAD
    return at + int(_TEXT_SIZE[value])


@compiled
def _quoted(raw: Bytes, words: Words, at: int, end: int) -> int:
    """Where a string of ASCII without escapes ends.

    Eight bytes at a time: the lowest of them that ends it has its high bit set in ``ends``, after Henry S. Warren,
    Hacker's Delight, 6-1.
    """
    while at < end:
        word = words[at]
        quote, slash = word ^ _QUOTES, word ^ _SLASHES
        ends = ((quote - _LOWS) & ~quote) | ((slash - _LOWS) & ~slash) | ((word - _SPACES) & ~word) | word
        ends &= _HIGHS
        if ends:
            while not ends & _HIGH:
                ends >>= _BYTE
                at += 1
            return at if at < end and raw[at] == ord('"') else _BAD
        at += 8
    return _BAD


@compiled
def _flag(raw: Bytes, at: int, end: int, text: Bytes) -> bool:
    """Whether this is what is left of a frame."""
    if end - at != len(text):
        return False
    differ = 0
    for i in range(len(text)):
        differ |= raw[at + i] ^ text[i]
    return differ == 0


@compiled
def _number(raw: Bytes, at: int, end: int) -> tuple[int, int, int]:
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
    return number, decimals, _BAD if size == 0 or size > 18 or decimals == 0 or zero_first else at


@compiled
def _micros(raw: Bytes, at: int, end: int) -> int:
    """Microseconds from the epoch to a time as an exchange prints it; negative: it is none, or before."""
    if end - at != len(_STAMP):
        return _BAD
    for i in range(len(_STAMP)):
        if _STAMP[i] == ord("0"):
            if not ord("0") <= raw[at + i] <= ord("9"):
                return _BAD
        elif raw[at + i] != _STAMP[i]:
            return _BAD
    year, month, day = _digits(raw, at, 4), _digits(raw, at + 5, 2), _digits(raw, at + 8, 2)
    hour, minute, second = _digits(raw, at + 11, 2), _digits(raw, at + 14, 2), _digits(raw, at + 17, 2)
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if not 1 <= month <= 12 or hour > 23 or minute > 59 or second > 59:
        return _BAD
    in_month = _DAYS_BEFORE[month] - _DAYS_BEFORE[month - 1] + (leap and month == 2)
    if not 1 <= day <= in_month:
        return _BAD
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
