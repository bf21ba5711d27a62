"""simulator.recorded.coinbase on a whole recorded capture, against figures taken from the file itself."""

from __future__ import annotations

import json
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from simulator.events import (
    MarketEvent,
    MarketStatsFrame,
    OrderBookSnapshotFrame,
    QuoteUpdateFrame,
    TradeExecutedFrame,
    parse_frame,
)
from simulator.recorded.coinbase import CoinbaseReplay

CAPTURE = Path(__file__).parents[3] / "shared/data/coinbase_ws_capture.txt"
pytestmark = pytest.mark.skipif(not CAPTURE.exists(), reason=f"recorded capture {CAPTURE.name} is not here")


@pytest.fixture(scope="module")
def whole() -> tuple[CoinbaseReplay, list[tuple[int, MarketEvent]]]:
    replay = CoinbaseReplay(CAPTURE)
    return replay, [(time_us, parse_frame(frame)) for time_us, frame in replay.events()]


@pytest.fixture(scope="module")
def recorded() -> list[dict[str, Any]]:
    """The venue's messages, read without the project."""
    lines = CAPTURE.read_text().splitlines()
    return [json.loads(line.partition(": ")[2]) for line in lines if line[:1].isdigit()]


def of_kind(whole: Any, kind: type) -> list[Any]:
    return [event.data for _, event in whole[1] if isinstance(event, kind)]


def test_every_line_of_the_capture_is_understood(whole: Any) -> None:
    replay, events = whole
    assert (replay.exchange, len(replay.symbols), replay.counts.lines) == ("COINBASE", 10, 9_952)
    assert (replay.counts.bad_lines, replay.counts.gaps, replay.counts.repeated) == (0, 0, 0)
    assert replay.counts.other_streams == {"ticker": 107, "subscriptions": 3, "sent": 3, "empty line": 2}
    assert [event.data.sequence for _, event in events] == list(range(1, len(events) + 1))
    assert all(round(event.data.timestamp.timestamp() * 1e6) == time_us for time_us, event in events)
    assert set(replay.symbols) == {event.data.symbol for _, event in events}


def test_every_trade_of_the_capture_is_the_venues_in_its_order(whole: Any, recorded: Any) -> None:
    expected = [
        (
            f"COINBASE-{d['product_id']}-{d['trade_id']}",
            d["product_id"],
            Decimal(d["price"]),
            Decimal(d["size"]),
            d["taker_order_id"] if d["side"] == "sell" else d["maker_order_id"],
            d["maker_order_id"] if d["side"] == "sell" else d["taker_order_id"],
            d["side"] == "sell",
            d["time"],
        )
        for d in recorded
        if d["type"] == "match"
    ]
    replayed = [
        (
            t.trade_id,
            t.symbol,
            t.price,
            t.quantity,
            t.buy_order_id,
            t.sell_order_id,
            t.is_aggressive_buy,
            f"{t.timestamp:%Y-%m-%dT%H:%M:%S.%f}Z",
        )
        for t in of_kind(whole, TradeExecutedFrame)
    ]
    assert len(expected) == 97
    assert replayed == expected


def test_the_bars_of_each_minute_are_those_of_the_file(whole: Any, recorded: Any) -> None:
    def bars(trades: Any) -> dict[Any, Any]:
        grouped = defaultdict(list)
        for symbol, minute, price, size in trades:
            grouped[symbol, minute].append((price, size))
        return {
            key: (t[0][0], max(p for p, _ in t), min(p for p, _ in t), t[-1][0], sum(q for _, q in t), len(t))
            for key, t in grouped.items()
        }

    expected = bars(
        (d["product_id"], d["time"][:16], Decimal(d["price"]), Decimal(d["size"]))
        for d in recorded
        if d["type"] == "match"
    )
    found = bars(
        (t.symbol, f"{t.timestamp:%Y-%m-%dT%H:%M}", t.price, t.quantity)
        for t in of_kind(whole, TradeExecutedFrame)
    )
    assert len(expected) > 8
    assert found == expected


def test_the_last_statistics_of_each_product_are_those_of_its_trades(whole: Any) -> None:
    trades, last = defaultdict(list), {}
    for _, event in whole[1]:
        if isinstance(event, TradeExecutedFrame):
            trades[event.data.symbol].append(event.data)
        elif isinstance(event, MarketStatsFrame):
            seen = trades[event.data.symbol]
            volume = sum(t.quantity for t in seen)
            last[event.data.symbol] = event.data
            assert event.data.trade_count == len(seen)
            assert (event.data.open, event.data.close, event.data.volume) == (
                seen[0].price,
                seen[-1].price,
                volume,
            )
            assert (event.data.high, event.data.low) == (max(t.price for t in seen), min(t.price for t in seen))
            exact = sum(t.price * t.quantity for t in seen) / volume
            assert event.data.vwap == exact.quantize(Decimal("1e-8"))
    assert last.keys() == trades.keys()


def test_the_books_and_quotes_of_the_capture_equal_naive_ones(whole: Any, recorded: Any) -> None:
    naive: dict[str, tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]]] = {}
    states = defaultdict(list)
    for d in recorded:
        if d["type"] == "snapshot":
            sides = (d["bids"], d["asks"])
            naive[d["product_id"]] = tuple({Decimal(p): Decimal(q) for p, q in side} for side in sides)
        elif d["type"] == "l2update":
            for side, price, size in d["changes"]:
                naive[d["product_id"]][side == "sell"][Decimal(price)] = Decimal(size)
        else:
            continue
        bids, asks = naive[d["product_id"]]
        top_bids = sorted(((p, q) for p, q in bids.items() if q), reverse=True)[:20]
        states[d["product_id"]].append((top_bids, sorted((p, q) for p, q in asks.items() if q)[:20]))

    books, quotes = defaultdict(list), defaultdict(list)
    for book in of_kind(whole, OrderBookSnapshotFrame):
        books[book.symbol].append(
            ([(x.price, x.quantity) for x in book.bids], [(x.price, x.quantity) for x in book.asks])
        )
        assert book.sequence_number is None
    for quote in of_kind(whole, QuoteUpdateFrame):
        quotes[quote.symbol].append(((quote.best_bid, quote.best_bid_size), (quote.best_ask, quote.best_ask_size)))
        assert quote.spread == quote.best_ask - quote.best_bid > 0
    assert books.keys() == quotes.keys() == states.keys()
    for symbol, moments in states.items():
        tops = [(bids[0], asks[0]) for bids, asks in moments]
        changes = [top for n, top in enumerate(tops) if n == 0 or top != tops[n - 1]]
        assert quotes[symbol] == changes
        later = iter(moments)
        assert all(any(book == moment for moment in later) for book in books[symbol]), "each book, in order"
    assert sum(map(len, books.values())) > 1_000


def test_the_venues_own_ticker_agrees_with_the_rebuilt_quotes(whole: Any, recorded: Any) -> None:
    """The ticker is computed by the venue at a match; the channels are not aligned to the microsecond."""
    quoted = {(q.symbol, q.best_bid, q.best_ask) for q in of_kind(whole, QuoteUpdateFrame)}
    tickers = [d for d in recorded if d["type"] == "ticker"]
    agreeing = [d for d in tickers if (d["product_id"], Decimal(d["best_bid"]), Decimal(d["best_ask"])) in quoted]
    assert len(agreeing) >= 0.9 * len(tickers)


def test_a_trade_removed_from_the_capture_is_a_gap_and_ends_the_products_book(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = CAPTURE.read_text().splitlines()
    removed, following = (
        n for n, line in enumerate(lines) if '"trade_id":1568270,' in line or '"trade_id":1568271,' in line
        if '"type":"match"' in line
    )  # fmt: skip
    (tmp_path / "c").write_text("\n".join(lines[:removed] + lines[removed + 1 :]))
    replay = CoinbaseReplay(tmp_path / "c")
    events = [json.loads(frame)["data"] for _, frame in replay.events()]
    assert (replay.counts.gaps, replay.counts.missing, replay.counts.bad_lines) == (1, 1, 0)
    assert (
        "SKL-USD: 1 trades are missing after trade 1568269; no order book until the next snapshot" in caplog.text
    )
    trades = [e for e in events if "trade_id" in e]
    assert len(trades) == 96
    gap_at = json.loads(lines[following].partition(": ")[2])["time"]
    late = [e for e in events if ("bids" in e or "best_bid" in e) and e["timestamp"] > gap_at]
    assert {e["symbol"] for e in late} == set(replay.symbols) - {"SKL-USD"}
