from __future__ import annotations

import asyncio
import time

import pytest
from prometheus_client import CollectorRegistry

from simulator.faults import Faults
from simulator.journal import Journal, JournalReader
from simulator.market import DataQuality
from simulator.metrics import ExchangeMetrics
from simulator.publisher import Publisher

START = 1_771_425_000_000_000


def wall() -> int:
    return time.monotonic_ns() // 1000


@pytest.fixture
def publish(tmp_path, feed):
    """Publishes pairs; returns the journal's frames, (clock, last sequence) after each block, and the registry."""

    def run(pairs, *, speed, start_us=None, clock=wall, rates=None):
        registry = CollectorRegistry()
        journal = Journal(tmp_path / "journal", max_bytes=1 << 30)
        try:
            session = journal.open_session(feed(pairs), keep_all=True)
            blocks: list[tuple[int, int]] = []
            publisher = Publisher(
                feed(pairs),
                journal,
                ExchangeMetrics(registry),
                Faults(rates or DataQuality(), 1),
                clock=clock,
                speed=speed,
                start_us=start_us,
                on_published=lambda: blocks.append((clock(), session.last_sequence)),
            )
            asyncio.run(asyncio.wait_for(publisher.run(), 20))
            lines = JournalReader(session, 1).read(1 << 24).splitlines()
        finally:
            journal.close()
        return lines, blocks, registry

    return run


def test_at_speed_zero_everything_is_published_at_once(publish, frames):
    pairs = [(START + n * 3_600_000_000, frame) for n, frame in enumerate(frames(1, 2_345))]
    began = time.monotonic()
    lines, blocks, registry = publish(pairs, speed=0)
    assert time.monotonic() - began < 5
    assert lines == frames(1, 2_345)
    assert len(blocks) == 5, "in blocks, with a chance for clients between them"
    assert registry.get_sample_value("tickhouse_exchange_feed_finished") == 1
    assert registry.get_sample_value("tickhouse_exchange_sequence") == 2_345
    assert registry.get_sample_value("tickhouse_exchange_events_total", {"event_type": "MarketStats"}) == 2_345
    last = registry.get_sample_value("tickhouse_service_last_event_timestamp_seconds")
    assert last == pytest.approx(pairs[-1][0] / 1e6)


@pytest.mark.parametrize("speed", [1.0, 4.0])
def test_a_frame_is_never_early_and_soon_after_it_is_due(publish, frames, speed):
    gap = 40_000
    pairs = [(START + int(n * gap * speed), frame) for n, frame in enumerate(frames(1, 12))]
    start_us = wall()
    _, blocks, _ = publish(pairs, speed=speed, start_us=start_us)
    assert blocks[-1][1] == 12
    assert len(blocks) > 3, "the frames did not come all at once"
    delays = [at - (start_us + (sequence - 1) * gap) for at, sequence in blocks]
    assert min(delays) >= 0
    assert sorted(delays)[len(delays) // 2] < 200_000, "generous: the machine may be busy"


def test_a_market_that_was_asleep_catches_up_and_skips_nothing(publish, frames):
    # The clock is an hour ahead of the start from the first look on.
    start_us = wall()
    pairs = [(START + n * 1_000_000, frame) for n, frame in enumerate(frames(1, 3_000))]
    began = time.monotonic()
    lines, _, _ = publish(pairs, speed=1, start_us=start_us, clock=lambda: wall() + 3_600_000_000)
    assert lines == frames(1, 3_000)
    assert time.monotonic() - began < 5


def test_a_continued_session_writes_only_what_is_new(publish, frames):
    pairs = [(START + n, frame) for n, frame in enumerate(frames(1, 700))]
    publish(pairs[:600], speed=0)
    lines, blocks, registry = publish(pairs, speed=0)
    assert lines == frames(1, 700)
    assert [sequence for _, sequence in blocks] == [700]
    assert registry.get_sample_value("tickhouse_exchange_events_total", {"event_type": "MarketStats"}) == 100


def test_a_finished_session_that_is_continued_says_where_it_stands(publish, frames):
    pairs = [(START + n, frame) for n, frame in enumerate(frames(1, 30))]
    publish(pairs, speed=0)
    lines, blocks, registry = publish(pairs, speed=0)
    assert (len(lines), blocks) == (30, [])
    assert registry.get_sample_value("tickhouse_exchange_sequence") == 30
    assert registry.get_sample_value("tickhouse_exchange_feed_finished") == 1
    last = registry.get_sample_value("tickhouse_service_last_event_timestamp_seconds")
    assert last == pytest.approx(pairs[-1][0] / 1e6)


def test_faults_are_counted_but_the_journal_stays_perfect(publish, frames):
    pairs = [(START + n, frame) for n, frame in enumerate(frames(1, 1_000))]
    lines, _, registry = publish(pairs, speed=0, rates=DataQuality(missing_data_rate=0.1))
    assert lines == frames(1, 1_000)
    assert 60 < registry.get_sample_value("tickhouse_exchange_faults_total", {"kind": "missing"}) < 140


def test_traded_quantity_is_summed(publish):
    frame = b'{"event_type":"TradeExecuted","data":{"sequence":%d,"price":61800.20,"quantity":%s}}'
    pairs = [(START, frame % (1, b"0.006")), (START, frame % (2, b"10"))]
    _, _, registry = publish(pairs, speed=0)
    assert registry.get_sample_value("tickhouse_exchange_trade_quantity_total") == pytest.approx(10.006)


def test_a_feed_that_prints_an_unknown_event_is_stopped(publish):
    with pytest.raises(ValueError, match="no known event type"):
        publish([(START, b'{"event_type":"Rumour","data":{}}')], speed=0)
