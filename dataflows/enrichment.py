"""The enrichment flow: raw.trades + dim_symbol → processed.trades. Run with ``python -m dataflows.enrichment``.

In: trade frames, and the current rows of dimensions.dim_symbol, looked at again every half minute. Out: each trade
with company_name, sector, market_cap_category and notional, keyed by symbol; "Unknown" for a symbol that the
dimension does not have. What is no trade goes to dlq.processing.

On a crash: an output is known by the offset of its trade, so each is in the topic exactly once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping

import bytewax.operators as op
from bytewax.dataflow import Dataflow, Stream
from bytewax.operators import KeyedStream
from pyiceberg.exceptions import NoSuchTableError

from dataflows.frames import FrameError, decode_trade, encode, number, units
from dataflows.kafka import Frames, KafkaSource
from dataflows.run import run
from dataflows.settings import StreamSettings
from dataflows.sink import DeadLetter, KafkaSink, Output, dead_letter, is_dead
from dataflows.topics import DLQ_PROCESSING, PROCESSED_TRADES, RAW_TRADES
from lakehouse.catalog import open_catalog
from lakehouse.dimensions.dim_symbol import current_symbols
from lakehouse.settings import LakehouseSettings
from simulator.events import format_timestamp

log = logging.getLogger(__name__)

FLOW = "enrichment"
UNKNOWN = "Unknown"
FIRST_LOAD_S = 15.0
"""How long the flow waits at its start for a dimension that is not there yet."""

Symbols = Mapping[str, tuple[str, str, str]]
"""symbol → company name, sector, market cap category"""


class SymbolReference(threading.Thread):
    """The current dim_symbol, read in the background: the stream never waits for the lakehouse.

    Args:
        read: reads the dimension; empty when there is none yet.
    """

    def __init__(self, read: Callable[[], Symbols], refresh_s: float, stop: threading.Event) -> None:
        super().__init__(name="symbol-reference", daemon=True)
        self._read = read
        self._refresh_s = refresh_s
        self._ended = stop
        self._loaded = threading.Event()
        self.symbols: Symbols = {}
        """Replaced as a whole by each read."""

    def wait_until_loaded(self, seconds: float) -> None:
        if not self._loaded.wait(seconds):
            log.warning("dimensions.dim_symbol is not there yet: trades are marked %r until it is", UNKNOWN)

    def run(self) -> None:
        pause = 1.0
        while True:
            try:
                found = self._read()
            except Exception:  # the catalog may be away for any reason of its own; what was read last stays valid
                log.exception("dimensions.dim_symbol could not be read; trying again in %.0f s", self._refresh_s)
            else:
                if found:
                    self.symbols = found
                    self._loaded.set()
                    pause = self._refresh_s
            if self._ended.wait(pause):
                return


def read_dim_symbol(settings: LakehouseSettings) -> Symbols:
    """The dimension's current rows; empty when the table does not exist or has none."""
    try:
        rows = current_symbols(open_catalog(settings))
    except NoSuchTableError:
        return {}
    return {symbol: (info.company_name, info.sector, info.market_cap_category) for symbol, info in rows.items()}


def build(settings: StreamSettings, stop: threading.Event) -> Dataflow:
    """source → enriched trades | dead letters → sinks"""
    lakehouse = LakehouseSettings()
    reference = SymbolReference(lambda: read_dim_symbol(lakehouse), settings.dimension_refresh_seconds, stop)
    reference.start()
    reference.wait_until_loaded(FIRST_LOAD_S)

    flow = Dataflow(FLOW)
    frames = op.input("trades", flow, KafkaSource([RAW_TRADES], settings, flow=FLOW, stop=stop))
    rows, letters = op_enrich(frames, lambda: reference.symbols)
    op.output("rows", rows, KafkaSink(PROCESSED_TRADES, settings, flow=FLOW, stop=stop))
    op.output("letters", letters, KafkaSink(DLQ_PROCESSING, settings, flow=FLOW, stop=stop))
    return flow


def op_enrich(
    frames: Stream[Frames], symbols: Callable[[], Symbols]
) -> tuple[KeyedStream[Output | DeadLetter], KeyedStream[DeadLetter]]:
    """Frames of raw.trades → keyed enriched trades, keyed dead letters."""
    enriched = op.flat_map("enrich", frames, lambda item: process(item, symbols()))
    split = op.branch("refused", enriched, is_dead)
    return split.falses, split.trues


def process(frames: Frames, symbols: Symbols) -> Iterable[tuple[str, Output | DeadLetter]]:
    """One output, or one dead letter, for each frame."""
    for index, (offset, frame) in enumerate(zip(frames.offsets, frames.values, strict=True)):
        try:
            symbol, value, time_us = enrich(frame, symbols)
        except FrameError as error:
            yield dead_letter(FLOW, frames, index, str(error), time.time_ns())
        else:
            yield symbol, Output(symbol, value, frames.origin, offset, time_us)


def enrich(frame: bytes, symbols: Symbols) -> tuple[str, bytes, int]:
    """symbol, message of processed.trades, event time in µs. Notional is price x quantity, exactly.

    Raises:
        FrameError: not a trade, or an amount that is not exact in units of 1e-8.
    """
    trade, time_us = decode_trade(frame)
    price, quantity = units(trade.price), units(trade.quantity)
    company, sector, category = symbols.get(trade.symbol, (UNKNOWN, UNKNOWN, UNKNOWN))
    head = encode(
        {
            "event_id": trade.event_id,
            "timestamp": format_timestamp(time_us),
            "sequence": trade.sequence,
            "trade_id": trade.trade_id,
            "symbol": trade.symbol,
            "buy_order_id": trade.buy_order_id,
            "sell_order_id": trade.sell_order_id,
            "buyer_agent_id": trade.buyer_agent_id,
            "seller_agent_id": trade.seller_agent_id,
            "is_aggressive_buy": trade.is_aggressive_buy,
            "company_name": company,
            "sector": sector,
            "market_cap_category": category,
        }
    )
    amounts = f',"price":{number(price)},"quantity":{number(quantity)},"notional":{number(price * quantity, 16)}}}'
    return trade.symbol, head[:-1] + amounts.encode(), time_us


def main() -> None:
    settings = StreamSettings()
    run(build, settings, metrics_port=settings.enrichment_metrics_port)


if __name__ == "__main__":
    main()
