"""Trades in columns: decoding many frames at once.

In: frames of raw.trades. Out: a :class:`Tape`, the trades that :func:`dataflows.frames.decode_prints` makes rows
of. Frames that are as an exchange prints them, byte for byte, are scanned by compiled code; others are decoded one
by one. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataflows.frames import DECIMALS, SEQUENCES, Print, decode_prints
from lakehouse.compiled import compiled
from lakehouse.scan import BAD, TENS, Bytes, Flags, Words, micros, number_at, quoted, words_of
from lakehouse.texts import Integers, Texts


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
        texts = Texts.of(frames)
        for begin in range(0, len(texts), CHUNK):
            tape, plain = self._decode_plain(texts.part(begin, begin + CHUNK), begin)
            if not plain.all():
                others = []
                for place in (np.flatnonzero(~plain) + begin).tolist():
                    prints, refused = decode_prints([texts[place]], place)
                    others += prints
                    reasons |= refused
                tape = Tape.of(sorted([*tape.where(plain).rows(), *others], key=itemgetter(-1)))
            tapes.append(tape)
        return Tape.joined(tapes) if tapes else Tape.of(()), reasons

    def _decode_plain(self, frames: Texts, begin: int) -> tuple[Tape, Flags]:
        """The frames that are as an exchange prints them, and which these are; other rows mean nothing."""
        if self._symbols + len(frames) > _SYMBOLS:
            self._slots.fill(-1)
            self._symbols = 0
        count = len(frames)
        figures = np.zeros((5, count), np.int64)
        buy, plain = np.empty((2, count), np.bool_)
        symbols = _scan(
            np.frombuffer(frames.text, np.uint8),
            words_of(frames.text),
            *(frames.begin, frames.ends, figures, buy, plain),
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
_WORD = np.frombuffer(b"".join(_TEXTS[i][at : at + 8] for i, at in _WORDS), np.int64)
_TIME, _SEQUENCE, _SYMBOL, _PRICE, _QUANTITY, _BUY = 1, 2, 4, 5, 6, 11
_TRUE, _FALSE = np.frombuffer(b"true}}", np.uint8), np.frombuffer(b"false}}", np.uint8)


@compiled
def _scan(
    raw: Bytes,
    words: Words,
    begin: int,
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
        begin: where the first one begins.
        ends: where each of them ends.
        figures: receives the number of the symbol, time, sequence, price and quantity of each.
        buy: receives whether the buyer was the aggressor.
        plain: receives which of the frames are as an exchange prints them.
        slots: a hash table of the numbers of symbols, -1 where it is empty; its length is a power of two.
        named: the symbols by number, of the sizes ``sizes``.
        symbols: how many there are; how many there are afterwards is returned.
    """
    for row in range(len(ends)):
        first, last = _scan_frame(raw, words, begin, ends[row], figures, buy, row)
        begin = ends[row]
        size = last - first
        plain[row] = first != BAD and size <= _SYMBOL_MAX
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
    """Where the symbol begins and ends; the former is BAD where the frame is not plain."""
    first = size = 0
    for value in range(len(_TEXT_SIZE)):
        at = _after(words, at, end, value)
        if at == BAD:
            break
        if value in (_SEQUENCE, _PRICE, _QUANTITY):
            number, decimals, last = number_at(raw, at, end)
            if value == _SEQUENCE:
                if last == BAD or decimals >= 0 or number >= SEQUENCES:
                    break
                figures[2, row] = number
            else:
                decimals = max(decimals, 0)
                if last == BAD or decimals > DECIMALS or not 0 < number < TENS[10 + decimals]:
                    break
                figures[value - _PRICE + 3, row] = number * TENS[DECIMALS - decimals]
            at = last
        elif value == _BUY:
            buy[row] = _flag(raw, at, end, _TRUE)
            if buy[row] or _flag(raw, at, end, _FALSE):
                return first, first + size
        else:
            last = quoted(raw, words, at, end)
            if last == BAD:
                break
            if value == _TIME:
                figures[1, row] = micros(raw, at, last)
                if figures[1, row] < 0:
                    break
            elif value == _SYMBOL:
                first, size = at, last - at
            at = last
    return BAD, BAD


@compiled
def _after(words: Words, at: int, end: int, value: int) -> int:
    """Where the text before a value ends, which has to stand here."""
    if end - at < _TEXT_SIZE[value]:
        return BAD
    for i in range(_TEXT_WORDS[value], _TEXT_WORDS[value + 1]):
        if words[at + _WORD_AT[i]] != _WORD[i]:
            return BAD
    return at + int(_TEXT_SIZE[value])


@compiled
def _flag(raw: Bytes, at: int, end: int, text: Bytes) -> bool:
    """Whether this is what is left of a frame."""
    if end - at != len(text):
        return False
    differ = 0
    for i in range(len(text)):
        differ |= raw[at + i] ^ text[i]
    return differ == 0
