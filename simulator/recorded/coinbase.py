"""A recorded Coinbase Exchange capture as frames of the wire contract.

In: a file of lines as cryptofeed's collector writes them: ``<local time, s>: <JSON>`` received, ``<url> <- …``
sent, ``<url> <-> <time>`` connected; any number of products, of the channels level2 (``snapshot``, ``l2update``),
matches (``match``, ``last_match``) and heartbeat.
Out: ``(event time, frame)`` in the order of the capture: match → TradeExecuted with the venue's order ids, the top
of the book kept from level2, where it changed → QuoteUpdate, the book → OrderBookSnapshot (at most one per 100 ms
and product), and once a second MarketStats of the product's trades so far. The ticker has no event here: it
repeats the match and the top of the book.

The event time is the venue's ``time``. A snapshot has none: it is printed with the next event time in the file.
``side`` of a match is the maker's, so that the taker bought when it is ``sell``.

The venue's sequence rules (its WebSocket overview): ``sequence`` counts all messages of a product's full channel,
of which matches are only a part, so that it tells nothing here; ``trade_id`` of a product rises by one with each
match; the ``last_match`` that a subscription begins with, and a heartbeat's ``last_trade_id``, show matches that
never came; level2 is not numbered, its delivery is guaranteed within a connection. So a book is lost with the
connection, with a line that cannot be read, where trades are missing, or when it is crossed. A lost book is empty,
and neither books nor quotes are printed until the product's next snapshot.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

import msgspec

from simulator.recorded.capture import BAD_LINE, OtherStream, Replay, ReplayCounts
from simulator.recorded.venue_book import Level, Levels, units
from simulator.recorded.venue_frames import (
    BOOK_DEPTH,
    BOOK_INTERVAL_US,
    STATS_INTERVAL_US,
    Frame,
    FrameNumbering,
    SymbolFrames,
)

EXCHANGE = "COINBASE"
MAX_PRODUCTS = 1_000
"""The venue lists some 700."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_Product = Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
_OrderId = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_VenueId = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Time = Annotated[datetime, msgspec.Meta(tz=True)]

logger = logging.getLogger(__name__)


class _Match(msgspec.Struct, tag_field="type", tag="match", gc=False):
    product_id: _Product
    trade_id: _VenueId
    side: Literal["buy", "sell"]
    price: str
    size: str
    maker_order_id: _OrderId
    taker_order_id: _OrderId
    time: _Time


class _LastMatch(_Match, tag_field="type", tag="last_match", gc=False):
    """The newest trade when the subscription began."""


class _Snapshot(msgspec.Struct, tag_field="type", tag="snapshot"):
    product_id: _Product
    bids: list[Level]
    asks: list[Level]


class _Update(msgspec.Struct, tag_field="type", tag="l2update"):
    product_id: _Product
    changes: list[tuple[Literal["buy", "sell"], str, str]]
    """(side, price, the level's new quantity); 0 removes it."""
    time: _Time


class _Heartbeat(msgspec.Struct, tag_field="type", tag="heartbeat", gc=False):
    product_id: _Product
    last_trade_id: _VenueId


class _AnyLine(msgspec.Struct):
    """What a message of any channel may name."""

    type: str
    product_id: _Product | None = None
    product_ids: list[_Product] = []


_Message = _Match | _LastMatch | _Snapshot | _Update | _Heartbeat
_decode = msgspec.json.Decoder(_Message).decode
_decode_any = msgspec.json.Decoder(_AnyLine).decode
_KNOWN = ("match", "last_match", "snapshot", "l2update", "heartbeat")
_MARKET = ("match", "last_match", "snapshot", "l2update", "ticker")

_RECEIVED = re.compile(rb"[0-9]+(?:\.[0-9]+)?: (?=\{)")
_CONNECTED = re.compile(rb"wss?://\S+ <->")
_SENT = re.compile(rb"wss?://\S+ <- [0-9.]+: (?=\{)")
_PRODUCT = re.compile(rb'"product_id":\s*"([^"]{1,32})"')


class CoinbaseReplay(Replay):
    """A finite feed of one capture of many products."""

    exchange = EXCHANGE
    format_name = "Coinbase capture"
    translation = ("coinbase", 1, BOOK_DEPTH, BOOK_INTERVAL_US, STATS_INTERVAL_US)

    def _find_symbols(self, lines: Iterable[bytes]) -> list[str]:
        named: dict[str, None] = {}
        received = False
        for line in lines:
            start = _RECEIVED.match(line) or _SENT.match(line)
            if start is None:
                continue
            try:
                message = _decode_any(line[start.end() :])
            except BAD_LINE:
                continue  # events() reports it
            received = received or message.type in _MARKET
            products = message.product_ids if message.product_id is None else [message.product_id]
            named.update(dict.fromkeys(products))
        return list(named)[:MAX_PRODUCTS] if received else []

    def _translator(self) -> _Translator:
        return _Translator(self.session_id, self.counts)


class _ProductState:
    """One product: its book, its newest trade, its frames."""

    def __init__(self, name: str, numbering: FrameNumbering) -> None:
        self.name = name
        self.frames = SymbolFrames(numbering, EXCHANGE, name)
        self.levels = Levels()
        self.synchronised = False
        self.lost = False
        """The book was there, and no snapshot has come since it was lost."""
        self.top: tuple[Level, Level] | None = None
        """As last printed."""
        self.trade_id: int | None = None
        """Of the newest match seen."""
        self.announced = 0
        """The newest trade id that a heartbeat has told of."""

    def lose_book(self) -> None:
        self.lost = self.lost or self.synchronised
        self.synchronised = False
        self.levels.clear()


class _Translator:
    """Lines of one capture → frames."""

    def __init__(self, session_id: str, counts: ReplayCounts) -> None:
        self._counts = counts
        self._numbering = FrameNumbering(session_id, counts)
        self._products: dict[str, _ProductState] = {}
        self._unprinted: dict[str, _ProductState] = {}
        """Those whose snapshot waits for an event time."""

    def bad_line(self, line: bytes) -> None:
        """The books of the product that the line names, or of all when that cannot be told."""
        named = _PRODUCT.search(line)
        known = self._products.get(named[1].decode("utf-8", "replace")) if named else None
        lost = [p for p in ([known] if known else self._products.values()) if p.synchronised]
        for product in lost:
            product.lose_book()
            logger.warning("%s: no order book until the next snapshot", product.name)

    def translate(self, line: bytes) -> list[Frame]:
        """The frames of one line: none, or the event with what became due by it."""
        message = self._parse(line)
        if message is None:
            return []
        product = self._product(message.product_id)
        if isinstance(message, _Snapshot):
            self._snapshot(product, message)
            return []
        if isinstance(message, _Heartbeat):
            self._heartbeat(product, message.last_trade_id)
            return []
        time_us = (message.time - _EPOCH) // _MICROSECOND
        if time_us < 0:
            raise ValueError(f"time {message.time} is before 1970")
        frames = (
            self._update(product, message, time_us)
            if isinstance(message, _Update)
            else self._match(product, message, time_us)
        )
        stats = product.frames.stats(time_us)
        if stats is not None:
            frames.append(stats)
        return frames

    def _parse(self, line: bytes) -> _Message | None:
        """None: a new connection, whose snapshots are still to come."""
        start = _RECEIVED.match(line)
        if start is None:
            if _CONNECTED.match(line):
                for product in self._products.values():
                    product.lose_book()
                return None
            if not line.strip():
                raise OtherStream("empty line")
            if _SENT.match(line):
                raise OtherStream("sent")
            raise ValueError("neither `<time>: {…}` received, nor sent, nor a connection")
        payload = line[start.end() :]
        try:
            message: _Message = _decode(payload)
        except msgspec.ValidationError:
            name = _decode_any(payload).type
            if name in _KNOWN:
                raise
            raise OtherStream(name[:64]) from None
        return message

    def _product(self, name: str) -> _ProductState:
        product = self._products.get(name)
        if product is None:
            if len(self._products) >= MAX_PRODUCTS:
                raise ValueError(f"{name} is one product too many: a capture holds at most {MAX_PRODUCTS}")
            product = self._products[name] = _ProductState(name, self._numbering)
        return product

    def _snapshot(self, product: _ProductState, snapshot: _Snapshot) -> None:
        product.lose_book()
        product.levels.update(snapshot.bids, snapshot.asks)
        product.synchronised = True
        product.top = None
        if product.lost:
            product.lost = False
            self._counts.book_resyncs += 1
            logger.info("%s: book is in sync again by a snapshot", product.name)
        self._unprinted[product.name] = product

    def _late_snapshots(self, time_us: int) -> list[Frame]:
        frames = []
        for product in self._unprinted.values():
            if product.synchronised:
                frames.append(product.frames.book(time_us, product.levels.top(BOOK_DEPTH), None))
                frames += self._quote(product, time_us, product.levels.top(1))
        self._unprinted.clear()
        return frames

    def _update(self, product: _ProductState, update: _Update, time_us: int) -> list[Frame]:
        for _, price, size in update.changes:
            units(size)  # raises on what is no number, before anything is printed
            if not units(price):
                raise ValueError("a level with the price 0")
        frames = self._late_snapshots(time_us)
        if not product.synchronised:
            return frames  # before the snapshot, or lost
        bids = [(price, size) for side, price, size in update.changes if side == "buy"]
        asks = [(price, size) for side, price, size in update.changes if side == "sell"]
        product.levels.update(bids, asks)
        best = product.levels.top(1)
        if best[0] and best[1] and units(best[0][0][0]) >= units(best[1][0][0]):
            self._gap(product, 0, f"the book is crossed at {best[0][0][0]}, so updates of it are missing")
            return frames
        frames += self._quote(product, time_us, best)
        if time_us >= product.frames.next_book_us:
            frames.append(product.frames.book(time_us, product.levels.top(BOOK_DEPTH), None))
        return frames

    def _quote(self, product: _ProductState, time_us: int, best: tuple[list[Level], list[Level]]) -> list[Frame]:
        bids, asks = best
        top = (bids[0] if bids else ("0", "0"), asks[0] if asks else ("0", "0"))
        if top == product.top:
            return []
        product.top = top
        return [product.frames.quote(time_us, *top[0], *top[1])]

    def _match(self, product: _ProductState, match: _Match, time_us: int) -> list[Frame]:
        newest = product.trade_id
        if newest is not None and match.trade_id <= newest:
            if type(match) is _Match:
                self._counts.repeated += 1
            return []
        if newest is None and isinstance(match, _LastMatch):
            product.trade_id = match.trade_id  # printed before the capture began
            return []
        units(match.price), units(match.size)  # raises on what is no number, before anything is printed
        frames = self._late_snapshots(time_us)
        buyer, seller = match.taker_order_id, match.maker_order_id
        if match.side == "buy":
            buyer, seller = seller, buyer
        frame = product.frames.trade(
            time_us,
            match.trade_id,
            match.price,
            match.size,
            is_aggressive_buy=match.side == "sell",
            buy_order_id=buyer,
            sell_order_id=seller,
        )
        if newest is not None and match.trade_id > newest + 1:
            missing = match.trade_id - newest - 1
            self._gap(product, missing, f"{missing} trades are missing after trade {newest}")
        product.trade_id = match.trade_id
        if frame is None:
            self._counts.zero_trades += 1
        else:
            frames.append(frame)
        return frames

    def _heartbeat(self, product: _ProductState, last_trade_id: int) -> None:
        """The channels may overtake one another; but one heartbeat later every match must have come."""
        newest = product.trade_id
        if newest is not None and product.announced > newest:
            missing = product.announced - newest
            self._gap(product, missing, f"{missing} trades are missing after trade {newest}")
            product.trade_id = product.announced
        product.announced = last_trade_id

    def _gap(self, product: _ProductState, missing: int, what: str) -> None:
        product.lose_book()
        self._counts.gap(missing, f"{product.name}: {what}; no order book until the next snapshot")
