"""What a symbol's trades of a minute come to. Pure.

In: trades in columns. Out: a :class:`Pane` for each symbol and minute. Amounts are integers, as in
:mod:`dataflows.windows`; sums are exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataflows.tape import Integers, Tape

MINUTE_US = 60_000_000
SUMMED_MAX = 1 << 13
"""Trades that :func:`panes_of` takes at once."""
SUMMED_BELOW = 1 << 50
"""Prices and quantities that it takes."""
_HALF = (1 << 25) - 1
_INT64 = np.iinfo(np.int64)


class Pane:
    """One symbol's trades of a minute, or of several after :meth:`merge`.

    Open and close follow (event time, sequence), so that no order of arrival can flip them; the price decides
    where an exchange does not number its events.
    """

    __slots__ = (
        *("open_time", "open_sequence", "open", "close_time", "close_sequence", "close"),
        *("high", "low", "volume", "notional", "trades", "buy"),
    )

    def __init__(self, frozen: tuple[int, ...]) -> None:
        self.open_time, self.open_sequence, self.open = frozen[:3]
        self.close_time, self.close_sequence, self.close = frozen[3:6]
        self.high, self.low, self.volume, self.notional, self.trades, self.buy = frozen[6:]

    @classmethod
    def of(cls, time: int, sequence: int, price: int, quantity: int, buy: bool) -> Pane:
        """Of a single trade."""
        bought = quantity if buy else 0
        return cls((time, sequence, price) * 2 + (price, price, quantity, price * quantity, 1, bought))

    def extend(self, time: int, sequence: int, price: int) -> None:
        """Make this trade open or close where it comes first or last."""
        at = (time, sequence, price)
        if at < (self.open_time, self.open_sequence, self.open):
            self.open_time, self.open_sequence, self.open = at
        if at > (self.close_time, self.close_sequence, self.close):
            self.close_time, self.close_sequence, self.close = at

    def merge(self, other: Pane) -> None:
        self.extend(other.open_time, other.open_sequence, other.open)
        self.extend(other.close_time, other.close_sequence, other.close)
        if other.high > self.high:
            self.high = other.high
        if other.low < self.low:
            self.low = other.low
        self.volume += other.volume
        self.notional += other.notional
        self.trades += other.trades
        self.buy += other.buy

    def copy(self) -> Pane:
        return Pane(self.freeze())

    def freeze(self) -> tuple[int, ...]:
        """Small and immutable, for snapshots; the constructor takes it back."""
        return (
            *(self.open_time, self.open_sequence, self.open),
            *(self.close_time, self.close_sequence, self.close),
            *(self.high, self.low, self.volume, self.notional, self.trades, self.buy),
        )


class _Codes(dict[str, int]):
    """A number for each symbol, from 0, as they come."""

    def __missing__(self, symbol: str) -> int:
        self[symbol] = len(self)
        return self[symbol]


def panes_of(trades: Tape) -> Iterator[tuple[int, str, Pane]]:
    """Minute, symbol and pane, for each minute and symbol of some trades in any order, at most SUMMED_MAX.

    Sums stay exact: amounts are below 2**50, so the three products of their halves and the sums of 2**13 of these
    fit 64 bits.
    """
    codes = _Codes()
    code = np.fromiter(map(codes.__getitem__, trades.symbol), np.int64, len(trades.symbol))
    minute = trades.time // MINUTE_US
    first = minute.min()
    group = (minute - first) * len(codes) + code
    order = np.argsort(group.astype(np.uint16 if group.max() < 1 << 16 else np.int64), kind="stable")
    group, time, sequence, price = group[order], trades.time[order], trades.sequence[order], trades.price[order]
    quantity, buy = trades.quantity[order], trades.buy[order]
    begins = np.concatenate(([0], np.flatnonzero(np.diff(group)) + 1))
    counts = np.diff(begins, append=len(group))

    def extreme(of: np.ufunc, worst: int) -> list[Integers]:
        """Time, sequence and price of each group's first trade, or last."""
        found, left = [], np.ones(len(group), np.bool_)
        for column in (time, sequence, price):
            best = of.reduceat(np.where(left, column, worst), begins)
            left &= column == np.repeat(best, counts)
            found.append(best)
        return found

    def total(column: NDArray[Any]) -> NDArray[Any]:
        return np.add.reduceat(column, begins)

    price_high, price_low = (price >> 25).astype(np.uint64), (price & _HALF).astype(np.uint64)
    quantity_high, quantity_low = (quantity >> 25).astype(np.uint64), (quantity & _HALF).astype(np.uint64)
    high = total(price_high * quantity_high).tolist()
    middle = total(price_high * quantity_low + price_low * quantity_high).tolist()
    low = total(price_low * quantity_low).tolist()
    columns = [
        *extreme(np.minimum, _INT64.max),
        *extreme(np.maximum, _INT64.min),
        *(np.maximum.reduceat(price, begins), np.minimum.reduceat(price, begins), total(quantity)),
        *(counts, total(np.where(buy, quantity, 0))),
    ]
    symbols = list(codes)
    of_groups = (group[begins] + first * len(codes)).tolist()
    for key, h, m, n, *pane in zip(of_groups, high, middle, low, *(c.tolist() for c in columns), strict=True):
        pane[9:9] = [(h << 50) + (m << 25) + n]
        yield key // len(codes), symbols[key % len(codes)], Pane(tuple(pane))
