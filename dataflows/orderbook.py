"""The orderbook flow: raw.orderbook-snapshots → processed.orderbook. Run with ``python -m dataflows.orderbook``.

In: book snapshots. Out: for each, best prices and sizes, spread, mid, microprice, depth and imbalance of the top
5; keyed by symbol; null where a side is empty. What is no snapshot goes to dlq.processing.

On a crash: an output is known by the offset of its snapshot, so each is in the topic exactly once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import bytewax.operators as op
import msgspec
from bytewax.dataflow import Dataflow, Stream
from bytewax.operators import KeyedStream

from dataflows.frames import REFUSED, FrameError, encode, event_time, units
from dataflows.kafka import Frames, KafkaSource
from dataflows.run import run
from dataflows.settings import StreamSettings
from dataflows.sink import DeadLetter, KafkaSink, Output, dead_letter, is_dead
from dataflows.topics import DLQ_PROCESSING, PROCESSED_ORDERBOOK, RAW_ORDERBOOK_SNAPSHOTS
from simulator.events import format_timestamp

FLOW = "orderbook"
TOP = 5


class Level(msgspec.Struct, frozen=True, gc=False):
    price: Decimal
    quantity: Decimal


class Book(msgspec.Struct, frozen=True):
    symbol: str
    bids: list[Level]
    """Best (highest) first."""
    asks: list[Level]
    """Best (lowest) first."""
    timestamp: datetime | None = None
    sequence: int | None = None
    sequence_number: int | None = None


class BookFrame(msgspec.Struct, frozen=True):
    data: Book
    timestamp: datetime | None = None


_BOOK = msgspec.json.Decoder(BookFrame)


def build(settings: StreamSettings, stop: threading.Event) -> Dataflow:
    """source → figures of each book | dead letters → sinks"""
    flow = Dataflow(FLOW)
    frames = op.input("books", flow, KafkaSource([RAW_ORDERBOOK_SNAPSHOTS], settings, flow=FLOW, stop=stop))
    rows, letters = op_measure(frames)
    op.output("rows", rows, KafkaSink(PROCESSED_ORDERBOOK, settings, flow=FLOW, stop=stop))
    op.output("letters", letters, KafkaSink(DLQ_PROCESSING, settings, flow=FLOW, stop=stop))
    return flow


def op_measure(frames: Stream[Frames]) -> tuple[KeyedStream[Output | DeadLetter], KeyedStream[DeadLetter]]:
    """Frames of raw.orderbook-snapshots → keyed rows, keyed dead letters."""
    split = op.branch("refused", op.flat_map("measure", frames, process), is_dead)
    return split.falses, split.trues


def process(frames: Frames) -> Iterable[tuple[str, Output | DeadLetter]]:
    """One output, or one dead letter, for each frame."""
    for index, (offset, frame) in enumerate(zip(frames.offsets, frames.values, strict=True)):
        try:
            book, time_us = decode_book(frame)
        except FrameError as error:
            yield dead_letter(FLOW, frames, index, str(error), time.time_ns())
        else:
            value = encode(figures(book, time_us))
            yield book.symbol, Output(book.symbol, value, frames.origin, offset, time_us)


def decode_book(frame: bytes) -> tuple[Book, int]:
    """A book and its event time in µs.

    Raises:
        FrameError: not a book snapshot, or an amount of the levels that count is none, see
            :func:`dataflows.frames.units`.
    """
    try:
        decoded = _BOOK.decode(frame)
    except REFUSED as error:
        raise FrameError(str(error)) from error
    for level in (*decoded.data.bids[:TOP], *decoded.data.asks[:TOP]):
        units(level.price)
        units(level.quantity)
    return decoded.data, event_time(decoded.data.timestamp, decoded.timestamp)


def figures(book: Book, time_us: int) -> dict[str, Any]:
    """The fields of processed.orderbook.

    spread_bps is spread / mid in 1e-4. The microprice weighs each best price with the size of the other side
    (Gatheral and Oomen, 2010). Imbalance is (bids - asks) / (bids + asks) of the depths, from -1 to 1.
    """
    bid, ask = next(iter(book.bids), None), next(iter(book.asks), None)
    depth_bid, depth_ask = _depth(book.bids), _depth(book.asks)
    spread = spread_bps = mid = microprice = None
    if bid is not None and ask is not None:
        spread = ask.price - bid.price
        mid = (ask.price + bid.price) / 2
        spread_bps = _rounded(spread / mid * 10_000, 4)
        sizes = bid.quantity + ask.quantity
        microprice = _rounded((ask.price * bid.quantity + bid.price * ask.quantity) / sizes, 8)
    return {
        "symbol": book.symbol,
        "timestamp": format_timestamp(time_us),
        "sequence_number": book.sequence if book.sequence_number is None else book.sequence_number,
        "best_bid": bid and bid.price,
        "best_bid_size": bid and bid.quantity,
        "best_ask": ask and ask.price,
        "best_ask_size": ask and ask.quantity,
        "spread": spread,
        "spread_bps": spread_bps,
        "mid": mid,
        "microprice": microprice,
        "bid_depth_5": depth_bid,
        "ask_depth_5": depth_ask,
        "imbalance": _rounded((depth_bid - depth_ask) / (depth_bid + depth_ask), 6)
        if depth_bid + depth_ask
        else None,
        "bid_levels": len(book.bids),
        "ask_levels": len(book.asks),
    }


def _depth(levels: Sequence[Level]) -> Decimal:
    return sum((level.quantity for level in levels[:TOP]), Decimal(0))


def _rounded(value: Decimal, decimals: int) -> Decimal:
    """Half to even."""
    return round(value, decimals)


def main() -> None:
    settings = StreamSettings()
    run(build, settings, metrics_port=settings.orderbook_metrics_port)


if __name__ == "__main__":
    main()
