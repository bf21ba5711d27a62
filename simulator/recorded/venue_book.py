"""One symbol's order book, rebuilt from what a venue sends: one snapshot, then differences.

In: a snapshot and differences (lists of ``(price text, quantity text)``, absolute quantities, 0 removes the
level) with the venue's update ids.
Out: the best levels of each side, with every price and quantity exactly the venue's text.

The sequence rules are Binance's for USD-M futures ("How to manage a local order book correctly"): differences
that arrive before the snapshot are kept; those with ``u < lastUpdateId`` are dropped; the first one used must
reach over the snapshot; from then on each one's ``pu`` must be the ``u`` before it. Where the chain breaks, the
book is empty and unsynchronised, so that nobody reads a wrong book, until the next snapshot.

Nothing is kept on disk: a replay that starts again rebuilds the same book.
"""

from __future__ import annotations

import re
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

UNITS_PER_ONE = 10**8
"""Prices and quantities are compared and summed as integers in units of 1e-8."""

MAX_PENDING = 10_000
"""Differences kept while waiting for a snapshot; a collector asks for one at once, so hundreds are usual."""

_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,9})(?:\.([0-9]{1,8}))?", re.ASCII)

Level = tuple[str, str]
"""(price, quantity) as the venue wrote them."""


@lru_cache(maxsize=65_536)
def units(text: str) -> int:
    """A venue's decimal text → units of 1e-8.

    Raises:
        ValueError: not a plain JSON number ≥ 0 with at most ten digits before and eight after the point.
    """
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a decimal number with at most 10 digits before and 8 after the point")
    whole, fraction = match.groups(default="")
    return int(whole + fraction.ljust(8, "0"))


class BookDiff(NamedTuple):
    """Update ids ``first`` (U) to ``last`` (u), after the one that ended with ``previous`` (pu)."""

    first: int
    last: int
    previous: int
    bids: Sequence[Level]
    asks: Sequence[Level]


class _Side:
    """The levels of one side; ``sign`` is -1 for bids, so that the best price is always the smallest key."""

    def __init__(self, sign: int) -> None:
        self._sign = sign
        self._keys: list[int] = []
        self._levels: dict[int, Level] = {}

    def update(self, levels: Iterable[Level]) -> None:
        keys, known, sign = self._keys, self._levels, self._sign
        for level in levels:
            key = sign * units(level[0])
            if units(level[1]):
                if not key:
                    raise ValueError("a level with the price 0")
                if key not in known:
                    insort(keys, key)
                known[key] = level
            elif known.pop(key, None) is not None:
                del keys[bisect_left(keys, key)]

    def clear(self) -> None:
        self._keys.clear()
        self._levels.clear()

    def top(self, depth: int) -> list[Level]:
        return [self._levels[key] for key in islice(self._keys, depth)]


class Levels:
    """Both sides of a book, without any rule on what may be applied to it."""

    def __init__(self) -> None:
        self._bids = _Side(-1)
        self._asks = _Side(1)

    def update(self, bids: Iterable[Level], asks: Iterable[Level]) -> None:
        """Set these levels; quantity 0 removes one.

        Raises:
            ValueError: a price or quantity is not a decimal number, or a price is 0; a part may be applied.
        """
        self._bids.update(bids)
        self._asks.update(asks)

    def clear(self) -> None:
        self._bids.clear()
        self._asks.clear()

    def top(self, depth: int) -> tuple[list[Level], list[Level]]:
        """The best ``depth`` bids (falling) and asks (rising)."""
        return self._bids.top(depth), self._asks.top(depth)


class VenueBook:
    """A book that knows whether it can be trusted (``synchronised``)."""

    synchronised: bool
    last_update_id: int
    """The venue's id of the newest change in the book."""
    gaps: int
    """How often the chain broke."""
    resyncs: int
    """How often a snapshot healed a broken chain."""

    def __init__(self) -> None:
        self.synchronised = False
        self.last_update_id = 0
        self.gaps = 0
        self.resyncs = 0
        self._levels = Levels()
        self._before_first_diff = False
        self._pending: deque[BookDiff] = deque(maxlen=MAX_PENDING)

    def apply_snapshot(self, last_update_id: int, bids: Iterable[Level], asks: Iterable[Level]) -> bool:
        """Start from a snapshot; True when the book is synchronised by it.

        A book in sync ignores it: the REST answer is older than the differences already applied.

        Raises:
            ValueError: a price or quantity is not a decimal number; the book is empty and waits on.
        """
        if self.synchronised:
            return False
        try:
            self._levels.update(bids, asks)
        except ValueError:
            self._levels.clear()
            raise
        self.last_update_id = last_update_id
        self.synchronised = self._before_first_diff = True
        again = self.gaps > 0
        pending, self._pending = self._pending, deque(maxlen=MAX_PENDING)
        for diff in pending:
            self.apply_diff(diff)
        if self.synchronised and again:
            self.resyncs += 1
        return self.synchronised

    def apply_diff(self, diff: BookDiff) -> bool:
        """Apply one difference; True when it changed a synchronised book.

        Raises:
            ValueError: a price or quantity is not a decimal number; the book is no longer synchronised.
        """
        if not self.synchronised:
            self._wait(diff)
            return False
        if self._before_first_diff:
            # The snapshot's id can lie between two differences (the venue's books share their ids), so it is the
            # end of the previous one that must not be newer than the snapshot.
            if diff.last < self.last_update_id:
                return False
            broken = diff.previous > self.last_update_id
        else:
            if diff.last <= self.last_update_id:
                return False
            broken = diff.previous != self.last_update_id
        if broken:
            self.gaps += 1
            self._lose_sync()
            self._wait(diff)
            return False
        try:
            self._levels.update(diff.bids, diff.asks)
        except ValueError:
            self.gaps += 1
            self._lose_sync()
            raise
        self._before_first_diff = False
        self.last_update_id = diff.last
        return True

    def top(self, depth: int) -> tuple[list[Level], list[Level]]:
        """The best ``depth`` bids (falling) and asks (rising)."""
        return self._levels.top(depth)

    def _wait(self, diff: BookDiff) -> None:
        if self._pending and self._pending[-1].last != diff.previous:
            self._pending.clear()  # torn while waiting: only what follows can be joined to a snapshot
        self._pending.append(diff)

    def _lose_sync(self) -> None:
        self.synchronised = False
        self._levels.clear()
