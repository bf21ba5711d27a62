"""Limit-up/limit-down price bands of one symbol, an option of the market.

In: each trade's time and price. Out: the prices between which trading may take place. What stands at a band for
:data:`LIMIT_STATE_SECONDS` pauses trading for :data:`PAUSE_SECONDS`; that is the matching engine's part.

The bands lie a share of the reference price above and below it. The reference is the mean trade price of the
last five minutes; as in the plan of the US exchanges (Limit Up-Limit Down Plan, section V) a new mean takes
effect only when it is at least 1 % away, and 30 s after the last change, so that the bands do not crawl. Exact:
integer arithmetic; the mean is rounded half up, the bands inwards, to whole ticks. Memory: one pair of numbers a
second of the window.
"""

from __future__ import annotations

from collections import deque

from simulator.halts import Halt

WINDOW_SECONDS = 300
UPDATE_SECONDS = 30
UPDATE_BP = 100
LIMIT_STATE_SECONDS = 15
PAUSE_SECONDS = 300
LEVEL = 1
"""Of the circuit breakers, which a pause is printed with: like level 1 it leaves the book as it is."""


class PriceBands:
    """
    Args:
        reference: ticks; the opening price.
        percent: distance of the bands from the reference.
        scale: multiplies the durations of the limit state and the pause.
    """

    __slots__ = (
        "_count", "_percent", "_scale", "_seconds", "_sum", "_updated_us", "limit_since_us", "lower", "reference",
        "upper",
    )  # fmt: skip

    def __init__(self, reference: int, percent: int, scale: float = 1.0) -> None:
        if reference <= 0 or not 0 < percent < 100 or scale <= 0:
            raise ValueError(f"price bands of {percent} % around {reference} ticks, scale {scale}: out of range")
        self._percent = percent
        self._scale = scale
        self.limit_since_us = 0
        """Event time since which a quote stands at a band; 0: none does."""
        self.restart(reference, 0)

    def restart(self, reference: int, now_us: int) -> None:
        """Forget the trades so far: a new day, or trading resumes after a pause."""
        self._seconds: deque[tuple[int, int, int]] = deque()
        self._sum = self._count = 0
        self.limit_since_us = 0
        self._move(reference, now_us)

    def _move(self, reference: int, now_us: int) -> None:
        self._updated_us = now_us
        self.reference = reference
        distance = reference * self._percent // 100
        self.lower = max(1, reference - distance)
        """Ticks; the lowest price at which trades may take place."""
        self.upper = reference + distance

    def record(self, now_us: int, price: int) -> None:
        """Count one trade."""
        second = now_us // 1_000_000
        seconds = self._seconds
        if seconds and seconds[-1][0] == second:
            _, total, count = seconds.pop()
            seconds.append((second, total + price, count + 1))
        else:
            seconds.append((second, price, 1))
        self._sum += price
        self._count += 1
        while seconds[0][0] <= second - WINDOW_SECONDS:
            _, total, count = seconds.popleft()
            self._sum -= total
            self._count -= count

    def update(self, now_us: int) -> bool:
        """Move the bands where they are to move; True when they have moved."""
        if now_us - self._updated_us < UPDATE_SECONDS * 1_000_000 or not self._count:
            return False
        mean = (2 * self._sum + self._count) // (2 * self._count)
        if abs(mean - self.reference) * 10_000 < UPDATE_BP * self.reference:
            return False
        self._move(mean, now_us)
        return True

    def collar(self, is_buy: bool, price: int) -> int:
        """The price at which an order through the band is accepted: the band."""
        return min(price, self.upper) if is_buy else max(price, self.lower)

    def at_limit(self, bid: int | None, ask: int | None) -> bool:
        """Whether the best bid has reached the upper band or the best ask the lower one."""
        return (bid is not None and bid >= self.upper) or (ask is not None and ask <= self.lower)

    def limit_state_us(self) -> int:
        return max(1_000_000, round(LIMIT_STATE_SECONDS * self._scale * 1_000_000))

    def pause(self, bid: int | None) -> Halt:
        """The pause that ends a limit state; ``bid`` is the best one."""
        trigger = self.upper if bid is not None and bid >= self.upper else self.lower
        seconds = max(1, round(PAUSE_SECONDS * self._scale))
        return Halt(LEVEL, trigger, self.reference, seconds, "LimitUpLimitDown")
