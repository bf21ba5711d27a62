"""Trades in columns: decoding many frames at once.

In: frames of raw.trades. Out: a :class:`Tape`, the trades that :func:`dataflows.frames.decode_prints` makes rows
of. Frames that are as an exchange prints them are decoded together, 512 at a time; where one of these is not, they
are decoded one by one. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from itertools import compress
from typing import NamedTuple

import msgspec
import numpy as np
from msgspec.structs import astuple
from numpy.typing import NDArray

from dataflows.frames import DOUBLES_BELOW, REFUSED, UNIT, Print, Sequenced, decode_prints

CHUNK = 512
"""Frames decoded at a time: what is made of them stays in the processor's cache, and a batch of 8,192 does not."""
_STAMP = np.frombuffer(b"0000-00-00T00:00:00.000000Z", np.uint8)
"""A time as an exchange prints it; the zeros stand for any digits."""
_DATE = 10
_CLOCK = [
    (slice(begin, end), 10 ** np.arange(end - begin)[::-1])
    for begin, end in ((11, 13), (14, 16), (17, 19), (20, 26))
]
"""Where hours, minutes, seconds and microseconds stand in it, and what each of their digits counts."""
_EPOCH = date(1970, 1, 1)
_ABOVE = np.where(ord("0") == _STAMP, np.uint8(9), np.uint8(0))

Integers = NDArray[np.int64]


class Tape(NamedTuple):
    """Columns of one length; a row is a :data:`dataflows.frames.Print`."""

    symbol: list[str]
    time: Integers
    sequence: Integers
    price: Integers
    quantity: Integers
    buy: NDArray[np.bool_]
    identity: Integers
    place: Integers

    @classmethod
    def of(cls, prints: Iterable[Print]) -> Tape:
        symbol, *columns = list(zip(*prints, strict=True)) or [()] * len(cls._fields)
        return cls._make([list(symbol), *map(np.array, columns, _TYPES)])

    @classmethod
    def joined(cls, tapes: Sequence[Tape]) -> Tape:
        if len(tapes) == 1:
            return tapes[0]
        symbols, *columns = zip(*tapes, strict=True)
        return cls._make([[symbol for some in symbols for symbol in some], *map(np.concatenate, columns)])

    def part(self, begin: int, end: int) -> Tape:
        """The rows from ``begin`` to before ``end``."""
        return Tape._make(column[begin:end] for column in self)

    def where(self, good: NDArray[np.bool_]) -> Tape:
        """The rows that are true in ``good``."""
        symbol, *columns = self
        return Tape._make([list(compress(symbol, good.tolist())), *(column[good] for column in columns)])

    def rows(self) -> Iterator[Print]:
        symbol, *columns = self
        return zip(symbol, *(column.tolist() for column in columns), strict=True)


_TYPES = [np.int64] * 4 + [np.bool_] + [np.int64] * 2


def decode_tape(frames: Sequence[bytes]) -> tuple[Tape, dict[int, str]]:
    """The trades among some frames, and why the others are none, by place."""
    tapes: list[Tape] = []
    reasons: dict[int, str] = {}
    for begin in range(0, len(frames), CHUNK):
        some = frames[begin : begin + CHUNK]
        tape = _decode_common(some, begin)
        if tape is None:
            prints, refused = decode_prints(some, begin)
            tape = Tape.of(prints)
            reasons |= refused
        tapes.append(tape)
    return Tape.joined(tapes) if tapes else Tape.of(()), reasons


class _Print(msgspec.Struct, frozen=True, gc=False):
    symbol: str
    timestamp: str
    sequence: Sequenced
    price: float
    quantity: float
    is_aggressive_buy: bool


class _PrintFrame(msgspec.Struct, frozen=True, gc=False):
    data: _Print


_DECODE = msgspec.json.Decoder(_PrintFrame).decode


def _decode_common(frames: Sequence[bytes], begin: int) -> Tape | None:
    """None where a frame is not as an exchange prints it."""
    try:
        rows = [astuple(_DECODE(frame).data) for frame in frames]
    except REFUSED:
        return None
    symbols, stamps, sequences, prices, quantities, buys = zip(*rows, strict=True)
    time, price, quantity = _times(stamps), _amounts(prices), _amounts(quantities)
    if time is None or price is None or quantity is None:
        return None
    sequence, place = np.array(sequences, np.int64), np.arange(begin, begin + len(frames))
    return Tape(list(symbols), time, sequence, price, quantity, np.array(buys), sequence << 26 ^ time, place)


def _times(stamps: Sequence[str]) -> Integers | None:
    """None also where they are of several days."""
    text = "".join(stamps)
    if set(map(len, stamps)) != {len(_STAMP)} or not text.isascii():
        return None
    figures = np.frombuffer(text.encode(), np.uint8).reshape(len(stamps), len(_STAMP))
    above = figures - _STAMP
    if not ((above <= _ABOVE).all() and (figures[:, :_DATE] == figures[0, :_DATE]).all()):
        return None
    hours, minutes, seconds, micros = (above[:, place].astype(np.int64) @ weights for place, weights in _CLOCK)
    if hours.max() > 23 or max(minutes.max(), seconds.max()) > 59:
        return None
    try:
        days = (date.fromisoformat(stamps[0][:_DATE]) - _EPOCH).days
    except ValueError:  # there is no such day
        return None
    return ((days * 24 + hours) * 60 + minutes) * 60_000_000 + seconds * 1_000_000 + micros if days >= 0 else None


def _amounts(values: Sequence[float]) -> Integers | None:
    amounts = np.array(values)
    if not (amounts.min() > 0 and amounts.max() < DOUBLES_BELOW):
        return None
    whole = np.rint(amounts * UNIT)
    return whole.astype(np.int64) if (whole / UNIT == amounts).all() else None
