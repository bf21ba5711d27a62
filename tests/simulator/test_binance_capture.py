"""simulator.replay on a whole recorded Binance capture, against figures taken from the file itself."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterator
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
from simulator.recorded.binance import BinanceReplay

CAPTURE = Path(__file__).parents[3] / "shared/data/usdm_btcusdt_20240808.gz"
pytestmark = pytest.mark.skipif(not CAPTURE.exists(), reason=f"recorded capture {CAPTURE.name} is not here")


def capture_lines() -> Iterator[dict[str, Any]]:
    with gzip.open(CAPTURE, "rt") as file:
        for line in file:
            yield json.loads(line.partition(" ")[2])


@pytest.fixture(scope="module")
def whole() -> tuple[BinanceReplay, list[tuple[int, MarketEvent]]]:
    replay = BinanceReplay(CAPTURE)
    return replay, [(time_us, parse_frame(frame)) for time_us, frame in replay.events()]


def test_every_line_of_the_capture_becomes_a_valid_frame(whole: Any) -> None:
    replay, events = whole
    assert (replay.exchange, replay.symbols) == ("BINANCE-USDM", ["BTCUSDT"])
    assert replay.counts.lines == 93_954
    assert (replay.counts.bad_lines, replay.counts.zero_trades, replay.counts.gaps) == (0, 0, 0)
    assert sum(isinstance(event, TradeExecutedFrame) for _, event in events) == 21_313
    assert sum(isinstance(event, QuoteUpdateFrame) for _, event in events) == 66_089
    assert replay.counts.frames == len(events)
    assert [event.data.sequence for _, event in events] == list(range(1, len(events) + 1))
    assert all(int(event.data.timestamp.timestamp() * 1e6) == time_us for time_us, event in events)


def test_every_trade_of_the_capture_is_the_venues_in_its_order(whole: Any) -> None:
    expected = [
        (f"BINANCE-USDM-BTCUSDT-{d['t']}", Decimal(d["p"]), Decimal(d["q"]), not d["m"], d["T"])
        for d in (line.get("data", {}) for line in capture_lines())
        if d.get("e") == "trade"
    ]
    replayed = [
        (
            data.trade_id,
            data.price,
            data.quantity,
            data.is_aggressive_buy,
            round(data.timestamp.timestamp() * 1000),
        )
        for data in (event.data for _, event in whole[1] if isinstance(event, TradeExecutedFrame))
    ]
    assert replayed == expected


def test_the_books_of_the_capture_equal_a_naive_book(whole: Any) -> None:
    books = {e.data.sequence_number: e.data for _, e in whole[1] if isinstance(e, OrderBookSnapshotFrame)}
    assert len(books) > 3_000  # 345 s, one each 100 ms
    bids: dict[Decimal, Decimal] = {}
    asks: dict[Decimal, Decimal] = {}
    waiting: list[dict[str, Any]] = []
    synchronised, compared = False, 0
    for line in capture_lines():
        if "lastUpdateId" in line:
            bids = {Decimal(p): Decimal(q) for p, q in line["bids"]}
            asks = {Decimal(p): Decimal(q) for p, q in line["asks"]}
            synchronised = True
            due = [diff for diff in waiting if diff["u"] >= line["lastUpdateId"]]
        elif line["data"]["e"] == "depthUpdate":
            due = [line["data"]] if synchronised else []
            waiting.append(line["data"])
        else:
            continue
        for diff in due:
            for side, key in ((bids, "b"), (asks, "a")):
                side.update((Decimal(p), Decimal(q)) for p, q in diff[key])
        if due and due[-1]["u"] in books:
            compared += 1
            if compared % 20 == 0:
                book = books[due[-1]["u"]]
                top_bids = sorted(((p, q) for p, q in bids.items() if q), reverse=True)[:20]
                top_asks = sorted((p, q) for p, q in asks.items() if q)[:20]
                assert [(level.price, level.quantity) for level in book.bids] == top_bids
                assert [(level.price, level.quantity) for level in book.asks] == top_asks
    assert compared == len(books)


def test_the_last_statistics_of_the_capture_are_those_of_its_trades(whole: Any) -> None:
    trades = [event.data for _, event in whole[1] if isinstance(event, TradeExecutedFrame)]
    stats = [event.data for _, event in whole[1] if isinstance(event, MarketStatsFrame)]
    assert 340 <= len(stats) <= 350
    seen = trades[: stats[-1].trade_count]
    assert len(trades) - len(seen) < 200
    volume = sum(t.quantity for t in seen)
    assert (stats[-1].open, stats[-1].close, stats[-1].volume) == (seen[0].price, seen[-1].price, volume)
    assert (stats[-1].high, stats[-1].low) == (max(t.price for t in seen), min(t.price for t in seen))
    assert stats[-1].vwap == (sum(t.price * t.quantity for t in seen) / volume).quantize(Decimal("1e-8"))


def books_of(path: Path, lines: list[str]) -> tuple[list[int], BinanceReplay]:
    """Update ids of the books that these lines give."""
    path.write_text("\n".join(lines))
    replay = BinanceReplay(path)
    printed = [json.loads(frame) for _, frame in replay.events()]
    return [e["data"]["sequence_number"] for e in printed if e["event_type"] == "OrderBookSnapshot"], replay


def test_one_difference_removed_from_the_capture_is_a_gap_and_ends_its_books(tmp_path: Path) -> None:
    with gzip.open(CAPTURE, "rt") as file:
        lines = [line.rstrip("\n") for line in itertools.islice(file, 6_000)]
    start = next(n for n, line in enumerate(lines) if "lastUpdateId" in line)
    differences = [n for n, line in enumerate(lines) if n > start and '"depthUpdate"' in line]
    removed = differences[len(differences) // 2]
    before = json.loads(lines[differences[len(differences) // 2 - 1]].partition(" ")[2])["data"]["u"]
    whole_books, _ = books_of(tmp_path / "w", lines)
    books, replay = books_of(tmp_path / "c", [*lines[:removed], *lines[removed + 1 :]])
    assert (replay.counts.gaps, replay.counts.bad_lines, replay.counts.book_resyncs) == (1, 0, 0)
    expected = [update_id for update_id in whole_books if update_id <= before]
    assert books == expected
    assert len(expected) < len(whole_books)
