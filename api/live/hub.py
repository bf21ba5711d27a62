"""The hub: events in from one consumer, out to any number of readers, with the latest state kept for newcomers.

In: lists of :class:`~api.live.events.LiveEvent`. Out: per reader a queue of rendered Server-Sent Events.
Memory is bounded per symbol and per reader. A reader that falls behind loses only outdated quotes and books;
when that is not enough it is cut off and gets a fresh snapshot when it connects again, so no trade is ever
missing without its knowing. Nothing survives a crash; the consumer reads the end of the topics back.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

import msgspec

from api import metrics
from api.live.events import Alert, Bar, Book, LiveEvent, Quote, Trade, epoch_us
from api.live.forming import Forming, FormingBars

KEPT_TRADES = 100
KEPT_BARS = 240
"""Bars kept per symbol and window."""
OVERVIEW_TRADES = 5
OVERVIEW_BARS = 2
"""Of these a reader of all symbols gets in its snapshot; a reader of named symbols gets all that are kept."""
KEPT_ALERTS = 50
KEPT_IDS = 5_000
"""Trade ids remembered per symbol, to drop what the enrichment repeats after a restart."""

_JSON = msgspec.json.Encoder(decimal_format="number")


@dataclass(slots=True, frozen=True)
class Sent:
    """An event with its number, rendered once for all readers."""

    number: int
    event: LiveEvent
    text: bytes
    replayed: bool
    """Read back at start: it says nothing about latency."""


@dataclass(slots=True)
class _Symbol:
    trades: deque[Sent] = field(default_factory=lambda: deque(maxlen=KEPT_TRADES))
    trade_ids: dict[str, None] = field(default_factory=dict)
    quote: Sent | None = None
    book: Sent | None = None
    bars: dict[tuple[str, datetime], Sent] = field(default_factory=dict)
    forming: FormingBars = field(default_factory=FormingBars)
    last_trade: Trade | None = None


class TooManyStreams(Exception):
    """The configured number of live streams is open already."""


class Reader:
    """One stream's queue. Filled by the hub under the hub's lock, emptied by the stream's own thread."""

    def __init__(self, symbols: frozenset[str], kinds: frozenset[str], limit: int) -> None:
        self.symbols = symbols
        self.kinds = kinds
        self.cut_off = False
        self._limit = limit
        self._queue: deque[Sent] = deque()
        self._wake = threading.Condition()
        self._closed = False

    def wants(self, event: LiveEvent) -> bool:
        """True when the event passes this reader's filters; an empty filter passes everything."""
        return (not self.symbols or event.symbol in self.symbols) and event.kind in self.kinds

    def put(self, batch: Iterable[Sent]) -> None:
        """Queue events; conflates, then cuts the reader off, when it is too far behind."""
        with self._wake:
            self._queue.extend(batch)
            if len(self._queue) > self._limit:
                self._conflate()
                # Below three quarters, or the next events would conflate again and again.
                if len(self._queue) > self._limit * 3 // 4:
                    self.cut_off = self._closed = True
                    self._queue.clear()
                    metrics.LIVE_CUT_OFF.inc()
            self._wake.notify()

    def _conflate(self) -> None:
        newest: dict[tuple[str, str], int] = {}
        for sent in self._queue:
            if sent.event.kind in ("quote", "book"):
                newest[sent.event.kind, sent.event.symbol] = sent.number
        kept = [
            sent
            for sent in self._queue
            if newest.get((sent.event.kind, sent.event.symbol), sent.number) == sent.number
        ]
        metrics.LIVE_CONFLATED.inc(len(self._queue) - len(kept))
        self._queue = deque(kept)

    def take(self, timeout: float) -> list[Sent] | None:
        """All queued events, [] after ``timeout`` seconds without any, None when the stream has to end."""
        with self._wake:
            if not self._queue and not self._closed:
                self._wake.wait(timeout)
            if self._queue:
                batch = list(self._queue)
                self._queue.clear()
                return batch
            return None if self._closed else []

    def close(self) -> None:
        """End the stream after what is queued."""
        with self._wake:
            self._closed = True
            self._wake.notify()


class Hub:
    """Latest state per symbol, and the readers."""

    def __init__(self, run_id: str, max_readers: int, queue_limit: int) -> None:
        """``run_id`` names this run of the API, so that event ids of an earlier one are not taken for its own."""
        self.run_id = run_id
        self._max_readers = max_readers
        self._queue_limit = queue_limit
        self._lock = threading.Lock()
        self._number = 0
        self._symbols: dict[str, _Symbol] = {}
        self._alerts: dict[str, Sent] = {}
        self._readers: set[Reader] = set()
        self._closed = False
        self.connected = False
        """Whether the consumer reaches its broker; readers are told."""

    def publish(self, events: Iterable[LiveEvent], replayed: bool = False) -> None:
        """Take events in the order they were read; repeated and outdated ones go no further.

        ``replayed``: they were in the topic before this process started to read it.
        """
        with self._lock:
            fresh: list[Sent] = []
            for event in events:
                sent = Sent(self._number + 1, event, self._render(self._number + 1, event), replayed)
                if self._remember(sent):
                    self._number += 1
                    fresh.append(sent)
                    metrics.LIVE_EVENTS.labels(event.kind).inc()
            if not fresh:
                return
            for reader in self._readers:
                wanted = [sent for sent in fresh if reader.wants(sent.event)]
                if wanted:
                    reader.put(wanted)

    def _render(self, number: int, event: LiveEvent) -> bytes:
        return b"id: %s-%d\nevent: %s\ndata: %s\n\n" % (
            self.run_id.encode(), number, event.kind.encode(), event.data,
        )  # fmt: skip

    def _remember(self, sent: Sent) -> bool:
        """Update the state; False when the event tells nothing new."""
        payload = sent.event.payload
        state = self._symbols.setdefault(sent.event.symbol, _Symbol())
        if isinstance(payload, Trade):
            if payload.trade_id in state.trade_ids:
                return False
            state.trade_ids[payload.trade_id] = None
            if len(state.trade_ids) > KEPT_IDS:
                del state.trade_ids[next(iter(state.trade_ids))]
            state.trades.append(sent)
            state.forming.add(payload)
            if state.last_trade is None or payload.timestamp >= state.last_trade.timestamp:
                state.last_trade = payload
        elif isinstance(payload, Quote):
            if state.quote is not None and sent.event.event_us < state.quote.event.event_us:
                return False
            state.quote = sent
        elif isinstance(payload, Book):
            if state.book is not None and sent.event.event_us < state.book.event.event_us:
                return False
            state.book = sent
        elif isinstance(payload, Bar):
            return self._remember_bar(state, payload, sent)
        else:
            return self._remember_alert(payload, sent)
        return True

    @staticmethod
    def _remember_bar(state: _Symbol, bar: Bar, sent: Sent) -> bool:
        key = (bar.window, bar.window_start)
        known = state.bars.get(key)
        if known is not None:
            earlier = known.event.payload
            repeated = sent.event.data == known.event.data
            if repeated or (isinstance(earlier, Bar) and bar.revision < earlier.revision):
                return False
        state.bars[key] = sent
        of_window = [start for window, start in state.bars if window == bar.window]
        if len(of_window) > KEPT_BARS:
            del state.bars[bar.window, min(of_window)]
        return True

    def _remember_alert(self, alert: Alert, sent: Sent) -> bool:
        if alert.alert_id in self._alerts:
            return False
        self._alerts[alert.alert_id] = sent
        if len(self._alerts) > KEPT_ALERTS:
            del self._alerts[next(iter(self._alerts))]
        return True

    def subscribe(self, symbols: frozenset[str], kinds: frozenset[str]) -> tuple[Reader, bytes]:
        """Add a reader; returns it and the snapshot it has to send first. No event falls between the two.

        Raises:
            TooManyStreams: the limit of open streams is reached, or the API is stopping.
        """
        with self._lock:
            if self._closed or len(self._readers) >= self._max_readers:
                raise TooManyStreams
            reader = Reader(symbols, kinds, self._queue_limit)
            self._readers.add(reader)
            metrics.LIVE_CLIENTS.set(len(self._readers))
            return reader, self._snapshot(reader)

    def unsubscribe(self, reader: Reader) -> None:
        """Forget a reader whose connection has ended."""
        with self._lock:
            self._readers.discard(reader)
            metrics.LIVE_CLIENTS.set(len(self._readers))

    def _snapshot(self, reader: Reader) -> bytes:
        hello = {"run": self.run_id, "symbols": sorted(self._symbols)}
        overview = not reader.symbols
        parts = [b"event: hello\ndata: %s\n\n" % _JSON.encode(hello)]
        past: list[Sent] = [sent for sent in self._alerts.values() if reader.wants(sent.event)]
        for symbol, state in self._symbols.items():
            if reader.symbols and symbol not in reader.symbols:
                continue
            past.extend(list(state.trades)[-OVERVIEW_TRADES:] if overview else state.trades)
            past.extend(_newest_bars(state) if overview else state.bars.values())
            past.extend(sent for sent in (state.quote, state.book) if sent is not None)
            if "bar" in reader.kinds:
                parts.extend(_forming_event(symbol, bar) for bar in state.forming.bars())
        past.sort(key=lambda sent: sent.number)
        parts.extend(sent.text for sent in past if reader.wants(sent.event))
        parts.append(self.state_event(b"live"))
        return b"".join(parts)

    def state_event(self, name: bytes = b"state") -> bytes:
        """What readers get instead of silence: whether events can come at all."""
        return b'event: %s\ndata: {"connected":%s}\n\n' % (name, b"true" if self.connected else b"false")

    def book(self, symbol: str) -> Book | None:
        """The newest full book of a symbol, None before the first."""
        with self._lock:
            state = self._symbols.get(symbol)
            payload = state.book.event.payload if state is not None and state.book is not None else None
            return payload if isinstance(payload, Book) else None

    def market(self) -> list[dict[str, object]]:
        """Per symbol seen: last price, best bid and ask (exact, or None), and the newest event's time."""
        with self._lock:
            return [_market_row(symbol, state) for symbol, state in sorted(self._symbols.items())]

    def close(self) -> None:
        """End all streams; later ones are refused."""
        with self._lock:
            self._closed = True
            for reader in self._readers:
                reader.close()


def _newest_bars(state: _Symbol) -> list[Sent]:
    of_window: dict[str, list[datetime]] = {}
    for window, start in state.bars:
        of_window.setdefault(window, []).append(start)
    return [
        state.bars[window, start]
        for window, starts in of_window.items()
        for start in sorted(starts)[-OVERVIEW_BARS:]
    ]


def _market_row(symbol: str, state: _Symbol) -> dict[str, object]:
    quote = state.quote.event.payload if state.quote is not None else None
    times = [sent.event.event_us for sent in (state.quote, state.book) if sent is not None]
    if state.last_trade is not None:
        times.append(epoch_us(state.last_trade.timestamp))
    last: Decimal | None = state.last_trade.price if state.last_trade is not None else None
    return {
        "symbol": symbol,
        "last_price": last,
        "best_bid": quote.best_bid if isinstance(quote, Quote) else None,
        "best_ask": quote.best_ask if isinstance(quote, Quote) else None,
        "event_us": max(times, default=None),
    }


def _forming_event(symbol: str, bar: Forming) -> bytes:
    data = {
        "symbol": symbol,
        "window": "1m",
        "window_start_us": bar.start_us,
        "open": bar.open,
        "high": bar.high,
        "low": bar.low,
        "close": bar.close,
        "volume": bar.volume,
        "notional": bar.notional,
        "trade_count": bar.trade_count,
        "buy_volume": bar.buy_volume,
    }
    return b"event: forming\ndata: %s\n\n" % _JSON.encode(data)
