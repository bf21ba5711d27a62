"""A small market: the exchange's frames, and the bronze rows that the stream makes of them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from dataflows.topics import TABLE_OF_TOPIC, TOPIC_OF_EVENT
from dataflows.wire import decode_exact
from lakehouse.frames import FrameParser, Records
from lakehouse.texts import Keys, Texts
from simulator.exchange import Exchange
from simulator.market import load_market

MIDNIGHT = datetime(2026, 3, 13, tzinfo=UTC)
AFTER = MIDNIGHT + timedelta(days=1, seconds=1)
"""When the day is checked."""


def market_frames(hours: float) -> list[bytes]:
    """What the exchange prints of three symbols that trade little, from midnight on."""
    market = load_market()
    each_minute = {"snapshot_interval_ms": 60_000, "stats_interval_ms": 60_000}
    small = {"symbols": market.symbols[:3], "simulation": market.simulation.model_copy(update=each_minute)}
    exchange = Exchange(
        market.model_copy(update=small),
        seed=1,
        start_us=int(MIDNIGHT.timestamp()) * 1_000_000,
        activity=0.0004,
        duration_us=int(hours * 3_600_000_000),
    )
    return [frame for _, frame in exchange.events()]


def bronze_rows(frames: Iterable[bytes]) -> dict[str, pa.Table]:
    """Rows of every bronze table, as the bridge and the stream make them; what is no frame is left out."""
    of_topic: dict[str, list[bytes]] = {topic: [] for topic in TABLE_OF_TOPIC}
    for frame in frames:
        try:
            event_type, _, _, _ = decode_exact(frame)
        except ValueError:
            continue  # goes to the dead letters
        of_topic[TOPIC_OF_EVENT[event_type]].append(frame)
    rows = {}
    for topic, table in TABLE_OF_TOPIC.items():
        offsets = np.arange(len(of_topic[topic]))
        nothing = np.full(len(offsets), -1)
        records = Records(
            *(topic, np.zeros_like(offsets), offsets, nothing, nothing, Keys.of([None] * len(offsets))),
            Texts.of(of_topic[topic]),
        )
        rows[table], rejected = FrameParser(table).parse(records, AFTER)
        assert not rejected
    return rows
