"""Event-time windows over trades: tumbling 1m, 5m, 15m and sliding 5m every minute. Pure: no I/O, no clock.

In: the trades of one shard in their order. Out: a :class:`Bar` for each window that closed or was corrected.

A trade is added to the one-minute pane of its event time; a window is the sum of its panes. The watermark is the
largest event time seen minus 5 s, and moves with every trade, so results do not depend on how trades are batched:
the same sequence of trades always gives the same bars with the same revisions. A window closes when the watermark
passes its end. A later trade for it is a correction: the window is emitted again with a higher revision.

All amounts are integers: prices and quantities in units of 1e-8, notional (price x quantity) in units of 1e-16.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

LATENESS_US = 5_000_000
MINUTE_US = 60_000_000


class Window(NamedTuple):
    name: str
    minutes: int
    every: int
    """A window starts each ``every`` minutes since the epoch."""


WINDOWS = (Window("1m", 1, 1), Window("5m", 5, 5), Window("15m", 15, 15), Window("5m/1m", 5, 1))
_NAMES = [window.name for window in WINDOWS]
LONGEST = max(window.minutes for window in WINDOWS)

Trade = tuple[str, int, int, int, int, bool]
"""symbol, event time µs, sequence, price, quantity, aggressive buy"""


class Pane:
    """One symbol's trades of a minute, or of several after :meth:`merge`."""

    __slots__ = ("buy", "close", "close_at", "high", "low", "notional", "open", "open_at", "trades", "volume")

    def __init__(self, at: tuple[int, int], price: int) -> None:
        self.open_at = self.close_at = at
        """(event time, sequence): open and close follow it, so that ties cannot flip them."""
        self.open = self.high = self.low = self.close = price
        self.volume = self.notional = self.trades = self.buy = 0

    def add(self, at: tuple[int, int], price: int, quantity: int, aggressive_buy: bool) -> None:
        if at < self.open_at:
            self.open_at, self.open = at, price
        if at >= self.close_at:
            self.close_at, self.close = at, price
        if price > self.high:
            self.high = price
        elif price < self.low:
            self.low = price
        self.volume += quantity
        self.notional += price * quantity
        self.trades += 1
        if aggressive_buy:
            self.buy += quantity

    def merge(self, other: Pane) -> None:
        if other.open_at < self.open_at:
            self.open_at, self.open = other.open_at, other.open
        if other.close_at >= self.close_at:
            self.close_at, self.close = other.close_at, other.close
        self.high = max(self.high, other.high)
        self.low = min(self.low, other.low)
        self.volume += other.volume
        self.notional += other.notional
        self.trades += other.trades
        self.buy += other.buy

    def copy(self) -> Pane:
        return Pane.restore(self.freeze())

    def freeze(self) -> tuple[int, ...]:
        """Small and immutable, for snapshots; :meth:`restore` takes it back."""
        return (
            *self.open_at,
            *self.close_at,
            *(self.open, self.high, self.low, self.close),
            *(self.volume, self.notional, self.trades, self.buy),
        )

    @classmethod
    def restore(cls, frozen: tuple[int, ...]) -> Pane:
        pane = cls.__new__(cls)
        pane.open_at, pane.close_at = (frozen[0], frozen[1]), (frozen[2], frozen[3])
        pane.open, pane.high, pane.low, pane.close = frozen[4:8]
        pane.volume, pane.notional, pane.trades, pane.buy = frozen[8:12]
        return pane


class Bar(NamedTuple):
    """A window's content. Times in µs; prices, volumes in 1e-8; notional in 1e-16."""

    symbol: str
    window: str
    start: int
    end: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    notional: int
    trades: int
    buy_volume: int
    revision: int
    """1 at first, plus one for each late trade it has, plus one for each early publication before."""
    last_event: int
    """Event time of the newest trade inside."""

    @property
    def vwap(self) -> int:
        """notional / volume in units of 1e-8, rounded half to even."""
        quotient, rest = divmod(self.notional, self.volume)
        twice = 2 * rest
        return quotient + (twice > self.volume or (twice == self.volume and quotient % 2 == 1))

    @property
    def sell_volume(self) -> int:
        return self.volume - self.buy_volume


_Id = tuple[str, int, int]
"""symbol, index into WINDOWS, first minute"""


class ShardWindows:
    """The windows of a shard: some symbols that share a watermark.

    Args:
        keep_minutes: event time for which a closed window can still be corrected; bounds the state.
    """

    def __init__(self, keep_minutes: int = 60) -> None:
        self._keep = keep_minutes
        self._newest = -1
        self._closed = -1
        """Every window that ends at or before this minute is closed."""
        self._next_close = 0
        """The event time that moves ``_closed`` on."""
        self._panes: dict[int, dict[str, Pane]] = {}
        """By minute, then symbol."""
        self._open: dict[int, set[_Id]] = {}
        """Windows with trades that have not closed, by the minute they end at."""
        self._published: dict[int, dict[_Id, tuple[int, int]]] = {}
        """Revision and number of trades that were emitted last, by the minute a window ends at."""
        self.late = 0
        """Late trades since the start of the process."""

    @property
    def watermark(self) -> int:
        """Event time, µs; windows up to here are closed. Negative before the first trade."""
        return self._newest - LATENESS_US

    def add(self, trades: list[Trade]) -> tuple[list[Bar], list[int]]:
        """Add trades in order → bars that closed or were corrected, and indexes of trades that came too late.

        A window corrected by several trades of one call is emitted once.
        """
        bars: list[Bar] = []
        too_late: list[int] = []
        corrected: dict[_Id, int] = {}
        for index, (symbol, time, sequence, price, quantity, aggressive_buy) in enumerate(trades):
            if time > self._newest:
                self._newest = time
                if time >= self._next_close:
                    bars += self._correct(corrected)  # while what they need is still kept
                    bars += self._close()
            minute = time // MINUTE_US
            if minute < self._closed:
                if minute + 1 + self._keep <= self._closed:
                    too_late.append(index)
                    continue
                self.late += 1
                for ident in _windows_of(symbol, minute):
                    if _end(ident) <= self._closed:
                        corrected[ident] = corrected.get(ident, 0) + 1
                    else:
                        self._open.setdefault(_end(ident), set()).add(ident)
            panes = self._panes.get(minute)
            if panes is None:
                panes = self._panes[minute] = {}
            pane = panes.get(symbol)
            at = (time, sequence)
            if pane is None:
                pane = panes[symbol] = Pane(at, price)
                if minute >= self._closed:
                    for ident in _windows_of(symbol, minute):
                        self._open.setdefault(_end(ident), set()).add(ident)
            pane.add(at, price, quantity, aggressive_buy)
        bars += self._correct(corrected)
        return bars, too_late

    def publish_open(self) -> list[Bar]:
        """Bars of all open windows that have changed since they were last emitted; the windows stay open.

        For a stream that has fallen silent, where no watermark will come to close them.
        """
        return [
            self._publish(ident, revision + 1)
            for end in sorted(self._open)
            for ident in sorted(self._open[end])
            for revision, trades in [self._published.get(end, {}).get(ident, (0, 0))]
            if self._sum(ident).trades != trades
        ]

    def withdraw(self, bars: Iterable[Bar]) -> None:
        """Undo :meth:`publish_open` for bars that will not be emitted: their windows count as changed again.

        Their revisions stay used.
        """
        for bar in bars:
            ident = (bar.symbol, _NAMES.index(bar.window), bar.start // MINUTE_US)
            self._published[_end(ident)][ident] = (bar.revision, 0)

    def _correct(self, corrected: dict[_Id, int]) -> list[Bar]:
        """Bars of closed windows that late trades went into; empties ``corrected``: their numbers by window."""
        bars = []
        for ident, late in corrected.items():
            revision, _ = self._published.get(_end(ident), {}).get(ident, (0, 0))
            bars.append(self._publish(ident, revision + late))
        corrected.clear()
        return bars

    def _close(self) -> list[Bar]:
        closed = self.watermark // MINUTE_US
        self._next_close = (closed + 1) * MINUTE_US + LATENESS_US
        if closed <= self._closed:
            return []
        self._closed = closed
        bars = []
        for end in sorted(end for end in self._open if end <= closed):
            for ident in sorted(self._open.pop(end)):
                revision, trades = self._published.get(end, {}).get(ident, (0, 0))
                if self._sum(ident).trades != trades:
                    bars.append(self._publish(ident, revision + 1))
        self._forget()
        return bars

    def _publish(self, ident: _Id, revision: int) -> Bar:
        symbol, index, first = ident
        pane = self._sum(ident)
        self._published.setdefault(_end(ident), {})[ident] = (revision, pane.trades)
        return Bar(
            symbol,
            WINDOWS[index].name,
            first * MINUTE_US,
            _end(ident) * MINUTE_US,
            *(pane.open, pane.high, pane.low, pane.close, pane.volume, pane.notional, pane.trades, pane.buy),
            revision,
            pane.close_at[0],
        )

    def _sum(self, ident: _Id) -> Pane:
        symbol, _, first = ident
        inside = self._panes_of(symbol, first, _end(ident))
        total = next(inside).copy()
        for pane in inside:
            total.merge(pane)
        return total

    def _panes_of(self, symbol: str, first: int, end: int) -> Iterator[Pane]:
        for minute in range(first, end):
            pane = self._panes.get(minute, {}).get(symbol)
            if pane is not None:
                yield pane

    def _forget(self) -> None:
        """Drop what no correction can need: the longest window of the oldest correctable minute begins there."""
        for minute in [m for m in self._panes if m < self._closed - self._keep - LONGEST]:
            del self._panes[minute]
        for end in [e for e in self._published if e < self._closed - self._keep]:
            del self._published[end]

    def snapshot(self) -> ShardState:
        """A copy that further trades do not change; :meth:`restore` takes it back."""
        return ShardState(
            self._newest,
            self._closed,
            {m: {s: pane.freeze() for s, pane in panes.items()} for m, panes in self._panes.items()},
            {end: tuple(idents) for end, idents in self._open.items()},
            {end: dict(published) for end, published in self._published.items()},
        )

    def restore(self, state: ShardState) -> None:
        self._newest = state.newest
        self._closed = state.closed
        self._next_close = (state.closed + 1) * MINUTE_US + LATENESS_US
        self._panes = {m: {s: Pane.restore(f) for s, f in panes.items()} for m, panes in state.panes.items()}
        self._open = {end: set(idents) for end, idents in state.open.items()}
        self._published = {end: dict(published) for end, published in state.published.items()}


class ShardState(NamedTuple):
    newest: int
    closed: int
    panes: dict[int, dict[str, tuple[int, ...]]]
    open: dict[int, tuple[_Id, ...]]
    published: dict[int, dict[_Id, tuple[int, int]]]


def _windows_of(symbol: str, minute: int) -> list[_Id]:
    """Every window that a minute is part of."""
    return [
        (symbol, index, first)
        for index, window in enumerate(WINDOWS)
        for first in range(minute - minute % window.every, minute - window.minutes, -window.every)
    ]


def _end(ident: _Id) -> int:
    return ident[2] + WINDOWS[ident[1]].minutes
