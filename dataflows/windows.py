"""Event-time windows over trades: tumbling 1m, 5m, 15m and sliding 5m every minute. Pure: no I/O, no clock.

In: the trades of one shard in their order. Out: a :class:`Bar` for each window that closed or was corrected.

A trade is added to the one-minute pane of its event time; a window is the sum of its panes. The watermark is the
largest event time seen minus 5 s, and moves with every trade, so results do not depend on how trades are batched:
the same sequence of trades always gives the same bars with the same revisions. A window closes when the watermark
passes its end. A later trade for it is a correction: the window is emitted again with a higher revision. Between
two moves of the watermark over a minute's end, all trades of a minute are late or none is.

A trade that is a copy of one of the last 20,000 is left out (:mod:`dataflows.duplicates`).

Trades in time wait in columns until a window closes or a snapshot is taken, and are then summed up by symbol and
minute (:mod:`dataflows.panes`). From one that is late, closes windows, or is from another age, some are added one
by one, with the same result.

All amounts are integers: prices and quantities in units of 1e-8, notional (price x quantity) in units of 1e-16.
Python's integers do not overflow, so sums are exact whatever their size.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dataflows.duplicates import Recent
from dataflows.frames import Print
from dataflows.panes import MINUTE_US, SUMMED_BELOW, SUMMED_MAX, Pane, panes_of
from dataflows.tape import Tape
from lakehouse.compiled import compiled
from lakehouse.texts import Integers

LATENESS_US = 5_000_000
SINGLY = 64
"""Trades that are added one by one from one that is late, or closes windows, or may be of a time to come."""


class Window(NamedTuple):
    name: str
    minutes: int
    every: int
    """A window starts each ``every`` minutes since the epoch."""


WINDOWS = (Window("1m", 1, 1), Window("5m", 5, 5), Window("15m", 15, 15), Window("5m/1m", 5, 1))

TOO_LATE = "later than its windows are kept for correction"
TOO_FAR_AHEAD = "too far ahead of the trades before it and of Kafka's own clock"


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
"""symbol, index of the window, first minute"""


class ShardWindows:
    """The windows of a shard: some symbols that share a watermark.

    Args:
        keep_minutes: event time for which a closed window can still be corrected; bounds the state.
        ahead_us: a trade that is further than this ahead both of all trades before it and of its timestamp in
            Kafka is refused, for it would move the watermark and make every other trade late.
        windows: to make; a snapshot is for the same ones.
    """

    def __init__(
        self, keep_minutes: int = 60, ahead_us: int = 300_000_000, windows: Sequence[Window] = WINDOWS
    ) -> None:
        self._windows = windows
        self._names = [window.name for window in windows]
        self._longest = max(window.minutes for window in windows)
        self._keep = keep_minutes
        self._ahead = ahead_us
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
        self._frozen_panes: dict[int, bytes] = {}
        self._frozen_published: dict[int, bytes] = {}
        """What of the two is as it was at the last snapshot."""
        self._unsummed: list[Tape] = []
        self._unsummed_trades = 0
        """Trades in time that no pane has yet: the more there are, the less each costs to sum up."""
        self._recent = Recent()
        self.late = 0
        """Late trades since the start of the process."""
        self.duplicates = 0
        """Trades left out since the start of the process because they had come before."""

    @property
    def watermark(self) -> int:
        """Event time, µs; windows up to here are closed. Negative before the first trade."""
        return self._newest - LATENESS_US

    def add(self, trades: Tape, written_ms: Sequence[int] | Integers) -> tuple[list[Bar], dict[int, str]]:
        """Add trades in order → bars that closed or were corrected, and why trades were refused, by place.

        Args:
            written_ms: Kafka's timestamps, by place.
        """
        new = self._recent.new(trades.identity)
        if not new.all():
            self.duplicates += len(new) - int(new.sum())
            trades = trades.where(new)
        bars: list[Bar] = []
        refused: dict[int, str] = {}
        begin, count = 0, len(trades.symbol)
        while begin < count:
            end, newest = _in_time(
                *(trades.time, trades.price, trades.quantity, begin),
                *(self._newest, self._ahead, self._closed * MINUTE_US, self._next_close),
            )
            if end > begin:
                self._unsummed.append(trades.part(begin, end))
                self._unsummed_trades += end - begin
                self._newest = newest
            if self._unsummed_trades >= SUMMED_MAX // 2:
                self._sum_up()
            if end < count:
                more, reasons = self._add_singly(trades.part(end, end + SINGLY).rows(), written_ms)
                bars += more
                refused |= reasons
            begin = end + SINGLY
        return bars, refused

    def _sum_up(self) -> None:
        """Bring trades that were left as they came into the panes."""
        if not self._unsummed:
            return
        trades = Tape.joined(self._unsummed)
        self._unsummed, self._unsummed_trades = [], 0
        for begin in range(0, len(trades.symbol), SUMMED_MAX):
            for minute, symbol, pane in panes_of(trades.part(begin, begin + SUMMED_MAX)):
                row = self._panes.setdefault(minute, {})
                self._frozen_panes.pop(minute, None)
                known = row.get(symbol)
                if known is not None:
                    known.merge(pane)
                else:
                    row[symbol] = pane
                    self._opened(symbol, minute)

    def _opened(self, symbol: str, minute: int) -> None:
        for ident in self._windows_of(symbol, minute):
            self._open.setdefault(self._end(ident), set()).add(ident)

    def _add_singly(
        self, trades: Iterable[Print], written_ms: Sequence[int] | Integers
    ) -> tuple[list[Bar], dict[int, str]]:
        """Trades of any times and amounts."""
        self._sum_up()
        bars: list[Bar] = []
        refused: dict[int, str] = {}
        corrected: dict[_Id, int] = {}
        begin = end = 0  # µs; of the minute that ``row`` has the panes of
        row: dict[str, Pane] = {}
        late = False
        newest, ahead, next_close = self._newest, self._ahead, self._next_close
        for symbol, time, sequence, price, quantity, buy, _, place in trades:
            if time > newest:
                if time - newest > ahead and time - written_ms[place] * 1000 > ahead:
                    refused[place] = TOO_FAR_AHEAD
                    continue
                newest = time
                if time >= next_close:
                    self._newest = newest
                    bars += self._correct(corrected)  # while what they need is still kept
                    bars += self._close()
                    next_close = self._next_close
                    begin = end = 0
            if not begin <= time < end:
                minute = time // MINUTE_US
                if minute + 1 + self._keep <= self._closed:
                    refused[place] = TOO_LATE
                    continue
                begin, end = minute * MINUTE_US, (minute + 1) * MINUTE_US
                row = self._panes.setdefault(minute, {})
                late = minute < self._closed
                self._frozen_panes.pop(minute, None)
            if late:
                self._count_late(symbol, minute, corrected)
            pane = row.get(symbol)
            if pane is None:
                row[symbol] = Pane.of(time, sequence, price, quantity, buy)
                if not late:
                    self._opened(symbol, minute)
                continue
            if time > pane.close_time:
                pane.close_time, pane.close_sequence, pane.close = time, sequence, price
            elif time <= pane.open_time or time == pane.close_time:
                pane.extend(time, sequence, price)
            if price > pane.high:
                pane.high = price
            elif price < pane.low:
                pane.low = price
            pane.volume += quantity
            pane.notional += price * quantity
            pane.trades += 1
            if buy:
                pane.buy += quantity
        self._newest = newest
        return bars + self._correct(corrected), refused

    def _count_late(self, symbol: str, minute: int, corrected: dict[_Id, int]) -> None:
        self.late += 1
        for ident in self._windows_of(symbol, minute):
            if self._end(ident) <= self._closed:
                corrected[ident] = corrected.get(ident, 0) + 1
            else:
                self._open.setdefault(self._end(ident), set()).add(ident)

    def publish_open(self) -> list[Bar]:
        """Bars of all open windows that have changed since they were last emitted; the windows stay open.

        For a stream that has fallen silent, where no watermark will come to close them.
        """
        self._sum_up()
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
            ident = (bar.symbol, self._names.index(bar.window), bar.start // MINUTE_US)
            self._emitted(ident, bar.revision, 0)

    def _correct(self, corrected: dict[_Id, int]) -> list[Bar]:
        """Bars of closed windows that late trades went into; empties ``corrected``: their numbers by window."""
        bars = []
        for ident, late in corrected.items():
            revision, _ = self._published.get(self._end(ident), {}).get(ident, (0, 0))
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
                if not trades or self._sum(ident).trades != trades:
                    bars.append(self._publish(ident, revision + 1))
        self._forget()
        return bars

    def _publish(self, ident: _Id, revision: int) -> Bar:
        symbol, index, first = ident
        pane = self._sum(ident)
        self._emitted(ident, revision, pane.trades)
        return Bar(
            symbol,
            self._names[index],
            first * MINUTE_US,
            self._end(ident) * MINUTE_US,
            *(pane.open, pane.high, pane.low, pane.close, pane.volume, pane.notional, pane.trades, pane.buy),
            revision,
            pane.close_time,
        )

    def _emitted(self, ident: _Id, revision: int, trades: int) -> None:
        end = self._end(ident)
        self._published.setdefault(end, {})[ident] = (revision, trades)
        self._frozen_published.pop(end, None)

    def _sum(self, ident: _Id) -> Pane:
        symbol, _, first = ident
        panes = [
            pane for minute in range(first, self._end(ident)) if (pane := self._panes.get(minute, {}).get(symbol))
        ]
        if len(panes) == 1:
            return panes[0]
        total = panes[0].copy()
        for pane in panes[1:]:
            total.merge(pane)
        return total

    def _forget(self) -> None:
        """Drop what no correction can need: the longest window of the oldest correctable minute begins there."""
        for minute in [m for m in self._panes if m < self._closed - self._keep - self._longest]:
            del self._panes[minute]
            self._frozen_panes.pop(minute, None)
        for end in [e for e in self._published if e < self._closed - self._keep]:
            del self._published[end]
            self._frozen_published.pop(end, None)

    def _windows_of(self, symbol: str, minute: int) -> list[_Id]:
        """Every window that a minute is part of."""
        return [
            (symbol, index, first)
            for index, window in enumerate(self._windows)
            for first in range(minute - minute % window.every, minute - window.minutes, -window.every)
        ]

    def _end(self, ident: _Id) -> int:
        return ident[2] + self._windows[ident[1]].minutes

    def snapshot(self) -> ShardState:
        """A copy that further trades do not change; :meth:`restore` takes it back.

        A snapshot is taken each second, and of an hour of windows few have changed since: those that have not
        are not serialised again.
        """
        self._sum_up()
        for minute in self._panes.keys() - self._frozen_panes.keys():
            panes = {symbol: pane.freeze() for symbol, pane in self._panes[minute].items()}
            self._frozen_panes[minute] = pickle.dumps(panes)
        for end in self._published.keys() - self._frozen_published.keys():
            self._frozen_published[end] = pickle.dumps(self._published[end])
        return ShardState(
            self._newest,
            self._closed,
            dict(self._frozen_panes),
            {end: tuple(idents) for end, idents in self._open.items()},
            dict(self._frozen_published),
            self._recent.snapshot(),
        )

    def restore(self, state: ShardState) -> None:
        self._newest = state.newest
        self._closed = state.closed
        self._next_close = (state.closed + 1) * MINUTE_US + LATENESS_US
        self._panes = {
            minute: {symbol: Pane(pane) for symbol, pane in pickle.loads(panes).items()}  # noqa: S301 (our own bytes)
            for minute, panes in state.panes.items()
        }
        self._open = {end: set(idents) for end, idents in state.open.items()}
        self._published = {
            end: pickle.loads(published)  # noqa: S301 (our own bytes)
            for end, published in state.published.items()
        }
        self._frozen_panes, self._frozen_published = dict(state.panes), dict(state.published)
        self._recent = Recent(state.recent)


@compiled
def _in_time(
    time: Integers,
    price: Integers,
    quantity: Integers,
    begin: int,
    newest: int,
    ahead: int,
    oldest: int,
    next_close: int,
) -> tuple[int, int]:
    """The first trade from ``begin`` on that has to be looked at by itself, and the newest time before it."""
    for i in range(begin, len(time)):
        if price[i] >= SUMMED_BELOW or quantity[i] >= SUMMED_BELOW or time[i] < oldest:
            return i, newest
        if time[i] > newest:
            if time[i] - newest > ahead or time[i] >= next_close:
                return i, newest
            newest = time[i]
    return len(time), newest


class ShardState(NamedTuple):
    newest: int
    closed: int
    panes: dict[int, bytes]
    open: dict[int, tuple[_Id, ...]]
    published: dict[int, bytes]
    recent: tuple[bytes, bytes]
