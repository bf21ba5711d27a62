"""A recorded Binance USD-M futures capture, replayed as frames of the wire contract.

In: a file, plain or gzip, of lines ``<local time, ns> <JSON>``, as hftbacktest's collector writes them: one
symbol a file; trades, best quotes, order-book differences, and the REST snapshots that the book starts from.
Out: ``(event time, frame)`` in the order of the capture: trade → TradeExecuted, best quote → QuoteUpdate, the
book kept from the differences → OrderBookSnapshot (at most one per 100 ms), and once a second MarketStats of the
trades so far.

The event time is the venue's transaction time ``T``. It may step back a little between the venue's streams; it
is given on as the venue said it. Prices and quantities are written exactly as the venue wrote them.

What the venue does not publish (orders and owners behind a trade) is named ``unpublished-…``; a trade id is the
venue's, with exchange and symbol before it. The venue prints trades of price or quantity zero for its own
bookkeeping: they are no trades, and are counted and left out.

A line that cannot be read is logged with file and line, counted, and passed over. On a crash nothing is lost:
session id, event ids and sequence follow from the file alone, so that a second run prints the same frames.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import msgspec

from simulator.binance import BookTicker, DepthUpdate, OtherStream, Snapshot, Trade, parse_line
from simulator.events import format_timestamp
from simulator.venue_book import UNITS_PER_ONE, BookDiff, Level, VenueBook, units

EXCHANGE = "BINANCE-USDM"
BOOK_DEPTH = 20
"""Levels a side in an OrderBookSnapshot."""
BOOK_INTERVAL_MS = 100
STATS_INTERVAL_MS = 1_000
TRANSLATION = 1
"""Part of the session id: raise it when the same file would give other frames."""

MAX_LINE_BYTES = 8_000_000
"""The longest line read whole; a snapshot of 1,000 levels a side is about 50 kB."""
HEAD_LINES = 1_000
"""Lines searched for the first one that names the symbol."""
FINGERPRINT_BYTES = 1 << 20
"""The session id covers this much of the file's start and end, and its size: a day's capture is gigabytes."""
LOGGED_ERRORS = 20
"""Bad lines logged one by one; the rest is only counted, so that a broken file does not fill the log."""

_BAD_LINE = (msgspec.DecodeError, ValueError, RecursionError)
"""What a line can raise: no JSON, not the venue's message, bytes that are no UTF-8 or no number, deep nesting."""

logger = logging.getLogger(__name__)


class ReplayError(Exception):
    """The file cannot be replayed at all."""


@dataclass
class ReplayCounts:
    """What one pass over the file found."""

    lines: int = 0
    frames: int = 0
    bad_lines: int = 0
    zero_trades: int = 0
    book_gaps: int = 0
    book_resyncs: int = 0
    other_streams: Counter[str] = field(default_factory=Counter)
    """Lines of streams that have no event here, by the venue's event name."""


class BinanceReplay:
    """A finite feed of one capture.

    Attributes:
        exchange: the venue's name in the welcome.
        symbols: the one symbol of the file.
        session_id: follows from the file's content and size.
        counts: of the pass of :meth:`events` that runs or ran last.

    Raises:
        ReplayError: the file is not there, not readable, or no such capture.
    """

    exchange = EXCHANGE

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.counts = ReplayCounts()
        try:
            fingerprint = _fingerprint(self.path)
            symbol = self._find_symbol()
        except OSError as error:
            raise ReplayError(
                f"cannot read the capture {self.path}: {error.strerror or error}; "
                "give the path of a recorded file, plain or .gz"
            ) from error
        if symbol is None:
            raise ReplayError(
                f"{self.path} is no Binance USD-M capture: none of its first {HEAD_LINES} lines is "
                '`<local ns> {"stream": …, "data": {…}}` of a trade, bookTicker or depth stream'
            )
        self.symbols: Sequence[str] = [symbol]
        self.session_id = f"replay-{fingerprint}"

    def events(self) -> Iterator[tuple[int, bytes]]:
        """Yield ``(event time in µs since the epoch, frame)``, sequence 1, 2, …, to the end of the file."""
        self.counts = counts = ReplayCounts()
        translator = _Translator(self.symbols[0], self.session_id, counts)
        for number, line in self._lines():
            counts.lines = number
            if line is None:
                self._bad(number, f"longer than {MAX_LINE_BYTES:,} bytes")
                continue
            try:
                frames = translator.translate(parse_line(line))
            except OtherStream as other:
                counts.other_streams[str(other)] += 1
                continue
            except _BAD_LINE as error:
                self._bad(number, str(error))
                continue
            yield from frames
        logger.info("replayed %s: %s", self.path, counts)

    def _bad(self, number: int, reason: str) -> None:
        self.counts.bad_lines += 1
        if self.counts.bad_lines <= LOGGED_ERRORS:
            logger.error("%s:%d: line passed over: %s", self.path, number, reason)
        if self.counts.bad_lines == LOGGED_ERRORS:
            logger.error("%s: further bad lines are only counted", self.path)

    def _lines(self) -> Iterator[tuple[int, bytes | None]]:
        """Number and bytes of each line, None for one too long; a torn end is counted as a bad line."""
        number = 0
        with _open(self.path) as stream:
            while True:
                number += 1
                try:
                    line = stream.readline(MAX_LINE_BYTES)
                    too_long = len(line) == MAX_LINE_BYTES and not line.endswith(b"\n")
                    while too_long and (rest := stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                        pass
                except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                    self._bad(number, f"the compressed data is torn, the replay ends here: {error}")
                    return
                if not line:
                    return
                yield number, None if too_long else line

    def _find_symbol(self) -> str | None:
        for number, line in self._lines():
            if number > HEAD_LINES:
                break
            if line is None:
                continue
            try:
                message = parse_line(line)
            except (OtherStream, *_BAD_LINE):
                continue  # events() reports it
            if not isinstance(message, Snapshot):
                return message.symbol
        return None


class _Translator:
    """Lines of one capture → frames; keeps the book, the session's statistics and the sequence."""

    def __init__(self, symbol: str, session_id: str, counts: ReplayCounts) -> None:
        self._symbol = symbol
        self._symbol_json = json.dumps(symbol)
        self._trade_prefix = f"{EXCHANGE}-{symbol}-"
        self._session = session_id
        self._counts = counts
        self._book = VenueBook()
        self._stats = _SessionStats()
        self._sequence = 0
        self._second = -1
        self._second_text = ""
        self._next_book_ms = 0
        self._next_stats_ms = 0
        self._spread_of = ("", "")
        self._spread = "null"

    def translate(self, message: Trade | BookTicker | DepthUpdate | Snapshot) -> list[tuple[int, bytes]]:
        """The frames of one message: none, one, or one and the statistics that were due.

        Raises:
            ValueError: a rule of the venue or of the contract is broken.
        """
        if isinstance(message, Snapshot):
            return self._snapshot(message)
        if message.symbol != self._symbol:
            raise ValueError(f"of {message.symbol}, in a capture of {self._symbol}: one file holds one symbol")
        if isinstance(message, BookTicker):
            frames = [self._quote(message)]
        elif isinstance(message, Trade):
            frames = self._trade(message)
        else:
            frames = self._diff(message)
        if self._stats.printable and message.time_ms >= self._next_stats_ms:
            self._next_stats_ms = message.time_ms - message.time_ms % STATS_INTERVAL_MS + STATS_INTERVAL_MS
            frames.append(self._frame("MarketStats", message.time_ms, self._stats.fields(self._symbol_json)))
        return frames

    def _trade(self, trade: Trade) -> list[tuple[int, bytes]]:
        price, quantity = units(trade.price), units(trade.quantity)
        if not price or not quantity:
            self._counts.zero_trades += 1
            return []
        self._stats.add(price, quantity, trade.price)
        trade_id = json.dumps(f"{self._trade_prefix}{trade.trade_id}")
        body = (
            f'"trade_id":{trade_id},"symbol":{self._symbol_json},"price":{trade.price},"quantity":{trade.quantity},'
            '"buy_order_id":"unpublished-buy-order","sell_order_id":"unpublished-sell-order",'
            '"buyer_agent_id":"unpublished-buyer","seller_agent_id":"unpublished-seller",'
            f'"is_aggressive_buy":{"false" if trade.buyer_is_maker else "true"}'
        )
        return [self._frame("TradeExecuted", trade.time_ms, body)]

    def _quote(self, quote: BookTicker) -> tuple[int, bytes]:
        bid, ask = units(quote.bid), units(quote.ask)
        units(quote.bid_size), units(quote.ask_size)  # raises on what is no number
        if (quote.bid, quote.ask) != self._spread_of:
            self._spread_of = (quote.bid, quote.ask)
            self._spread = _text(ask - bid, _decimals(quote.bid, quote.ask)) if bid and ask else "null"
        return self._frame(
            "QuoteUpdate",
            quote.time_ms,
            f'"symbol":{self._symbol_json},'
            f'"best_bid":{quote.bid if bid else "null"},"best_bid_size":{quote.bid_size},'
            f'"best_ask":{quote.ask if ask else "null"},"best_ask_size":{quote.ask_size},"spread":{self._spread}',
        )

    def _diff(self, diff: DepthUpdate) -> list[tuple[int, bytes]]:
        changed = False
        try:
            changed = self._book.apply_diff(BookDiff(diff.first, diff.last, diff.previous, diff.bids, diff.asks))
        finally:
            self._note_gaps()
        if not changed or diff.time_ms < self._next_book_ms:
            return []
        return [self._book_frame(diff.time_ms)]

    def _snapshot(self, snapshot: Snapshot) -> list[tuple[int, bytes]]:
        try:
            synchronised = self._book.apply_snapshot(snapshot.last_update_id, snapshot.bids, snapshot.asks)
        finally:
            self._note_gaps()
        if not synchronised:
            return []
        if self._book.resyncs > self._counts.book_resyncs:
            self._counts.book_resyncs = self._book.resyncs
            logger.info("%s: book is in sync again at update id %d", self._symbol, self._book.last_update_id)
        return [self._book_frame(snapshot.time_ms)]

    def _note_gaps(self) -> None:
        if self._book.gaps > self._counts.book_gaps:
            self._counts.book_gaps = self._book.gaps
            logger.warning(
                "%s: the chain of book differences breaks after update id %d; "
                "no order book until the next snapshot",
                self._symbol,
                self._book.last_update_id,
            )

    def _book_frame(self, time_ms: int) -> tuple[int, bytes]:
        self._next_book_ms = time_ms + BOOK_INTERVAL_MS
        bids, asks = self._book.top(BOOK_DEPTH)
        return self._frame(
            "OrderBookSnapshot",
            time_ms,
            f'"symbol":{self._symbol_json},"bids":[{_levels(bids)}],"asks":[{_levels(asks)}],'
            f'"sequence_number":{self._book.last_update_id}',
        )

    def _frame(self, event_type: str, time_ms: int, body: str) -> tuple[int, bytes]:
        second, milli = divmod(time_ms, 1_000)
        if second != self._second:
            self._second_text = format_timestamp(second * 1_000_000)[:20]
            self._second = second
        self._sequence += 1
        self._counts.frames += 1
        return time_ms * 1_000, (
            f'{{"event_type":"{event_type}","data":{{"event_id":"{self._session}-{self._sequence}",'
            f'"timestamp":"{self._second_text}{milli:03d}000Z","sequence":{self._sequence},{body}}}}}'
        ).encode()


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


def _levels(levels: list[Level]) -> str:
    """``order_count`` is not published by the venue."""
    return ",".join([f'{{"price":{price},"quantity":{size},"order_count":0}}' for price, size in levels])


def _decimals(*texts: str) -> int:
    return max(len(text.partition(".")[2]) for text in texts)


def _text(value: int, decimals: int) -> str:
    """Units of 1e-8 → decimal text with this many decimals (no digit that counts is cut by the callers)."""
    whole, fraction = divmod(abs(value), UNITS_PER_ONE)
    sign = "-" if value < 0 else ""
    return f"{sign}{whole}.{fraction:08d}"[: -(8 - decimals) or None] if decimals else f"{sign}{whole}"


def _open(path: Path) -> IO[bytes]:
    """The file's bytes, decompressed when they begin as gzip does, whatever the name."""
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return io.BufferedReader(gzip.GzipFile(path), 1 << 18) if compressed else path.open("rb")


def _fingerprint(path: Path) -> str:
    size = path.stat().st_size
    parts = (TRANSLATION, BOOK_DEPTH, BOOK_INTERVAL_MS, STATS_INTERVAL_MS, size)
    digest = hashlib.sha256(repr(parts).encode())
    with path.open("rb") as file:
        digest.update(file.read(FINGERPRINT_BYTES))
        if size > FINGERPRINT_BYTES:
            file.seek(max(FINGERPRINT_BYTES, size - FINGERPRINT_BYTES))
            digest.update(file.read(FINGERPRINT_BYTES))
    return digest.hexdigest()[:16]
