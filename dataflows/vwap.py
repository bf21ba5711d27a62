"""The vwap flow: raw.trades → windows → processed.vwap. Run with ``python -m dataflows.vwap``.

In: trade frames. Out: one row for each window that closed (1m, 5m, 15m, 5m/1m), and one with a higher revision for
each correction; keyed ``symbol|window|window_start``, so a compacted topic keeps the newest. What is no trade,
comes later than a window is kept, or is of a time that has not come yet goes to dlq.processing. A copy of a trade
that the wire has doubled is counted and left out.

A shard is a partition of raw.trades: Kafka has placed the symbols by their hash, and within a partition the order
is the same at every reading. So a flow that resumes after a crash makes the same rows with the same revisions, and
the sink leaves out those that are written already: each row is in the topic exactly once.

The one thing that depends on the clock is the early publication of open windows when a shard falls silent. It is
decided first and published only after a snapshot has recorded the decision.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

import bytewax.operators as op
from bytewax.dataflow import Dataflow, Stream
from bytewax.operators import KeyedStream, StatefulBatchLogic

from dataflows.frames import encode, number
from dataflows.kafka import Frames, KafkaSource
from dataflows.metrics import DUPLICATE_TRADES, FLOW_WATERMARK, LATE_TRADES
from dataflows.run import run
from dataflows.settings import StreamSettings
from dataflows.sink import DeadLetter, KafkaSink, Output, dead_letter, is_dead
from dataflows.tape import TapeDecoder
from dataflows.topics import DLQ_PROCESSING, PROCESSED_VWAP, RAW_TRADES
from dataflows.windows import WINDOWS, Bar, ShardState, ShardWindows, Window
from simulator.events import format_timestamp

FLOW = "vwap"
SETTLE = timedelta(seconds=2)
"""From an early publication's decision to its emission: twice the time between snapshots."""

Keyed = tuple[str, Output | DeadLetter]
Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


def build(settings: StreamSettings, stop: threading.Event) -> Dataflow:
    """source → windows of each shard → rows | dead letters → sinks"""
    flow = Dataflow(FLOW)
    frames = op.input("trades", flow, KafkaSource([RAW_TRADES], settings, flow=FLOW, stop=stop))
    rows, letters = op_windows(frames, settings)
    op.output("rows", rows, KafkaSink(PROCESSED_VWAP, settings, flow=FLOW, stop=stop))
    op.output("letters", letters, KafkaSink(DLQ_PROCESSING, settings, flow=FLOW, stop=stop))
    return flow


def op_windows(
    frames: Stream[Frames],
    settings: StreamSettings,
    clock: Clock = utc_now,
    windows: Sequence[Window] = WINDOWS,
) -> tuple[KeyedStream[Output | DeadLetter], KeyedStream[DeadLetter]]:
    """Frames of raw.trades → keyed rows, keyed dead letters."""

    def logic(state: VwapState | None) -> VwapLogic:
        return VwapLogic(settings, clock, state, windows)

    by_shard = op.key_on("shard", frames, lambda item: str(item.partition))
    merged = op.stateful_batch("windows", by_shard, logic)
    split = op.branch("refused", op.map("keyed", merged, lambda item: item[1]), is_dead)
    return split.falses, split.trues


class VwapState(NamedTuple):
    windows: ShardState
    pending: tuple[Bar, ...]


class VwapLogic(StatefulBatchLogic[Frames, Keyed, VwapState]):
    """The windows of one shard, and when to publish open ones early."""

    def __init__(
        self, settings: StreamSettings, clock: Clock, state: VwapState | None, windows: Sequence[Window] = WINDOWS
    ) -> None:
        self._clock = clock
        self._decoder = TapeDecoder()
        self._watermark = FLOW_WATERMARK.labels(FLOW)
        self._idle = timedelta(seconds=settings.idle_close_seconds)
        self._windows = ShardWindows(
            settings.window_keep_seconds // 60, round(settings.window_ahead_seconds * 1e6), windows
        )
        self._pending: tuple[Bar, ...] = ()
        """Early publications that were decided and wait for a snapshot."""
        self._recorded = False
        self._last_data = self._decided = clock()
        self._changed = False
        if state is not None:
            self._windows.restore(state.windows)
            self._pending = state.pending
            self._changed = True

    def on_batch(self, values: list[Frames]) -> tuple[Iterable[Keyed], bool]:
        self._last_data = self._clock()
        self._windows.withdraw(self._pending)  # overtaken: they will be emitted with a higher revision
        self._pending = ()
        self._changed = True
        outputs: list[Keyed] = []
        late, duplicates = self._windows.late, self._windows.duplicates
        for frames in values:
            outputs += self._process(frames)
        LATE_TRADES.inc(self._windows.late - late)
        DUPLICATE_TRADES.inc(self._windows.duplicates - duplicates)
        self._watermark.set(max(0, self._windows.watermark) / 1e6)
        return outputs, self.RETAIN

    def _process(self, frames: Frames) -> list[Keyed]:
        trades, reasons = self._decoder.decode(frames.values)
        bars, refused = self._windows.add(trades, frames.written_ms)
        outputs: list[Keyed] = [*self._rows(bars)]
        reasons |= refused
        now_ns = time.time_ns()
        outputs += [dead_letter(FLOW, frames, index, reasons[index], now_ns) for index in sorted(reasons)]
        return outputs

    def notify_at(self) -> datetime | None:
        if self._pending:
            return self._decided + SETTLE if self._recorded else self._clock() + SETTLE / 4
        return self._last_data + self._idle if self._changed else None

    def on_notify(self) -> tuple[Iterable[Keyed], bool]:
        now = self._clock()
        if self._pending:
            if self._recorded and now >= self._decided + SETTLE:
                bars, self._pending = self._pending, ()
                return self._rows(bars), self.RETAIN
        elif now >= self._last_data + self._idle:
            self._pending = tuple(self._windows.publish_open())
            self._changed = False
            self._recorded, self._decided = False, now
        return (), self.RETAIN

    def snapshot(self) -> VwapState:
        if not self._recorded:
            self._recorded, self._decided = True, self._clock()
        return VwapState(self._windows.snapshot(), self._pending)

    def _rows(self, bars: Sequence[Bar]) -> list[Keyed]:
        if not bars:
            return []
        computed_at = format_timestamp(round(self._clock().timestamp() * 1e6))
        return [row(bar, computed_at) for bar in bars]


_stamp = lru_cache(maxsize=256)(format_timestamp)
"""Windows of all symbols begin and end at the same few times."""


def row(bar: Bar, computed_at: str) -> tuple[str, Output]:
    """A bar as a message of processed.vwap: JSON with exact numbers."""
    start = _stamp(bar.start)
    key = f"{bar.symbol}|{bar.window}|{start}"
    value = (
        f'{{"symbol":{encode(bar.symbol).decode()},"window":"{bar.window}","window_start":"{start}",'
        f'"window_end":"{_stamp(bar.end)}","open":{number(bar.open)},"high":{number(bar.high)},'
        f'"low":{number(bar.low)},"close":{number(bar.close)},"volume":{number(bar.volume)},'
        f'"notional":{number(bar.notional, 16)},"vwap":{number(bar.vwap)},"trade_count":{bar.trades},'
        f'"buy_volume":{number(bar.buy_volume)},"sell_volume":{number(bar.sell_volume)},'
        f'"revision":{bar.revision},"computed_at":"{computed_at}"}}'
    )
    return key, Output(key, value.encode(), key, bar.revision, bar.last_event)


def main() -> None:
    settings = StreamSettings()
    run(build, settings, metrics_port=settings.vwap_metrics_port)


if __name__ == "__main__":
    main()
