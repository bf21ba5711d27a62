"""What a symbol's trades of a minute come to. Pure.

In: trades in columns. Out: a :class:`Pane` for each symbol and minute. Amounts are integers, as in
:mod:`dataflows.windows`; sums are exact.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dataflows.tape import Tape
from lakehouse.compiled import compiled
from lakehouse.scan import Flags
from lakehouse.texts import Codes, Integers

MINUTE_US = 60_000_000
SUMMED_MAX = 1 << 16
"""Trades that :func:`panes_of` takes at once."""
SUMMED_BELOW = 1 << 46
"""Prices and quantities that it takes."""
_HALF = (1 << 25) - 1
_WHOLE = (1 << 50) - 1


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


def panes_of(trades: Tape) -> Iterator[tuple[int, str, Pane]]:
    """Minute, symbol and pane, for each minute and symbol of some trades in any order, at most SUMMED_MAX.

    Sums are exact: amounts are below 2**46 and trades at most 2**16, so their sums fit 64 bits, and what
    products have above 2**50 is summed apart.
    """
    codes = Codes[str]()
    code = np.fromiter(map(codes.__getitem__, trades.symbol), np.int64, len(trades.symbol))
    minute = trades.time // MINUTE_US
    first = int(minute.min())
    sums = np.zeros(((int(minute.max()) - first + 1) * len(codes), _COLUMNS), np.int64)
    _sum_up((minute - first) * len(codes) + code, *trades[1:6], sums)
    symbols = list(codes)
    filled = np.flatnonzero(sums[:, _TRADES])
    for group, (*pane, low, high) in zip(filled.tolist(), sums[filled].tolist(), strict=True):
        pane[_NOTIONAL:_NOTIONAL] = [(high << 50) + low]
        yield first + group // len(codes), symbols[group % len(codes)], Pane(tuple(pane))


_NOTIONAL, _TRADES, _COLUMNS = 9, 9, 13
"""Where the notional comes into a pane; where a row of sums has the number of trades; and its length, of which the
last two are the notional's low 50 bits and the rest."""


@compiled
def _sum_up(
    group: Integers,
    time: Integers,
    sequence: Integers,
    price: Integers,
    quantity: Integers,
    buy: Flags,
    sums: Integers,
) -> None:
    for i in range(len(group)):
        pane = sums[group[i]]
        t, s, p, q = time[i], sequence[i], price[i], quantity[i]
        if pane[9] == 0:
            pane[0], pane[1], pane[2] = t, s, p
            pane[3], pane[4], pane[5] = t, s, p
            pane[6], pane[7] = p, p
        else:
            if t < pane[0] or (t == pane[0] and (s < pane[1] or (s == pane[1] and p < pane[2]))):
                pane[0], pane[1], pane[2] = t, s, p
            if t > pane[3] or (t == pane[3] and (s > pane[4] or (s == pane[4] and p > pane[5]))):
                pane[3], pane[4], pane[5] = t, s, p
            pane[6] = max(pane[6], p)
            pane[7] = min(pane[7], p)
        pane[8] += q
        pane[9] += 1
        if buy[i]:
            pane[10] += q
        middle = (p >> 25) * (q & _HALF) + (p & _HALF) * (q >> 25)
        low = pane[11] + (p & _HALF) * (q & _HALF) + ((middle & _HALF) << 25)
        pane[11] = low & _WHOLE
        pane[12] += (p >> 25) * (q >> 25) + (middle >> 25) + (low >> 50)
