"""The candle that is still open: trades in, one bar per symbol and minute out.

A convenience for readers until the window flow closes the minute and its bar replaces this one. Open and close
follow (timestamp, sequence), so trades may come in any order. Pure: no clock; old minutes go by event time.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from api.live.events import Trade, epoch_us

MINUTE_US = 60_000_000
KEPT_MINUTES = 3


@dataclass(slots=True)
class Forming:
    """An open minute of one symbol; prices in currency, volume in units."""

    start_us: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    notional: Decimal
    trade_count: int
    buy_volume: Decimal
    first: tuple[int, int]
    last: tuple[int, int]


class FormingBars:
    """The newest minutes of one symbol, from its trades."""

    def __init__(self) -> None:
        self._minutes: dict[int, Forming] = {}

    def add(self, trade: Trade) -> None:
        """Count one trade; the caller has sorted out repeated ones."""
        at = epoch_us(trade.timestamp)
        order = (at, trade.sequence or 0)
        start = at - at % MINUTE_US
        bought = trade.quantity if trade.is_aggressive_buy else Decimal(0)
        bar = self._minutes.get(start)
        if bar is None:
            if self._minutes and start < max(self._minutes) - (KEPT_MINUTES - 1) * MINUTE_US:
                return
            self._minutes[start] = Forming(
                start, trade.price, trade.price, trade.price, trade.price, trade.quantity,
                trade.price * trade.quantity, 1, bought, order, order,
            )  # fmt: skip
            while len(self._minutes) > KEPT_MINUTES:
                del self._minutes[min(self._minutes)]
            return
        bar.high = max(bar.high, trade.price)
        bar.low = min(bar.low, trade.price)
        bar.volume += trade.quantity
        bar.notional += trade.price * trade.quantity
        bar.buy_volume += bought
        bar.trade_count += 1
        if order < bar.first:
            bar.first, bar.open = order, trade.price
        if order >= bar.last:
            bar.last, bar.close = order, trade.price

    def bars(self) -> list[Forming]:
        """Kept minutes, oldest first."""
        return [self._minutes[start] for start in sorted(self._minutes)]
