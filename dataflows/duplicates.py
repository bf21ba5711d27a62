"""Which records have come before: the newest identities of a stream. Pure, with bounded memory.

In: 64-bit identities in the order of the stream; the smallest number is none. Out: which of them are new. The same
order gives the same answer however it is cut into batches, and over a snapshot.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lakehouse.compiled import compiled

REMEMBERED = 20_000
"""Different records among which a duplicate is looked for, at the least; at most twice as many, which take 1 MB.
A wire's copy follows close; a bridge that was killed sends again what was on its way, up to 20,000."""
_SLOT_BITS = 16
_EMPTY = np.iinfo(np.int64).min
"""Marks a free slot. Were it ever an identity, which has a probability of 2**-63, its copies would pass."""
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""2**64 over the golden ratio: a product's high bits are a hash (Knuth, TAOCP 3, 6.4)."""
_SHIFT = np.uint64(64 - _SLOT_BITS)

Identities = NDArray[np.int64]
"""Such, or a hash table of them."""


class Recent:
    """The identities that came last, in two generations of which the older is forgotten as a whole."""

    def __init__(self, state: tuple[bytes, bytes] = (b"", b""), remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        young, old = (np.frombuffer(identities, np.int64) for identities in state)
        self._old, self._young, self._count = _table(), _table(), 0
        _remember(old, 0, self._old, self._young, 0, len(old), np.empty(len(old), np.bool_))
        self.new(young)

    def new(self, identities: Identities) -> NDArray[np.bool_]:
        """Whether each has not come before; remembers them."""
        new = np.empty(len(identities), np.bool_)
        done = 0
        while done < len(identities):
            done, self._count = _remember(
                identities, done, self._young, self._old, self._count, self._remembered, new
            )
            if self._count >= self._remembered:
                self._young, self._old, self._count = _table(), self._young, 0
        return new

    def snapshot(self) -> tuple[bytes, bytes]:
        """Small and immutable; the constructor takes it back."""
        return self._young[self._young != _EMPTY].tobytes(), self._old[self._old != _EMPTY].tobytes()


def _table() -> Identities:
    return np.full(1 << _SLOT_BITS, _EMPTY)


@compiled
def _remember(
    identities: Identities,
    begin: int,
    young: Identities,
    old: Identities,
    count: int,
    room: int,
    new: NDArray[np.bool_],
) -> tuple[int, int]:
    """Look the identities up until ``young`` is full; where it stopped, and how many ``young`` has then.

    Copies take no room: the promise is about records that differ.
    """
    for i in range(begin, len(identities)):
        if count >= room:
            return i, count
        identity = identities[i]
        slot = np.int64((np.uint64(identity) * _SPREAD) >> _SHIFT)
        new[i] = True
        at = slot
        while new[i] and old[at] != _EMPTY:
            new[i] = old[at] != identity
            at = (at + 1) & (len(old) - 1)
        while new[i] and young[slot] != _EMPTY:
            new[i] = young[slot] != identity
            slot = (slot + 1) & (len(young) - 1)
        if new[i]:
            young[slot] = identity
            count += 1
    return len(identities), count
