"""Bytewax sink for Kafka that neither loses nor doubles a record, also over SIGKILL.

In: ``(key, Output)``. Out: messages keyed and placed by the key's CRC-32, each with two headers, ``origin`` and
``version``: what it derives from, and a number that grows within that origin. Both must come out the same when
the flow emits a record again.

On a crash: a snapshot holds, per partition, the end offset that was acknowledged. A resumed sink reads from there
to the partition's end, keeps the highest version of each origin it finds, and leaves out what the flow repeats
up to that version. Without a snapshot it reads the partition from its beginning. What a killed flow had on its way
is waited for (:func:`dataflows.kafka.settled_bounds`). Two that write at the same time would double every record:
:func:`dataflows.run.only_one` refuses the second.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeGuard
from zlib import crc32

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from dataflows.dead_letters import letter_headers
from dataflows.kafka import PASSING, Frames, partition_count, settled_bounds
from dataflows.metrics import FLOW_DEAD_LETTERS, FLOW_LATENCY, FLOW_OUTPUTS, LAST_EVENT, observe_latency
from dataflows.settings import StreamSettings
from dataflows.topics import DLQ_PROCESSING

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 1_040_000
"""Just under the 1 MiB + 12 that a broker takes by default: a frame of the maximal size and its headers fit."""
_STOP_PATIENCE_S = 6.0


class Output(NamedTuple):
    """One record to write."""

    key: str
    value: bytes
    origin: str
    version: int
    event_us: int = 0
    """Event time, µs since the epoch, for the latency metric; 0 = it has none."""
    headers: tuple[tuple[str, bytes], ...] = ()


class DeadLetter(NamedTuple):
    """A record for ``dlq.processing``."""

    output: Output


def dead_letter(flow: str, frames: Frames, index: int, error: str, now_ns: int) -> tuple[str, DeadLetter]:
    """Keyed dead letter for the ``index``-th of ``frames``: its bytes and key, and why and where it failed."""
    offset = frames.offsets[index]
    key = (frames.keys[index] or b"").decode(errors="replace")
    headers = tuple(letter_headers(error, flow, frames.topic, frames.partition, offset, now_ns))
    # a message is refused at most once by a flow, so its offset is version enough
    output = Output(key, frames.values[index], f"{flow}:{frames.origin}", offset, 0, headers)
    return key, DeadLetter(output)


_State = tuple[int, dict[str, int]]
"""Acknowledged end offset; versions found beyond it by an earlier read-back that the flow has not repeated yet."""


class KafkaSink(FixedPartitionedSink[Any, _State]):
    """Writes to one topic, which must exist."""

    def __init__(self, topic: str, settings: StreamSettings, *, flow: str, stop: threading.Event) -> None:
        self._topic = topic
        self._settings = settings
        self._flow = flow
        self._stop = stop
        self._producer: Producer | None = None
        self._consumer: Consumer | None = None
        self._admin: AdminClient | None = None

    def list_parts(self) -> list[str]:
        return [f"{n:04d}" for n in range(partition_count(self._reading(), self._topic, self._stop))]

    def part_fn(self, item_key: str) -> int:
        return crc32(item_key.encode())

    def build_part(self, step_id: str, for_part: str, resume_state: _State | None) -> _SinkPartition:  # noqa: ARG002
        return _SinkPartition(
            self._topic,
            int(for_part),
            resume_state,
            producer=self._writing(),
            consumer=self._reading(),
            admin=self._asking(),
            flow=self._flow,
            stop=self._stop,
        )

    def _writing(self) -> Producer:
        if self._producer is None:
            self._producer = Producer(
                {
                    "client.id": f"tickhouse-{self._flow}",
                    "acks": "all",
                    "enable.idempotence": True,
                    "message.timeout.ms": 0,  # never give up: a broker that is away is waited for
                    "message.max.bytes": MAX_MESSAGE_BYTES,
                    "linger.ms": 3,
                    "compression.type": "lz4",
                    "queue.buffering.max.kbytes": 65_536,
                    **self._settings.kafka(),
                },
                logger=log,
            )
        return self._producer

    def _asking(self) -> AdminClient:
        if self._admin is None:
            self._admin = AdminClient(self._settings.kafka(), logger=log)
        return self._admin

    def _reading(self) -> Consumer:
        if self._consumer is None:
            self._consumer = Consumer(
                {
                    "group.id": f"tickhouse-{self._flow}",  # required, but never joined
                    "enable.auto.commit": False,
                    "enable.auto.offset.store": False,
                    "enable.partition.eof": True,
                    "auto.offset.reset": "earliest",
                    "receive.message.max.bytes": 1_000_000_000,
                    **self._settings.kafka(),
                },
                logger=log,
            )
        return self._consumer


class _SinkPartition(StatefulSinkPartition[Any, _State]):
    def __init__(
        self,
        topic: str,
        number: int,
        resume: _State | None,
        *,
        producer: Producer,
        consumer: Consumer,
        admin: AdminClient,
        flow: str,
        stop: threading.Event,
    ) -> None:
        self._topic = topic
        self._number = number
        self._producer = producer
        self._flow = flow
        self._stop = stop
        self._error: KafkaError | None = None
        self._acknowledged = 0
        self._outputs = FLOW_OUTPUTS.labels(flow, topic)
        self._latency = FLOW_LATENCY.labels(flow)
        self._end, self._written = read_back(consumer, admin, topic, number, resume, stop)

    def write_batch(self, values: Sequence[Output | DeadLetter]) -> None:
        times = []
        for value in values:
            output = value.output if isinstance(value, DeadLetter) else value
            if self._was_written(output):
                continue
            self._produce(output)
            if output.event_us:
                times.append(output.event_us)
        self._producer.poll(0)
        self._raise_failure()
        if times:
            observe_latency(self._latency, time.time(), times)
            LAST_EVENT.set(max(times) / 1e6)
        if self._topic == DLQ_PROCESSING:
            FLOW_DEAD_LETTERS.labels(self._flow).inc(len(values))

    def snapshot(self) -> _State:
        started, say_at = time.monotonic(), 2.0
        while self._producer.flush(0.5):
            self._raise_failure()
            waited = time.monotonic() - started
            if waited > say_at:
                log.warning("Kafka does not acknowledge %s; waiting since %.0f s", self._topic, waited)
                say_at = min(waited * 2, waited + 60)
            if self._stop.is_set() and waited > _STOP_PATIENCE_S:
                raise RuntimeError(
                    f"stopped while Kafka did not acknowledge {len(self._producer)} records of {self._topic};"
                    " they will be written after the next start"
                )
        self._raise_failure()
        self._outputs.inc(self._acknowledged)
        self._acknowledged = 0
        return self._end, dict(self._written)

    def _was_written(self, output: Output) -> bool:
        newest = self._written.get(output.origin)
        if newest is None:
            return False
        if output.version >= newest:
            del self._written[output.origin]
        return output.version <= newest

    def _produce(self, output: Output) -> None:
        headers = [
            ("origin", output.origin.encode()),
            ("version", str(output.version).encode()),
            *output.headers,
        ]
        while True:
            try:
                self._producer.produce(
                    self._topic,
                    output.value,
                    output.key.encode(),
                    self._number,
                    on_delivery=self._delivered,
                    headers=headers,
                )
            except BufferError:
                self._producer.poll(0.1)  # the queue is full: wait for acknowledgements
                self._raise_failure()
                if self._stop.is_set():
                    raise RuntimeError(f"stopped while {self._topic} was not writable") from None
            else:
                return

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._error = error
        else:
            self._end = max(self._end, message.offset() + 1)
            self._acknowledged += 1

    def _raise_failure(self) -> None:
        if self._error is not None:
            raise KafkaException(self._error)


def read_back(
    consumer: Consumer, admin: AdminClient, topic: str, number: int, resume: _State | None, stop: threading.Event
) -> tuple[int, dict[str, int]]:
    """End of a partition, and the highest version of each origin written since a snapshot.

    Raises:
        KafkaException: the partition cannot be read.
    """
    low, high = settled_bounds(consumer, admin, topic, number, stop)
    start, written = (low, {}) if resume is None else (max(low, resume[0]), dict(resume[1]))
    if start >= high:
        return high, written
    consumer.assign([TopicPartition(topic, number, start)])
    position = start
    while position < high:
        for message in consumer.consume(1000, 0.05):  # it waits so long, or for all 1,000
            error = message.error()
            if error is None:
                position = message.offset() + 1
                _remember(written, message)
            elif error.code() == KafkaError._PARTITION_EOF:
                position = max(position, message.offset())
            elif error.code() not in PASSING:
                raise KafkaException(error)
    consumer.unassign()
    log.info("read back %s/%d from offset %d to %d", topic, number, start, high)
    return position, written


def _remember(written: dict[str, int], message: Message) -> None:
    headers = dict(message.headers() or ())
    if "origin" in headers and "version" in headers:
        origin = headers["origin"].decode()
        written[origin] = max(int(headers["version"]), written.get(origin, -1))


def is_dead(item: tuple[str, Output | DeadLetter]) -> TypeGuard[tuple[str, DeadLetter]]:
    """Predicate for ``op.branch``: dead letters one way, outputs the other."""
    return isinstance(item[1], DeadLetter)
