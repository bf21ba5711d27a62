"""One listed symbol: its book, breaker and value, and the session's statistics.

In: trades. Out: open, high, low, close, volume, VWAP. Exact: integers throughout, except what only strategies
read.
"""

from __future__ import annotations

from enum import Enum

from simulator.bands import PriceBands
from simulator.book import EMPTY, Book
from simulator.fundamental import Fundamental
from simulator.halts import CircuitBreaker, Halt

MOMENTUM_WEIGHT = 0.05
"""Of a new trade in the moving average that traders compare the last price with: a memory of some 20 trades."""


class State(Enum):
    """What happens to an order of this symbol."""

    CONTINUOUS = 1
    """It is matched at once."""
    COLLECTING = 2
    """It rests unmatched until an auction: before the opening and the close, in a limit-up/limit-down pause."""
    HALTED = 3
    """It is rejected; cancelling is allowed."""
    CLOSED = 4


class Listing:
    __slots__ = (
        "average", "bands", "book", "breaker", "fundamental", "halt", "halted_at_us", "high", "last", "low",
        "notional", "open", "state", "symbol", "top", "trade_count", "volume",
    )  # fmt: skip

    def __init__(
        self,
        symbol: str,
        price: int,
        breaker: CircuitBreaker,
        fundamental: Fundamental,
        bands: PriceBands | None = None,
    ) -> None:
        self.symbol = symbol
        self.book = Book()
        self.breaker = breaker
        self.bands = bands
        self.fundamental = fundamental
        self.state = State.CLOSED
        self.halt: Halt | None = None
        """The halt or pause in force, or None."""
        self.halted_at_us = 0
        self.top = EMPTY
        """The top of book as last printed."""
        self.last = price
        """Ticks; the initial price until the first trade."""
        self.average = float(price)
        """Moving average of trade prices, ticks; for strategies only."""
        self.open_day()

    def open_day(self) -> None:
        """Start the statistics afresh; all prices are the last one until the first trade."""
        self.open = self.high = self.low = self.last
        self.volume = 0
        self.notional = 0
        """Ticks times lots."""
        self.trade_count = 0

    def record(self, price: int, quantity: int) -> None:
        """Count one trade."""
        if self.trade_count == 0:
            self.open = self.high = self.low = price
        elif price > self.high:
            self.high = price
        elif price < self.low:
            self.low = price
        self.last = price
        self.volume += quantity
        self.notional += price * quantity
        self.trade_count += 1
        self.average += MOMENTUM_WEIGHT * (price - self.average)

    def vwap_units(self) -> int:
        """Session VWAP in ten-thousandths of a dollar, half up; the last price before the first trade."""
        if not self.volume:
            return self.last * 100
        return (self.notional * 200 + self.volume) // (2 * self.volume)

    def mid(self) -> float:
        """Ticks: the middle of the printed top of book; where a side is empty, the last price."""
        bid, _, ask, _ = self.top
        if bid is None or ask is None:
            return float(self.last)
        return (bid + ask) / 2
