"""Bytewax source and sink for Kafka that move batches, not messages.

In: topics, read through one consumer a flow; a source item is a :class:`Frames`, consecutive messages of one
partition. Out: :class:`Output` records, written by an idempotent producer.

On a crash: the recovery store has, of one and the same moment, the next offset of every partition read, the
operators' state, and the end of every partition written. A resumed sink reads back what was written after that
moment and leaves out exactly that when the flow emits it again; so nothing is lost and nothing doubled.
While the broker is away both sides wait, with a log line, and go on where they were.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from dataflows import librdkafka
from dataflows.metrics import FLOW_LAG, FLOW_MESSAGES, SERVICE_READY
from dataflows.settings import StreamSettings
from dataflows.topics import Stopped
from lakehouse.texts import Integers, Keys

log = logging.getLogger(__name__)

T = TypeVar("T")

StartOffset = Callable[[str, int], int | None]
"""(topic, partition) → the first offset to read; None leaves it to the recovery store, else the beginning."""

POLL_BLOCK_S = 0.02
"""How long an idle flow blocks for the first message: bounds the delay of timers, and how often it wakes."""
POLL_INTERVAL_S = 0.015
"""Pause after a small fetch. At 500 messages/s a flow takes 5 % of a core with it and 13 % at 5 ms, because a
wake-up of Bytewax costs about 0.5 ms; it adds 7 ms of latency on average."""
_LAG_INTERVAL_S = 1.0
_BROKER_TIMEOUT_S = 5.0
_UNSEEN_MAX_S = 20.0
"""Brokers give up one of them after 4 to 9 s of silence; another writer may have something on its way for ever."""


class Frames(NamedTuple):
    """Consecutive messages of one partition, in order."""

    topic: str
    partition: int
    offsets: Sequence[int]
    """They may have gaps (compaction)."""
    values: Sequence[bytes]
    """An empty one for a tombstone."""
    keys: Sequence[bytes | None]
    written_ms: Sequence[int] | Integers
    """Kafka's timestamps; -1 where a message has none."""
    received_us: Sequence[int] | Integers = ()
    """When the bridge received each, µs since the epoch; -1 where no header says so, or nobody asked."""

    @property
    def origin(self) -> str:
        return f"{self.topic}/{self.partition}"


class KafkaSource(FixedPartitionedSource[Frames, int]):
    """Every partition of some topics, from the recovery store's offsets, ``start``'s, or the beginning.

    Args:
        topics: they must exist (:func:`dataflows.topics.ensure_topics`).
        flow: name in metrics and logs.
        stop: when it is set the source ends, and Bytewax takes a last snapshot.
        start: overrides the recovery store; for a flow that keeps its offsets elsewhere.
        received: whether the flow wants to know when the bridge received a message.
    """

    def __init__(
        self,
        topics: Sequence[str],
        settings: StreamSettings,
        *,
        flow: str,
        stop: threading.Event,
        start: StartOffset | None = None,
        received: bool = False,
    ) -> None:
        self._topics = topics
        self._settings = settings
        self._stop = stop
        self._start = start
        self._reader = _Reader(settings, flow, stop, received=received)

    def list_parts(self) -> list[str]:
        admin = AdminClient(self._settings.kafka(), logger=log)
        return [
            f"{topic}/{number}"
            for topic in self._topics
            for number in range(partition_count(admin, topic, self._stop))
        ]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _SourcePartition:  # noqa: ARG002
        topic, _, number = for_part.rpartition("/")
        given = self._start(topic, int(number)) if self._start else None
        return _SourcePartition(
            self._reader, topic, int(number), resume_state if given is None else given, self._stop
        )


class _SourcePartition(StatefulSourcePartition[Frames, int]):
    def __init__(
        self, reader: _Reader, topic: str, number: int, offset: int | None, stop: threading.Event
    ) -> None:
        self._reader = reader
        self._key = (topic, number)
        self._stop = stop
        self._next_offset = reader.assign(topic, number, offset)
        self._awake: datetime | None = None

    def next_batch(self) -> Iterable[Frames]:
        if self._stop.is_set():
            raise StopIteration
        batch = self._reader.take(self._key)
        self._awake = self._reader.next_awake()
        if batch is None:
            return ()
        self._next_offset = batch.offsets[-1] + 1
        return (batch,)

    def next_awake(self) -> datetime | None:
        return self._awake

    def snapshot(self) -> int:
        return self._next_offset

    def close(self) -> None:
        self._reader.close()


class _Reader:
    """One consumer shared by the partitions of a source.

    A consumer for each partition would be the obvious way; at 28 partitions it is 28 connections that poll an
    idle broker. Memory stays bounded: a fetch happens only when all of the one before has been taken.
    """

    def __init__(self, settings: StreamSettings, flow: str, stop: threading.Event, *, received: bool) -> None:
        self._settings = settings
        self._flow = flow
        self._stop = stop
        self._received = received
        self._consumer: librdkafka.Consumer | None = None
        self._queues: dict[tuple[str, int], deque[Frames]] = {}
        self._queued = 0
        """Frames in all of them."""
        self._positions: dict[tuple[str, int], int] = {}
        self._next_poll = 0.0
        self._next_lag = 0.0
        self._away = False

    def assign(self, topic: str, number: int, offset: int | None) -> int:
        """Start reading; returns the offset of the first message that will come, at the least."""
        position = self._valid(topic, number, offset)
        self._queues[topic, number] = deque()
        self._positions[topic, number] = position
        self._connected().assign(topic, number, position)
        return position

    def take(self, key: tuple[str, int]) -> Frames | None:
        """The next batch of a partition, or None when there is nothing now. Blocks ≤ 20 ms, only when idle."""
        if not self._queued and time.monotonic() >= self._next_poll:
            self._fetch()
        queue = self._queues[key]
        if not queue:
            return None
        self._queued -= 1
        return queue.popleft()

    def next_awake(self) -> datetime:
        """When asking again is worth it."""
        pause = 0.0 if self._queued else max(0.0, self._next_poll - time.monotonic())
        return datetime.now(UTC) + timedelta(seconds=pause)

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
            SERVICE_READY.set(0)

    def _connected(self) -> librdkafka.Consumer:
        if self._consumer is None:
            self._consumer = librdkafka.Consumer(
                {
                    "group.id": f"tickhouse-{self._flow}",  # required, but never joined
                    "client.id": f"tickhouse-{self._flow}",
                    "enable.auto.commit": False,
                    "enable.auto.offset.store": False,
                    # an offset that is gone is our business: starting over would count messages twice
                    "auto.offset.reset": "error",
                    "fetch.min.bytes": 16_384,  # with the wait: ≤ 50 fetches a second when little happens
                    "fetch.wait.max.ms": 20,
                    "receive.message.max.bytes": 1_000_000_000,  # some brokers ignore fetch limits
                    "queued.min.messages": 10_000,
                    "fetch.queue.backoff.ms": 5,  # default 1 s: after a full queue the flow would starve
                    "queued.max.messages.kbytes": 4_096,
                    **self._settings.kafka(),
                },
                self._broker_error,
                log,
            )
        return self._consumer

    def _broker_error(self, code: int) -> None:
        if code == KafkaError._ALL_BROKERS_DOWN and not self._away:
            self._away = True
            SERVICE_READY.set(0)
            log.warning("Kafka is away (%s); waiting for it", self._settings.kafka_bootstrap)

    def _look_for_broker(self, consumer: librdkafka.Consumer) -> None:
        """A broker that is back may have nothing to send: ask it."""
        try:
            consumer.bounds(*next(iter(self._positions)), timeout_s=0.5)
        except KafkaException as error:
            log.debug("still away: %s", error)
        else:
            self._away = False
            log.info("Kafka is back")

    def _valid(self, topic: str, number: int, offset: int | None) -> int:
        """Clamp an offset to what the broker has, and say so."""
        low, high = until_broker_answers(
            lambda: self._connected().bounds(topic, number, _BROKER_TIMEOUT_S), self._stop
        )
        if offset is None:
            return low
        if offset > high:
            log.error(
                "%s/%d ends at offset %d, but %d was already read: the broker lost messages or the topic was"
                " made anew. Reading on from %d; delete the data folder to start over.",
                *(topic, number, high, offset, high),
            )
            return high
        if offset < low:
            log.error(
                "%s/%d begins at offset %d, but reading stopped at %d: retention removed %d messages unread.",
                *(topic, number, low, offset, low - offset),
            )
            return low
        return offset

    def _fetch(self) -> None:
        consumer = self._connected()
        limit = self._settings.source_batch
        columns, errors = consumer.consume(limit, POLL_BLOCK_S, received=self._received)
        now = time.monotonic()
        count = len(columns.offset)
        self._next_poll = now if count > limit // 8 else now + POLL_INTERVAL_S
        for error in errors:
            self._judge(error)
        for frames in _by_partition(consumer, columns):
            self._queues[frames.topic, frames.partition].append(frames)
            self._queued += 1
            self._positions[frames.topic, frames.partition] = frames.offsets[-1] + 1
            FLOW_MESSAGES.labels(self._flow, frames.topic).inc(len(frames.values))
        if now >= self._next_lag:
            self._next_lag = now + _LAG_INTERVAL_S
            self._measure_lag(consumer)
            if self._away:
                self._look_for_broker(consumer)
            # said again each second: whoever waited for the broker in between (a sink at its start) has unsaid it
            SERVICE_READY.set(0 if self._away else 1)

    def _judge(self, error: KafkaError) -> None:
        """Raises KafkaException for what waiting cannot mend."""
        # An offset that is gone while reading is among these: the next start says so, and where it reads on.
        if error.code() not in PASSING:
            raise KafkaException(error)
        log.warning("Kafka: %s; trying again", error.str())

    def _measure_lag(self, consumer: librdkafka.Consumer) -> None:
        lag: dict[str, int] = {}
        for (topic, number), position in self._positions.items():
            queued = sum(len(batch.values) for batch in self._queues[topic, number])
            lag[topic] = lag.get(topic, 0) + max(0, consumer.end(topic, number) - position) + queued
        for topic, messages in lag.items():
            FLOW_LAG.labels(self._flow, topic).set(messages)


def _by_partition(consumer: librdkafka.Consumer, columns: librdkafka.Columns) -> Iterator[Frames]:
    """The messages as they follow one another, apart where the partition changes."""
    if not len(columns.offset):
        return
    changes = np.flatnonzero((np.diff(columns.topic) != 0) | (np.diff(columns.partition) != 0)) + 1
    values, keys = columns.values, Keys(columns.keys, columns.keyless)
    for begin, end in pairwise([0, *changes.tolist(), len(values)]):
        offsets = columns.offset[begin:end]
        first, last = offsets[0].item(), offsets[-1].item()
        yield Frames(
            consumer.topic(columns.topic[begin].item()),
            columns.partition[begin].item(),
            range(first, last + 1) if last - first + 1 == len(offsets) else offsets.tolist(),
            values.part(begin, end),
            keys.part(begin, end),
            columns.written_ms[begin:end],
            columns.received_us[begin:end],
        )


PASSING = {
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._RESOLVE,
    KafkaError._DESTROY_BROKER,  # of several brokers, the client let go of the one that died
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.OFFSET_NOT_AVAILABLE,
}
"""Errors that a broker's restart, or its death among several, brings and takes away again."""


def partition_count(client: AdminClient | Consumer, topic: str, stop: threading.Event) -> int:
    """How many partitions a topic has; a broker that is away is waited for.

    Raises:
        KafkaException: there is no such topic.
        Stopped: ``stop`` was set while waiting.
    """

    def count() -> int:
        found = client.list_topics(topic, timeout=_BROKER_TIMEOUT_S).topics[topic]
        if found.error is not None:
            raise KafkaException(found.error)
        return len(found.partitions)

    return until_broker_answers(count, stop)


def settled_bounds(
    consumer: Consumer, admin: AdminClient, topic: str, number: int, stop: threading.Event
) -> tuple[int, int]:
    """First and end offset of a partition, when every copy of it has what a writer that died had sent.

    A record that the leader has, and another broker that counts has not, is not shown to anybody. When that broker
    died too this lasts until it no longer counts, for seconds; then the record appears. Kafka tells of it in one
    way only: of the newest record, by timestamp, it does not say the offset.

    Raises:
        KafkaException: the partition cannot be read.
        Stopped: ``stop`` was set while waiting.
    """
    partition = TopicPartition(topic, number)

    def shows_all() -> bool:
        found = admin.list_topics(topic, timeout=_BROKER_TIMEOUT_S).topics[topic].partitions[number]
        if len(found.replicas) < 2:
            return True
        newest = admin.list_offsets({partition: OffsetSpec.max_timestamp()}, request_timeout=_BROKER_TIMEOUT_S)
        return bool(newest[partition].result().offset >= 0)

    deadline = time.monotonic() + _UNSEEN_MAX_S
    while True:
        all_shown = until_broker_answers(shows_all, stop)
        low, high = until_broker_answers(
            lambda: consumer.get_watermark_offsets(partition, timeout=_BROKER_TIMEOUT_S), stop
        )
        if all_shown or low == high:
            return low, high
        if time.monotonic() > deadline:
            log.warning("%s/%d: somebody else writes to it; what is on its way may come twice", topic, number)
            return low, high
        if stop.wait(0.1):
            raise Stopped


def until_broker_answers(ask: Callable[[], T], stop: threading.Event) -> T:
    """Ask until there is an answer; a broker that is away is waited for, anything else raises KafkaException."""
    wait = 0.2
    while True:
        try:
            return ask()
        except KafkaException as error:
            if error.args[0].code() not in PASSING:
                raise
            SERVICE_READY.set(0)
            log.warning("Kafka: %s; trying again in %.1f s", error.args[0].str(), wait)
        if stop.wait(wait):
            raise Stopped
        wait = min(wait * 2, 5.0)
