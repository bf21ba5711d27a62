"""What the exchange says about itself on its Prometheus port.

In: published frames and the comings and goings of clients. Out: counters and gauges, zero after a restart.
Labels come from closed sets: the nine event types, the kinds of faults, the reasons of disconnecting.
"""

from __future__ import annotations

import re
from collections import Counter as Tally
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge

from simulator.events import EVENT_TYPES
from simulator.faults import KINDS

DISCONNECT_REASONS = (
    "client_closed",
    "ping_timeout",
    "slow",
    "fell_behind",
    "sent_data",
    "server_stopping",
    "error",
)

_EVENT_TYPE = re.compile(rb'\s*\{\s*"event_type"\s*:\s*"(\w+)"')
_QUANTITY = re.compile(rb'"quantity"\s*:\s*([0-9.]+)')


class ExchangeMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        events = Counter("tickhouse_exchange_events", "Frames published.", ["event_type"], registry=registry)
        self._events = {name.encode(): events.labels(name) for name in EVENT_TYPES}
        self._traded = Counter("tickhouse_exchange_trade_quantity", "Shares traded.", registry=registry)
        disconnects = Counter(
            "tickhouse_exchange_client_disconnects", "Clients that left.", ["reason"], registry=registry
        )
        self._disconnects = {reason: disconnects.labels(reason) for reason in DISCONNECT_REASONS}
        faults = Counter("tickhouse_exchange_faults", "Frames given a fault.", ["kind"], registry=registry)
        self._faults = {kind: faults.labels(kind) for kind in KINDS}
        self.refused = Counter(
            "tickhouse_exchange_clients_refused", "Connections beyond the limit.", registry=registry
        )
        self.clients = Gauge("tickhouse_exchange_clients", "Clients connected.", registry=registry)
        self.sequence = Gauge("tickhouse_exchange_sequence", "Sequence of the newest frame.", registry=registry)
        self.finished = Gauge("tickhouse_exchange_feed_finished", "1 when the feed has ended.", registry=registry)
        self.ready = Gauge("tickhouse_service_ready", "1 when serving.", registry=registry)
        self.last_event = Gauge(
            "tickhouse_service_last_event_timestamp_seconds", "Event time of the newest frame.", registry=registry
        )

    def published(self, frames: Sequence[bytes], last_sequence: int, last_event_us: int) -> None:
        """Count one block of frames.

        Raises:
            ValueError: a frame that does not start with one of the nine event types.
        """
        tally: Tally[bytes] = Tally()
        traded = 0.0
        for frame in frames:
            match = _EVENT_TYPE.match(frame)
            event_type = match[1] if match else b""
            tally[event_type] += 1
            if event_type == b"TradeExecuted":
                quantity = _QUANTITY.search(frame)
                traded += float(quantity[1]) if quantity else 0.0
        for event_type, count in tally.items():
            if event_type not in self._events:
                raise ValueError(f"the feed printed a frame of no known event type: {event_type!r}")
            self._events[event_type].inc(count)
        self._traded.inc(traded)
        self.sequence.set(last_sequence)
        self.last_event.set(last_event_us / 1e6)

    def faulty(self, kinds: Sequence[str]) -> None:
        for kind in kinds:
            self._faults[kind].inc()

    def disconnected(self, reason: str) -> None:
        self._disconnects[reason].inc()
