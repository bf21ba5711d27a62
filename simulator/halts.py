"""Circuit breakers of one symbol: 7, 13 and 20 % below the session's reference price stop trading for a
while.

In: each trade's price in ticks. Out: a :class:`Halt` when that price trips a level. What a level does to the
book is the exchange's part: level 1 rejects new orders, level 2 also cancels the resting ones, level 3 also
publishes the cleared book. Thresholds and durations are those of the US market-wide breakers, applied to each
symbol.

A level trips once; after a halt only a deeper level can trip, until a trade has come back to within half of
the first threshold, which arms all levels again. Exact: integer arithmetic only.
"""

from __future__ import annotations

from typing import NamedTuple

LEVELS = ((3, 2000, 900), (2, 1300, 600), (1, 700, 300))
"""(level, decline in basis points, seconds), deepest first."""

REARM_BP = 350


class Halt(NamedTuple):
    level: int
    trigger_price: int
    """Ticks."""
    reference_price: int
    """Ticks."""
    seconds: int
    """How long the halt lasts, and what the event says; at least 1."""
    reason: str = "CircuitBreaker"

    def decline_pct(self) -> str:
        """Percent below the reference price, four decimals, cut off: "7.0000" is seven percent; a rise is
        below zero."""
        fall = self.reference_price - self.trigger_price
        units = abs(fall) * 1_000_000 // self.reference_price
        return f"{'-' if fall < 0 else ''}{units // 10_000}.{units % 10_000:04d}"


class CircuitBreaker:
    """Watches the trades of one symbol.

    Args:
        reference_price: ticks; the session's opening price.
        scale: multiplies the durations, so that a demonstration need not wait five minutes.
    """

    __slots__ = ("_rearm_price", "_scale", "_tripped", "_watch_price", "reference_price")

    def __init__(self, reference_price: int, scale: float = 1.0) -> None:
        if reference_price <= 0 or scale <= 0:
            raise ValueError(f"reference price {reference_price} and scale {scale} must be above zero")
        self._scale = scale
        self.restart(reference_price)

    def restart(self, reference_price: int) -> None:
        """A new day: another reference price, all levels armed."""
        self.reference_price = reference_price
        self._tripped = 0
        # Above _watch_price nothing can trip and nothing can re-arm: the common case is one comparison.
        self._watch_price = reference_price * (10_000 - LEVELS[-1][1]) // 10_000
        self._rearm_price = reference_price * (10_000 - REARM_BP) // 10_000

    def check(self, price: int) -> Halt | None:
        """The halt that a trade at ``price`` trips, or None."""
        if price > self._watch_price:
            if self._tripped and price > self._rearm_price:
                self._tripped = 0
            return None
        fall = (self.reference_price - price) * 10_000
        for level, threshold, seconds in LEVELS:
            if level <= self._tripped:
                return None
            if fall >= threshold * self.reference_price:
                self._tripped = level
                return Halt(level, price, self.reference_price, max(1, round(seconds * self._scale)))
        return None
