"""Frames of the wire contract from what a venue publishes: trades, best quotes, books, and the statistics of them.

In: prices and quantities as the venue's decimal text, event times in µs. Out: ``(event time, frame)``; every
number is written exactly as the venue wrote it; sequence and event ids follow from the order of the calls.

What a venue does not publish (orders and owners behind a trade) is named ``unpublished-…``; a trade id is the
venue's, with exchange and symbol before it. A venue's book says nothing of how many orders make up a level:
``order_count`` is 0.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from simulator.events import format_timestamp
from simulator.recorded.capture import ReplayCounts
from simulator.recorded.venue_book import UNITS_PER_ONE, Level, units

BOOK_DEPTH = 20
"""Levels a side in an OrderBookSnapshot."""
BOOK_INTERVAL_US = 100_000
STATS_INTERVAL_US = 1_000_000

Frame = tuple[int, bytes]


class FrameNumbering:
    """Numbers and stamps the frames of one pass, over all symbols."""

    def __init__(self, session_id: str, counts: ReplayCounts) -> None:
        self._session = session_id
        self._counts = counts
        self._second = -1
        self._second_text = ""

    def frame(self, event_type: str, time_us: int, body: str) -> Frame:
        second, micros = divmod(time_us, 1_000_000)
        if second != self._second:
            self._second_text = format_timestamp(second * 1_000_000)[:20]
            self._second = second
        self._counts.frames = sequence = self._counts.frames + 1
        return time_us, (
            f'{{"event_type":"{event_type}","data":{{"event_id":"{self._session}-{sequence}",'
            f'"timestamp":"{self._second_text}{micros:06d}Z","sequence":{sequence},{body}}}}}'
        ).encode()


class SymbolFrames:
    """The frames of one symbol; ``next_book_us`` and the statistics' clock keep books and statistics few."""

    def __init__(self, numbering: FrameNumbering, exchange: str, symbol: str) -> None:
        self._frame = numbering.frame
        self._symbol_json = json.dumps(symbol)
        self._trade_prefix = f"{exchange}-{symbol}-"
        self._stats = _SessionStats()
        self._spread_of = ("", "")
        self._spread = "null"
        self._next_stats_us = 0
        self.next_book_us = 0
        """Event time from which the next book may be printed."""

    def trade(
        self,
        time_us: int,
        trade_id: int,
        price_text: str,
        quantity_text: str,
        *,
        is_aggressive_buy: bool,
        buy_order_id: str = "unpublished-buy-order",
        sell_order_id: str = "unpublished-sell-order",
    ) -> Frame | None:
        """None: price or quantity is zero, so it is no trade (a venue's own bookkeeping).

        Raises:
            ValueError: price or quantity is not a decimal number.
        """
        price, quantity = units(price_text), units(quantity_text)
        if not price or not quantity:
            return None
        self._stats.add(price, quantity, price_text)
        return self._frame(
            "TradeExecuted",
            time_us,
            f'"trade_id":{json.dumps(f"{self._trade_prefix}{trade_id}")},"symbol":{self._symbol_json},'
            f'"price":{price_text},"quantity":{quantity_text},'
            f'"buy_order_id":{json.dumps(buy_order_id)},"sell_order_id":{json.dumps(sell_order_id)},'
            '"buyer_agent_id":"unpublished-buyer","seller_agent_id":"unpublished-seller",'
            f'"is_aggressive_buy":{"true" if is_aggressive_buy else "false"}',
        )

    def quote(self, time_us: int, bid: str, bid_size: str, ask: str, ask_size: str) -> Frame:
        """A price of zero: that side is empty.

        Raises:
            ValueError: one of them is not a decimal number.
        """
        bid_units, ask_units = units(bid), units(ask)
        units(bid_size), units(ask_size)  # raises on what is no number
        if (bid, ask) != self._spread_of:
            self._spread_of = (bid, ask)
            both = bid_units and ask_units
            self._spread = _text(ask_units - bid_units, _decimals(bid, ask)) if both else "null"
        return self._frame(
            "QuoteUpdate",
            time_us,
            f'"symbol":{self._symbol_json},'
            f'"best_bid":{bid if bid_units else "null"},"best_bid_size":{bid_size},'
            f'"best_ask":{ask if ask_units else "null"},"best_ask_size":{ask_size},"spread":{self._spread}',
        )

    def book(self, time_us: int, levels: tuple[Sequence[Level], Sequence[Level]], update_id: int | None) -> Frame:
        """``levels`` are bids (falling) and asks (rising); ``update_id`` None: the venue does not number them."""
        self.next_book_us = time_us + BOOK_INTERVAL_US
        bids, asks = levels
        return self._frame(
            "OrderBookSnapshot",
            time_us,
            f'"symbol":{self._symbol_json},"bids":[{_levels(bids)}],"asks":[{_levels(asks)}],'
            f'"sequence_number":{"null" if update_id is None else update_id}',
        )

    def stats(self, time_us: int) -> Frame | None:
        """The session's statistics, where they are due: at most once a second, and only after a trade."""
        if time_us < self._next_stats_us or not self._stats.printable:
            return None
        self._next_stats_us = time_us - time_us % STATS_INTERVAL_US + STATS_INTERVAL_US
        return self._frame("MarketStats", time_us, self._stats.fields(self._symbol_json))


class _SessionStats:
    """Open, high, low, close, volume, count and VWAP of all trades so far, in units of 1e-8."""

    def __init__(self) -> None:
        self.trade_count = 0
        self._open = self._high = self._low = self._close = ""
        self._high_units = self._low_units = 0
        self._volume = self._notional = 0

    @property
    def printable(self) -> bool:
        """There were trades, and their volume is one the contract's quantities can hold (below 1e10)."""
        return 0 < self._volume < 10**10 * UNITS_PER_ONE

    def add(self, price: int, quantity: int, price_text: str) -> None:
        if not self.trade_count:
            self._open = price_text
        if not self.trade_count or price > self._high_units:
            self._high, self._high_units = price_text, price
        if not self.trade_count or price < self._low_units:
            self._low, self._low_units = price_text, price
        self._close = price_text
        self._volume += quantity
        self._notional += price * quantity
        self.trade_count += 1

    def fields(self, symbol_json: str) -> str:
        """The body of a MarketStats event; VWAP rounded half-even to 1e-8."""
        vwap, rest = divmod(self._notional, self._volume)
        twice = 2 * rest
        vwap += twice > self._volume or (twice == self._volume and vwap % 2)
        return (
            f'"symbol":{symbol_json},"open":{self._open},"high":{self._high},"low":{self._low},"close":{self._close},'
            f'"volume":{_text(self._volume, 8)},"trade_count":{self.trade_count},"vwap":{_text(vwap, 8)}'
        )


def _levels(levels: Sequence[Level]) -> str:
    return ",".join([f'{{"price":{price},"quantity":{size},"order_count":0}}' for price, size in levels])


def _decimals(*texts: str) -> int:
    return max(len(text.partition(".")[2]) for text in texts)


def _text(value: int, decimals: int) -> str:
    """Units of 1e-8 → decimal text with this many decimals (no digit that counts is cut by the callers)."""
    whole, fraction = divmod(abs(value), UNITS_PER_ONE)
    sign = "-" if value < 0 else ""
    return f"{sign}{whole}.{fraction:08d}"[: -(8 - decimals) or None] if decimals else f"{sign}{whole}"
