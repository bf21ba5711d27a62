"""Which records have come before: the newest identities of a stream. Pure, with bounded memory.

In: 64-bit identities in the order of the stream. Out: which of them are new. The same order gives the same answer
however it is cut into batches, and over a snapshot.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

REMEMBERED = 20_000
"""Different records among which a duplicate is looked for, at the least; at most twice as many, which take 3 MB.
A wire's copy follows close; a bridge that was killed sends again what was on its way, up to 20,000."""


class Recent:
    """The identities that came last, in two generations of which the older is forgotten as a whole."""

    def __init__(self, state: tuple[bytes, bytes] = (b"", b"")) -> None:
        self._young, self._old = (set(array("q", identities)) for identities in state)

    def new(self, identities: Sequence[int]) -> list[bool]:
        """Whether each has not come before; remembers them."""
        new = [True] * len(identities)
        begin = 0
        while begin < len(identities):
            some = identities[begin : begin + REMEMBERED - len(self._young)]
            batch = set(some)
            if len(batch) == len(some) and batch.isdisjoint(self._young) and batch.isdisjoint(self._old):
                self._young |= batch
            else:
                for place, identity in enumerate(some, begin):
                    if identity in self._young or identity in self._old:
                        new[place] = False
                    else:  # copies take no room: the promise is about records that differ
                        self._young.add(identity)
            if len(self._young) >= REMEMBERED:
                self._young, self._old = set(), self._young
            begin += len(some)
        return new

    def snapshot(self) -> tuple[bytes, bytes]:
        """Small and immutable; the constructor takes it back."""
        return array("q", self._young).tobytes(), array("q", self._old).tobytes()
