"""Where the bridge resumes: what it has put into Kafka, on disk once a second.

In: the exchange's session, the sequence up to which everything is acknowledged, and offsets of the topics. Out:
the same after a restart, and the events beyond that sequence which are in Kafka all the same.

On a crash: the file is replaced in one move, so it is the old or the new one. Every event beyond its sequence was
written behind its offsets; reading from there to the end finds them all. So of what the exchange sends again the
bridge knows exactly which part is in Kafka, and nothing is lost or doubled. What a killed bridge had handed to the
operating system may reach the log a moment after its death: so the ends are taken when no copy of a partition
lags behind its leader, and they have stood still for SETTLE_S. A broker that holds such a request back for longer,
but answers the new bridge, doubles its frames; only transactions would rule that out, and the development broker
has none.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from dataflows.kafka import PASSING, partition_count, settled_bounds
from dataflows.settings import StreamSettings
from dataflows.topics import Stopped
from dataflows.wire import decode_exact, decode_fast, sequence_in

log = logging.getLogger(__name__)

SETTLE_S = 0.25
"""A broker on this machine takes a request in within milliseconds."""
SETTLE_MAX_S = 5.0
"""Another writer may never let the ends stand still."""

Offsets = dict[str, dict[int, int]]
"""topic → partition → offset"""
Spans = dict[tuple[str, int], tuple[int, int]]
"""(topic, partition) → from and to offset"""


@dataclass(frozen=True)
class Checkpoint:
    session: str
    acknowledged: int
    offsets: Offsets
    """Every event of the session beyond ``acknowledged`` was written at these offsets or behind."""


def load(path: Path) -> Checkpoint | None:
    """The last checkpoint; None before the first.

    Raises:
        ValueError: the file is not one of ours.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    try:
        found = json.loads(text)
        offsets = {
            str(topic): {int(number): int(offset) for number, offset in parts.items()}
            for topic, parts in found["offsets"].items()
        }
        return Checkpoint(str(found["session"]), int(found["acknowledged"]), offsets)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a checkpoint of the bridge ({error!r}); restore it, or remove it to start from the"
            " earliest events that the exchange still has: then some may be in Kafka twice"
        ) from error


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the file; on return it is on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    with draft.open("w") as file:
        json.dump(asdict(checkpoint), file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def read_ends(
    settings: StreamSettings, topics: list[str], checkpoint: Checkpoint | None, stop: threading.Event
) -> tuple[Offsets, Counter[tuple[str, int]]]:
    """End offsets of the topics now, and (session, sequence) of the events written since the checkpoint.

    Raises:
        KafkaException: a topic cannot be read.
        Stopped: ``stop`` was set while the broker was away.
    """
    consumer = Consumer(
        {
            "group.id": "tickhouse-bridge",  # required, but never joined
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "receive.message.max.bytes": 1_000_000_000,
            **settings.kafka(),
        },
        logger=log,
    )
    admin = AdminClient(settings.kafka(), logger=log)
    written: Counter[tuple[str, int]] = Counter()
    try:
        bounds = _bounds(consumer, admin, topics, stop)
        if checkpoint is not None:
            bounds = _settled(consumer, admin, topics, bounds, stop)
            unread = _unread(checkpoint, bounds)
            _read(consumer, unread, written)
    finally:
        consumer.close()
    ends: Offsets = {}
    for (topic, number), (_, high) in bounds.items():
        ends.setdefault(topic, {})[number] = high
    return ends, written


def _bounds(consumer: Consumer, admin: AdminClient, topics: list[str], stop: threading.Event) -> Spans:
    """First and end offset of each partition."""
    return {
        (topic, number): settled_bounds(consumer, admin, topic, number, stop)
        for topic in topics
        for number in range(partition_count(consumer, topic, stop))
    }


def _settled(
    consumer: Consumer, admin: AdminClient, topics: list[str], bounds: Spans, stop: threading.Event
) -> Spans:
    """The bounds when nobody writes any more."""
    for _ in range(int(SETTLE_MAX_S / SETTLE_S)):
        if stop.wait(SETTLE_S):
            raise Stopped
        before, bounds = bounds, _bounds(consumer, admin, topics, stop)
        if before == bounds:
            return bounds
    log.warning("somebody else writes to the raw topics: what a killed bridge sent last may be there twice")
    return bounds


def _unread(checkpoint: Checkpoint, bounds: Spans) -> Spans:
    """What was written since the checkpoint."""
    spans: Spans = {}
    for (topic, number), (low, high) in bounds.items():
        start = checkpoint.offsets.get(topic, {}).get(number, low)  # one added since is new from its beginning
        if start > high:
            log.error(
                "%s/%d ends at offset %d, but %d was acknowledged: the broker lost messages",
                *(topic, number, high, start),
            )
        if max(low, start) < high:
            spans[topic, number] = (max(low, start), high)
    return spans


def _read(consumer: Consumer, unread: Spans, written: Counter[tuple[str, int]]) -> None:
    """Count the events in spans (from, to) of offsets; all at once, or each partition would cost a wait."""
    consumer.assign([TopicPartition(topic, number, start) for (topic, number), (start, _) in unread.items()])
    ends = {place: end for place, (_, end) in unread.items()}
    while ends:
        for message in consumer.consume(1000, 0.05):  # it waits so long, or for all 1,000
            place = (str(message.topic()), int(message.partition() or 0))
            position = message.offset() or 0
            error = message.error()
            if error is None:
                position += 1
                headers = dict(message.headers() or ())
                sequence = _sequence(message.value() or b"")
                if "session" in headers and sequence is not None:
                    written[headers["session"].decode(), sequence] += 1
            elif error.code() in PASSING:
                continue
            elif error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
            if position >= ends.get(place, position + 1):
                del ends[place]
    consumer.unassign()


def _sequence(frame: bytes) -> int | None:
    try:
        return (decode_fast(frame) or decode_exact(frame))[2]
    except ValueError:  # a dead letter
        return sequence_in(frame)
