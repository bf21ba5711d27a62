"""The source and the sink against a real broker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.recovery import RecoveryConfig
from bytewax.testing import TestingSource, run_main
from confluent_kafka import KafkaError, KafkaException, Message

from dataflows.kafka import Frames, KafkaSource, until_broker_answers
from dataflows.metrics import FLOW_MESSAGES, SERVICE_READY
from dataflows.run import recovery_store
from dataflows.settings import StreamSettings
from dataflows.sink import KafkaSink, Output

pytestmark = pytest.mark.integration


class _Collect(StatelessSinkPartition[Frames]):
    def __init__(self, batches: list[Frames], stop: threading.Event, count: int) -> None:
        self._batches, self._stop, self._count = batches, stop, count

    def write_batch(self, items: list[Frames]) -> None:
        self._batches += items
        if sum(len(batch.values) for batch in self._batches) >= self._count:
            self._stop.set()


class Collect(DynamicSink[Frames]):
    """Collects messages, and stops the flow at a number of messages."""

    def __init__(self, count: int) -> None:
        self.batches: list[Frames] = []
        self.stop = threading.Event()
        self._count = count

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Collect:
        return _Collect(self.batches, self.stop, self._count)

    def values(self) -> list[bytes]:
        return [value for batch in self.batches for value in batch.values]


def read(topic: str, settings: StreamSettings, count: int, start: Any = None) -> Collect:
    """Run a flow until it has ``count`` messages; its recovery store is kept between calls."""
    sink = Collect(count)
    flow = Dataflow("test_source")
    source = KafkaSource([topic], settings, flow="test", stop=sink.stop, start=start)
    op.output("out", op.input("in", flow, source), sink)
    store = recovery_store(settings.data_dir / "recovery" / "test_source")
    run_main(flow, epoch_interval=timedelta(seconds=1), recovery_config=RecoveryConfig(store))
    return sink


def test_a_source_reads_all_partitions_in_order_and_resumes_behind_what_it_read(
    topic: str, stream_settings: StreamSettings, produce: Callable[..., None]
) -> None:
    for i in range(100):
        produce(topic, b"%d" % i, f"key{i % 9}", flush=i == 99)
    first = read(topic, stream_settings, 100)
    assert sorted(map(int, first.values())) == list(range(100))
    for number in (0, 1):
        offsets = [o for batch in first.batches if batch.partition == number for o in batch.offsets]
        values = [int(v) for batch in first.batches if batch.partition == number for v in batch.values]
        assert offsets == list(range(len(offsets)))
        assert values == sorted(values)
    for i in range(100, 120):
        produce(topic, b"%d" % i, f"key{i % 9}", flush=i == 119)
    assert sorted(map(int, read(topic, stream_settings, 20).values())) == list(range(100, 120))


def test_a_start_offset_overrides_the_recovery_store(
    topic: str, stream_settings: StreamSettings, produce: Callable[..., None]
) -> None:
    for i in range(10):
        produce(topic, b"%d" % i, "key", flush=i == 9)
    read(topic, stream_settings, 10)
    again = read(topic, stream_settings, 4, start=lambda *_: 6)
    assert [int(value) for value in again.values()] == [6, 7, 8, 9]


def test_an_offset_beyond_the_end_is_reported_and_reading_goes_on_at_the_end(
    topic: str, stream_settings: StreamSettings, produce: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    produce(topic, b"lost", "key", flush=True)
    timer = threading.Timer(1.0, lambda: produce(topic, b"new", "key", flush=True))
    timer.start()
    assert read(topic, stream_settings, 1, start=lambda *_: 999).values() == [b"new"]
    timer.join()
    assert "the broker lost messages" in caplog.text


def test_a_source_that_reads_is_ready_also_when_a_sink_had_to_wait_for_the_broker(
    topic: str, stream_settings: StreamSettings
) -> None:
    stop = threading.Event()
    part = KafkaSource([topic], stream_settings, flow="test", stop=stop).build_part("in", f"{topic}/0", None)
    passing = (KafkaError._TRANSPORT, KafkaError.FENCED_LEADER_EPOCH, KafkaError._DESTROY_BROKER)
    outages = [KafkaException(KafkaError(code)) for code in passing]

    def ask() -> None:
        if outages:
            raise outages.pop()

    until_broker_answers(ask, stop)
    assert ready() == 0
    part.next_batch()
    assert ready() == 1
    part.close()
    assert ready() == 0


def ready() -> float:
    return next(iter(SERVICE_READY.collect())).samples[0].value


def write(topic: str, settings: StreamSettings, items: list[Any]) -> None:
    """Run a flow that writes; its recovery store is kept between calls."""
    flow = Dataflow("test_sink")
    stream = op.input("in", flow, TestingSource(items))
    op.output("out", stream, KafkaSink(topic, settings, flow="test", stop=threading.Event()))
    store = recovery_store(settings.data_dir / "recovery" / "test_sink")
    run_main(flow, epoch_interval=timedelta(0), recovery_config=RecoveryConfig(store))


def output(origin: str, version: int) -> tuple[str, Output]:
    return origin, Output(origin, f"{origin}{version}".encode(), origin, version, 1)


def values(messages: list[Message]) -> list[str]:
    return sorted(message.value().decode() for message in messages)


@pytest.mark.parametrize("abort_at", [1, 3, 6])
def test_what_an_aborted_flow_repeats_is_written_once(
    abort_at: int, topic: str, stream_settings: StreamSettings, read_topic: Callable[..., list[Message]]
) -> None:
    items: list[Any] = [output(origin, version) for version in range(1, 4) for origin in ("a", "b", "c")]
    items.insert(abort_at, TestingSource.ABORT())
    write(topic, stream_settings, items)
    write(topic, stream_settings, items)
    assert values(read_topic(topic)) == ["a1", "a2", "a3", "b1", "b2", "b3", "c1", "c2", "c3"]


def test_without_a_snapshot_everything_that_was_written_is_left_out(
    topic: str, stream_settings: StreamSettings, read_topic: Callable[..., list[Message]], tmp_path: Path
) -> None:
    write(topic, stream_settings, [output("a", 1), output("a", 2)])
    fresh = stream_settings.model_copy(update={"data_dir": tmp_path / "other"})
    write(topic, fresh, [output("a", 1), output("a", 2), output("a", 3)])
    assert values(read_topic(topic)) == ["a1", "a2", "a3"]


def test_a_record_says_what_it_derives_from(
    topic: str, stream_settings: StreamSettings, read_topic: Callable[..., list[Message]]
) -> None:
    write(topic, stream_settings, [output("a", 7)])
    (message,) = read_topic(topic)
    assert (message.key(), dict(message.headers())) == (b"a", {"origin": b"a", "version": b"7"})


def test_nothing_is_fetched_while_a_partition_has_something_to_take(
    topic: str, stream_settings: StreamSettings, produce: Callable[..., None]
) -> None:
    """A partition without messages would else fetch those of the others, as many as there are."""
    for i in range(1_000):
        produce(topic, b"%d" % i, "key", flush=i == 999)
    settings = stream_settings.model_copy(update={"source_batch": 10})
    fetched = FLOW_MESSAGES.labels("bounded", topic)._value
    source = KafkaSource([topic], settings, flow="bounded", stop=threading.Event())
    parts = [source.build_part("in", name, None) for name in source.list_parts()]
    taken = [0, 0]
    while sum(taken) < 1_000:
        for number in (0, 0, 1, 1, taken.index(min(taken))):
            taken[number] += sum(len(frames.values) for frames in parts[number].next_batch())
            assert fetched.get() - sum(taken) <= 10
    parts[0].close()
    assert sorted(taken) == [0, 1_000]
