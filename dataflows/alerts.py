"""The alerts flow: raw.trades, raw.quotes, raw.trading-halts → alerts.price.

Run with ``python -m dataflows.alerts``. In: trades, quotes, halts. Out: price moves, volume spikes, wide spreads,
halts and resumes (rules: :mod:`dataflows.alert_rules`), keyed by symbol. What cannot be read goes to
dlq.processing.

On a crash: rules look at event time and at one partition in its order, and their state is in the recovery store.
So a resumed flow makes the same alerts again, and the sink leaves out those that are written: each is there once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

import bytewax.operators as op
import msgspec
from bytewax.dataflow import Dataflow, Stream
from bytewax.operators import KeyedStream, StatefulBatchLogic

from dataflows.alert_rules import Alert, Halts, Prices, Spreads, Volumes
from dataflows.frames import FrameError, decode_halt, decode_quote, decode_trade, encode, units
from dataflows.kafka import Frames, KafkaSource
from dataflows.run import run
from dataflows.settings import StreamSettings
from dataflows.sink import DeadLetter, KafkaSink, Output, dead_letter, is_dead
from dataflows.topics import ALERTS_PRICE, DLQ_PROCESSING, RAW_QUOTES, RAW_TRADES, RAW_TRADING_HALTS

FLOW = "alerts"
_ALERTS_A_MESSAGE = 16
"""Room for the alerts of one message in its version; a message can raise two."""

Keyed = tuple[str, Output | DeadLetter]


def build(settings: StreamSettings, stop: threading.Event) -> Dataflow:
    """source → rules of each partition → alerts | dead letters → sinks"""
    flow = Dataflow(FLOW)
    topics = [RAW_TRADES, RAW_QUOTES, RAW_TRADING_HALTS]
    frames = op.input("market", flow, KafkaSource(topics, settings, flow=FLOW, stop=stop))
    alerts, letters = op_alerts(frames)
    op.output("alerts", alerts, KafkaSink(ALERTS_PRICE, settings, flow=FLOW, stop=stop))
    op.output("letters", letters, KafkaSink(DLQ_PROCESSING, settings, flow=FLOW, stop=stop))
    return flow


def op_alerts(frames: Stream[Frames]) -> tuple[KeyedStream[Output | DeadLetter], KeyedStream[DeadLetter]]:
    """Frames of the three topics → keyed alerts, keyed dead letters."""
    by_partition = op.key_on("partition", frames, lambda item: item.origin)
    raised = op.stateful_batch("rules", by_partition, AlertLogic)
    split = op.branch("refused", op.map("keyed", raised, lambda item: item[1]), is_dead)
    return split.falses, split.trues


class AlertState(msgspec.Struct):
    """The rules' state of one partition, by symbol."""

    prices: dict[str, Prices] = {}
    volumes: dict[str, Volumes] = {}
    spreads: dict[str, Spreads] = {}
    halts: dict[str, Halts] = {}


_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = msgspec.msgpack.Decoder(AlertState).decode


class AlertLogic(StatefulBatchLogic[Frames, Keyed, bytes]):
    """The rules on one partition."""

    def __init__(self, state: bytes | None) -> None:
        self._state = AlertState() if state is None else _DECODE(state)

    def on_batch(self, values: list[Frames]) -> tuple[Iterable[Keyed], bool]:
        return [item for frames in values for item in self._process(frames)], self.RETAIN

    def _process(self, frames: Frames) -> Iterable[Keyed]:
        rule = self._rules()[frames.topic]
        messages = zip(frames.offsets, frames.values, frames.written_ms, strict=True)
        for index, (offset, frame, written_ms) in enumerate(messages):
            try:
                alerts = rule(frame, written_ms)
            except FrameError as error:
                yield dead_letter(FLOW, frames, index, str(error), time.time_ns())
                continue
            for number, alert in enumerate(alerts):
                yield (
                    alert.symbol,
                    Output(
                        alert.symbol,
                        encode(alert.record()),
                        frames.origin,
                        offset * _ALERTS_A_MESSAGE + number,
                        alert.time_us,
                    ),
                )

    def _rules(self) -> dict[str, Callable[[bytes, int], list[Alert]]]:
        return {RAW_TRADES: self._trade, RAW_QUOTES: self._quote, RAW_TRADING_HALTS: self._halt}

    def _trade(self, frame: bytes, _: int) -> list[Alert]:
        trade, time_us = decode_trade(frame)
        price, quantity = units(trade.price), units(trade.quantity)
        prices = self._state.prices.setdefault(trade.symbol, Prices())
        volumes = self._state.volumes.setdefault(trade.symbol, Volumes())
        return [
            *prices.trade(trade.symbol, time_us, price, trade.event_id),
            *volumes.trade(trade.symbol, time_us, price, quantity, trade.event_id),
        ]

    def _quote(self, frame: bytes, _: int) -> list[Alert]:
        quote, time_us = decode_quote(frame)
        if quote.best_bid is None or quote.best_ask is None:
            return []
        spreads = self._state.spreads.setdefault(quote.symbol, Spreads())
        return spreads.quote(quote.symbol, time_us, units(quote.best_bid), units(quote.best_ask), quote.event_id)

    def _halt(self, frame: bytes, written_ms: int) -> list[Alert]:
        halt, time_us = decode_halt(frame, int(written_ms))
        return self._state.halts.setdefault(halt.data.symbol, Halts()).event(halt, time_us)

    def snapshot(self) -> bytes:
        return _ENCODE(self._state)


def main() -> None:
    settings = StreamSettings()
    run(build, settings, metrics_port=settings.alerts_metrics_port)


if __name__ == "__main__":
    main()
