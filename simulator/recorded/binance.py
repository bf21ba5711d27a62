"""A recorded Binance USD-M futures capture as frames of the wire contract.

In: a file of lines ``<local time, ns> <JSON>``, as hftbacktest's collector writes them: one symbol a file; trades,
best quotes, order-book differences, and the REST snapshots that the book starts from.
Out: ``(event time, frame)`` in the order of the capture: trade → TradeExecuted, best quote → QuoteUpdate, the
book kept from the differences → OrderBookSnapshot (at most one per 100 ms), and once a second MarketStats of the
trades so far.

The event time is the venue's transaction time ``T``. It may step back a little between the venue's streams; it
is given on as the venue said it. The venue prints trades of price or quantity zero for its own bookkeeping: they
are no trades, and are counted and left out.

A gap is a break of the venue's chain of book differences (``pu`` ≠ the ``u`` before): logged, counted, and no
order book is printed until the next snapshot.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec

from simulator.recorded.capture import BAD_LINE, OtherStream, Replay, ReplayCounts
from simulator.recorded.venue_book import BookDiff, Level, VenueBook
from simulator.recorded.venue_frames import (
    BOOK_DEPTH,
    BOOK_INTERVAL_US,
    STATS_INTERVAL_US,
    Frame,
    FrameNumbering,
    SymbolFrames,
)

EXCHANGE = "BINANCE-USDM"

logger = logging.getLogger(__name__)

_KNOWN = ("trade", "bookTicker", "depthUpdate")


_Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999)]
"""Since the epoch, to the end of the year 9999."""
_Symbol = Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
_VenueId = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Trade(msgspec.Struct, tag_field="e", tag="trade", gc=False):
    symbol: _Symbol = msgspec.field(name="s")
    time_ms: _Milliseconds = msgspec.field(name="T")
    trade_id: _VenueId = msgspec.field(name="t")
    price: str = msgspec.field(name="p")
    quantity: str = msgspec.field(name="q")
    buyer_is_maker: bool = msgspec.field(name="m")
    """True when the seller was the aggressor."""


class BookTicker(msgspec.Struct, tag_field="e", tag="bookTicker", gc=False):
    symbol: _Symbol = msgspec.field(name="s")
    time_ms: _Milliseconds = msgspec.field(name="T")
    bid: str = msgspec.field(name="b")
    bid_size: str = msgspec.field(name="B")
    ask: str = msgspec.field(name="a")
    ask_size: str = msgspec.field(name="A")


class DepthUpdate(msgspec.Struct, tag_field="e", tag="depthUpdate"):
    symbol: _Symbol = msgspec.field(name="s")
    time_ms: _Milliseconds = msgspec.field(name="T")
    first: _VenueId = msgspec.field(name="U")
    last: _VenueId = msgspec.field(name="u")
    previous: _VenueId = msgspec.field(name="pu")
    bids: list[Level] = msgspec.field(name="b")
    asks: list[Level] = msgspec.field(name="a")


class _StreamLine(msgspec.Struct):
    data: Trade | BookTicker | DepthUpdate


class Snapshot(msgspec.Struct):
    last_update_id: _VenueId = msgspec.field(name="lastUpdateId")
    time_ms: _Milliseconds = msgspec.field(name="T")
    bids: list[Level]
    asks: list[Level]


_decode_stream = msgspec.json.Decoder(_StreamLine).decode
_decode_snapshot = msgspec.json.Decoder(Snapshot).decode


def parse_line(line: bytes) -> Trade | BookTicker | DepthUpdate | Snapshot:
    """One line of a capture, with or without the local time before the JSON.

    Raises:
        OtherStream: a sound line of a stream that has no event here.
        msgspec.DecodeError: not JSON, or (ValidationError) not what the venue documents for its stream.
        UnicodeDecodeError: a text is not UTF-8.
        RecursionError: nested deeper than any message of the venue.
    """
    payload = line if line.startswith(b"{") else line[line.find(b" ") + 1 :]
    if b'"lastUpdateId"' in payload[:64]:
        return _decode_snapshot(payload)
    try:
        return _decode_stream(payload).data
    except msgspec.ValidationError:
        name = _event_name(payload)
        if name is None or name in _KNOWN:
            raise
        raise OtherStream(name) from None


def _event_name(payload: bytes) -> str | None:
    line: Any = msgspec.json.decode(payload)
    data = line.get("data") if isinstance(line, dict) else None
    name = data.get("e") if isinstance(data, dict) else None
    return name if isinstance(name, str) else None


class BinanceReplay(Replay):
    """A finite feed of one capture of one symbol."""

    exchange = EXCHANGE
    format_name = "Binance USD-M capture"
    translation = (1, BOOK_DEPTH, BOOK_INTERVAL_US // 1_000, STATS_INTERVAL_US // 1_000)

    def _find_symbols(self, lines: Iterable[bytes]) -> list[str]:
        for line in lines:
            try:
                message = parse_line(line)
            except (OtherStream, *BAD_LINE):
                continue  # events() reports it
            if not isinstance(message, Snapshot):
                return [message.symbol]
        return []

    def _translator(self) -> _Translator:
        return _Translator(self.symbols[0], self.session_id, self.counts)


class _Translator:
    """Lines of one capture → frames; keeps the book."""

    def __init__(self, symbol: str, session_id: str, counts: ReplayCounts) -> None:
        self._symbol = symbol
        self._counts = counts
        self._book = VenueBook()
        self._frames = SymbolFrames(FrameNumbering(session_id, counts), EXCHANGE, symbol)

    def bad_line(self, line: bytes) -> None:
        """A lost difference shows in the chain of the next one."""

    def translate(self, line: bytes) -> list[Frame]:
        """The frames of one line: none, one, or one and the statistics that were due."""
        message = parse_line(line)
        if isinstance(message, Snapshot):
            return self._snapshot(message)
        if message.symbol != self._symbol:
            raise ValueError(f"of {message.symbol}, in a capture of {self._symbol}: one file holds one symbol")
        time_us = message.time_ms * 1_000
        frame: Frame | None
        if isinstance(message, BookTicker):
            frame = self._frames.quote(time_us, message.bid, message.bid_size, message.ask, message.ask_size)
        elif isinstance(message, Trade):
            frame = self._frames.trade(
                time_us,
                message.trade_id,
                message.price,
                message.quantity,
                is_aggressive_buy=not message.buyer_is_maker,
            )
            self._counts.zero_trades += frame is None
        else:
            frame = self._diff(message, time_us)
        frames = [] if frame is None else [frame]
        stats = self._frames.stats(time_us)
        if stats is not None:
            frames.append(stats)
        return frames

    def _diff(self, diff: DepthUpdate, time_us: int) -> Frame | None:
        changed = False
        try:
            changed = self._book.apply_diff(BookDiff(diff.first, diff.last, diff.previous, diff.bids, diff.asks))
        finally:
            self._note_gaps()
        if not changed or time_us < self._frames.next_book_us:
            return None
        return self._book_frame(time_us)

    def _snapshot(self, snapshot: Snapshot) -> list[Frame]:
        try:
            synchronised = self._book.apply_snapshot(snapshot.last_update_id, snapshot.bids, snapshot.asks)
        finally:
            self._note_gaps()
        if not synchronised:
            return []
        if self._book.resyncs > self._counts.book_resyncs:
            self._counts.book_resyncs = self._book.resyncs
            logger.info("%s: book is in sync again at update id %d", self._symbol, self._book.last_update_id)
        return [self._book_frame(snapshot.time_ms * 1_000)]

    def _note_gaps(self) -> None:
        for _ in range(self._book.gaps - self._counts.gaps):
            self._counts.gap(
                0,
                f"{self._symbol}: the chain of book differences breaks after update id "
                f"{self._book.last_update_id}; no order book until the next snapshot",
            )

    def _book_frame(self, time_us: int) -> Frame:
        return self._frames.book(time_us, self._book.top(BOOK_DEPTH), self._book.last_update_id)
