"""Faults of the wire, for testing what reads it: duplicated, swapped, late, missing, cut and one-sided frames.

In: consecutive frames of a session. Out: the frames as they go over the wire. The journal stays perfect and
says what the exchange printed; a frame's faults depend on the seed, its sequence and its text only, so a client
that reconnects meets the same faults again, and two clients the same ones. All rates are 0 by default.

What is counted is what a reader can find out with the journal beside it: a missing frame suffers nothing else, a
late one is not swapped as well, a quote that has one side only cannot lose it, nor one that is cut in half.
"""

from __future__ import annotations

import re
import struct
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2b
from typing import NamedTuple

from simulator.market import DataQuality

KINDS = ("duplicate", "out_of_order", "missing", "late", "malformed", "one_sided")

LATE_FRAMES = 20_000
"""A late frame comes after so many others at the latest, whatever their times: bounds what is held back, and how
far back the wire of a client that resumes is run to know it. Some 10 s at 2,000 events a second."""

_TIMESTAMP = re.compile(rb'"timestamp"\s*:\s*"([^"]+)"')
_QUOTE = re.compile(rb'\s*\{\s*"event_type"\s*:\s*"QuoteUpdate"')
_SIDES = tuple(
    (re.compile(rb'("best_%s"\s*:\s*)[0-9.]+' % side), re.compile(rb'("best_%s_size"\s*:\s*)[0-9.]+' % side))
    for side in (b"bid", b"ask")
)
_SPREAD = re.compile(rb'("spread"\s*:\s*)[0-9.-]+')


class _Draw(NamedTuple):
    """Independent uniform numbers from 0 to 1 for one frame."""

    missing: float
    malformed: float
    duplicate: float
    out_of_order: float
    late: float
    one_sided: float
    side: float


def event_seconds(frame: bytes) -> float:
    """Event time of a frame, seconds since the epoch.

    Raises:
        ValueError: the frame has no timestamp.
    """
    found = _TIMESTAMP.search(frame)
    if found is None:
        raise ValueError(f"a frame without a timestamp: {frame[:200]!r}")
    return datetime.fromisoformat(found[1].decode()).timestamp()


def without_side(frame: bytes, side: int) -> bytes:
    """A quote without its bid (0) or ask (1): price and spread null, size 0."""
    price, size = _SIDES[side]
    return _SPREAD.sub(rb"\g<1>null", size.sub(rb"\g<1>0", price.sub(rb"\g<1>null", frame)))


class Faults:
    """Decides which frames suffer what."""

    def __init__(self, rates: DataQuality, seed: int) -> None:
        self._rates = rates
        self._seed = seed
        self.late_seconds = rates.late_seconds
        self.enabled = any(
            (
                rates.duplicate_rate,
                rates.out_of_order_rate,
                rates.missing_data_rate,
                rates.late_rate,
                rates.malformed_rate,
                rates.one_sided_rate,
            )
        )

    def of(self, sequence: int, frame: bytes) -> tuple[str, ...]:
        """The faults of one frame, of ``KINDS``. Out of order: it overtakes the frame before it."""
        rates = self._rates
        draw = self._draw(sequence)
        if draw.missing < rates.missing_data_rate:
            return ("missing",)
        kinds = []
        if draw.malformed < rates.malformed_rate:
            kinds.append("malformed")
        elif draw.one_sided < rates.one_sided_rate and self._has_both_sides(frame):
            kinds.append("one_sided")
        if draw.duplicate < rates.duplicate_rate:
            kinds.append("duplicate")
        if draw.late < rates.late_rate:
            kinds.append("late")
        elif self.overtakes(sequence):
            kinds.append("out_of_order")
        return tuple(kinds)

    def overtakes(self, sequence: int) -> bool:
        """Whether the frame goes out before the one before it. Only 2k + 1 overtakes, and only 2k."""
        rates = self._rates
        if not rates.out_of_order_rate or sequence % 2 == 0 or sequence == 1:
            return False
        draw = self._draw(sequence)
        return draw.out_of_order < 2 * rates.out_of_order_rate and not any(
            other.missing < rates.missing_data_rate or other.late < rates.late_rate
            for other in (draw, self._draw(sequence - 1))
        )

    def spoilt(self, sequence: int, frame: bytes, kinds: Sequence[str]) -> bytes:
        """The frame's text with these faults."""
        if "malformed" in kinds:
            return frame[: len(frame) // 2]
        if "one_sided" in kinds:
            return without_side(frame, int(self._draw(sequence).side < 0.5))
        return frame

    def _draw(self, sequence: int) -> _Draw:
        digest = blake2b(f"{self._seed}:{sequence}".encode(), digest_size=28).digest()
        return _Draw(*(word / 2**32 for word in struct.unpack("!7I", digest)))

    @staticmethod
    def _has_both_sides(frame: bytes) -> bool:
        return _QUOTE.match(frame) is not None and all(price.search(frame) for price, _ in _SIDES)


class _Held(NamedTuple):
    copies: list[bytes]
    seconds: float
    """Goes out after a frame with this event time,"""
    sequence: int
    """or when it is this frame's turn."""


class FaultyWire:
    """One client's stream. Holds a frame back until the one that is to overtake it, or its time, has come."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._overtaken: list[bytes] = []
        self._late: deque[_Held] = deque()

    def send(self, first_sequence: int, frames: Sequence[bytes]) -> list[bytes]:
        """The frames first_sequence … as this client receives them.

        Raises:
            ValueError: a frame has no timestamp, and lateness is asked for.
        """
        faults = self._faults
        wire: list[bytes] = []
        for sequence, frame in enumerate(frames, first_sequence):
            kinds = faults.of(sequence, frame)
            copies = [faults.spoilt(sequence, frame, kinds)] * (2 if "duplicate" in kinds else 1)
            if "late" in kinds:
                due = event_seconds(frame) + faults.late_seconds
                self._late.append(_Held(copies, due, sequence + LATE_FRAMES))
            elif "missing" not in kinds:
                if faults.overtakes(sequence + 1):
                    self._overtaken = copies
                else:
                    wire += copies + self._overtaken
                    self._overtaken = []
                    if self._late:
                        self._release(wire, event_seconds(frame), sequence)
            if self._late and self._late[0].sequence <= sequence:
                self._release(wire, 0.0, sequence)
        return wire

    def _release(self, wire: list[bytes], seconds: float, sequence: int) -> None:
        while self._late and (self._late[0].seconds <= seconds or self._late[0].sequence <= sequence):
            wire += self._late.popleft().copies

    def flush(self) -> list[bytes]:
        """What is still held back, when nothing will overtake it any more."""
        held = [*self._overtaken, *(frame for late in self._late for frame in late.copies)]
        self._overtaken = []
        self._late.clear()
        return held
