"""Which of the exchange's numbered events have arrived and which are safely in Kafka. Pure bookkeeping.

In: sequence numbers as they are received, sent and acknowledged, possibly doubled, out of order or missing.
Out: the sequence up to which everything is in Kafka, where to resume, gaps and duplicates.
"""

from __future__ import annotations

from enum import Enum

MISSING_MAX = 10_000
"""Holes that are waited for; of a larger jump the oldest are given up at once, so that memory stays bounded."""


class Arrival(Enum):
    NEW = "new"
    DUPLICATE = "duplicate"
    """It arrived before on this wire; the exchange, or the network, has doubled it."""
    REPEATED = "repeated"
    """It arrived before the connection broke, and comes again because the bridge asked for it."""


class Sequences:
    """One session of the exchange.

    Args:
        acknowledged: everything up to here is in Kafka already.
    """

    def __init__(self, acknowledged: int = 0) -> None:
        self.newest = acknowledged
        """The largest that arrived."""
        self._acknowledged = acknowledged
        self._repeated_until = 0
        self._skipped = 0
        """Holes too many to wait for."""
        self._missing: dict[int, float] = {}
        """Holes, and when each was noticed."""
        self._outstanding: dict[int, int] = {}
        """Sent and not acknowledged; a doubled one counts twice."""

    def arrived(self, sequence: int, now: float) -> Arrival:
        if sequence == self.newest + 1:  # nearly always
            self.newest, self._repeated_until = sequence, 0
            return Arrival.NEW
        if sequence > self.newest:
            holes = range(max(self.newest + 1, sequence - MISSING_MAX), sequence)
            self._missing.update(dict.fromkeys(holes, now))
            self._skipped += holes.start - self.newest - 1
            self.newest, self._repeated_until = sequence, 0
            return Arrival.NEW
        if self._missing.pop(sequence, None) is not None:
            return Arrival.NEW
        return Arrival.REPEATED if sequence <= self._repeated_until else Arrival.DUPLICATE

    def sent(self, sequence: int) -> None:
        self._outstanding[sequence] = self._outstanding.get(sequence, 0) + 1

    def delivered(self, sequence: int) -> None:
        left = self._outstanding[sequence] - 1
        if left:
            self._outstanding[sequence] = left
        else:
            del self._outstanding[sequence]

    def acknowledged(self) -> int:
        """This sequence and all before it are in Kafka, or were given up."""
        holes = [next(iter(self._missing))] if self._missing else []
        low = min([self.newest + 1, *holes, *self._outstanding])
        self._acknowledged = max(self._acknowledged, low - 1)
        return self._acknowledged

    def resume_at(self) -> int:
        """What to ask the exchange for after the connection broke: the first that has not arrived."""
        self._repeated_until = self.newest
        return next(iter(self._missing), self.newest + 1)

    def begins_at(self, first: int) -> int:
        """The exchange says that its next event is ``first`` → how many before it will never come."""
        lost = max(0, first - 1 - self.newest) + sum(1 for hole in self._missing if hole < first)
        self._missing = {hole: at for hole, at in self._missing.items() if hole >= first}
        self.newest = max(self.newest, first - 1)
        return lost

    def give_up(self, noticed_before: float) -> int:
        """Stop waiting for old holes → how many were given up since the last call."""
        given_up = [hole for hole, at in self._missing.items() if at < noticed_before]
        excess = len(self._missing) - len(given_up) - MISSING_MAX
        if excess > 0:
            given_up = list(self._missing)[: len(given_up) + excess]
        for hole in given_up:
            del self._missing[hole]
        skipped, self._skipped = self._skipped, 0
        return len(given_up) + skipped
