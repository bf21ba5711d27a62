"""What the bridge has given to Kafka, and what of it is acknowledged.

In: blocks of frames, each with its topic and partition; Kafka's report for the last one of each partition. Out:
how many frames are pending, where the partitions end, and the failure that ends the bridge.

Kafka keeps the order of a partition, and with ``enable.gapless.guarantee`` the producer breaks down rather than
leave one out; so the report for a frame holds for all before it. A report for each frame would cost as much as
sending it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime

from confluent_kafka import KafkaError, Message

from dataflows import metrics
from dataflows.checkpoint import Offsets
from dataflows.sequences import Sequences
from dataflows.topics import DLQ_RAW, RAW_TOPICS

Place = tuple[str, int]
"""topic, partition"""
Headers = list[tuple[str, bytes]]
"""Their values as bytes: the producer would encode a text anew for each message."""
Send = tuple[Place, datetime | None, bytes, bytes, Headers]
"""where a frame goes, its event time, the frame, its key, its headers"""
OnDelivery = Callable[[KafkaError | None, Message], None]

_PRODUCED = {topic: metrics.BRIDGE_PRODUCED.labels(topic) for topic in RAW_TOPICS} | {DLQ_RAW: metrics.BRIDGE_DLQ}


class Deliveries:
    """Counts frames from the moment they are handed over until they are acknowledged."""

    def __init__(self, ends: Offsets) -> None:
        self.pending = 0
        """Frames sent and not acknowledged."""
        self.failure: KafkaError | None = None
        self.ends = ends
        """Offsets behind everything that is acknowledged."""

    def block(self, sends: Sequence[Send], sequences: Sequences, lowest: int | None) -> list[OnDelivery | None]:
        """Take note of frames that are about to be sent, in this order → what to call for each when it is there.

        ``sequences`` is told that everything from ``lowest`` on is outstanding, until all frames are acknowledged.
        """
        places = [send[0] for send in sends]
        last = dict(zip(places, range(len(places)), strict=True))
        times = {place: sends[number][1] for place, number in last.items()}
        block = _Block(self, Counter(places), times, sequences, lowest)
        reports: list[OnDelivery | None] = [None] * len(sends)
        for number in last.values():
            reports[number] = block.delivered
        self.pending += len(sends)
        if lowest is not None:
            sequences.sent(lowest)
        return reports


class _Block:
    def __init__(
        self,
        deliveries: Deliveries,
        counts: Counter[Place],
        times: dict[Place, datetime | None],
        sequences: Sequences,
        lowest: int | None,
    ) -> None:
        self._deliveries = deliveries
        self._counts = counts
        self._times = times
        self._sequences = sequences
        self._lowest = lowest

    def delivered(self, error: KafkaError | None, message: Message) -> None:
        place = topic, partition = str(message.topic()), int(message.partition() or 0)
        frames = self._counts.pop(place)
        deliveries = self._deliveries
        deliveries.pending -= frames
        if error is not None:
            metrics.BRIDGE_PRODUCE_ERRORS.labels(topic).inc(frames)
            deliveries.failure = error  # the block stays outstanding, so no checkpoint passes it
            return
        end = int(message.offset() or 0) + 1
        ends = deliveries.ends.setdefault(topic, {})
        ends[partition] = max(ends.get(partition, 0), end)
        _PRODUCED[topic].inc(frames)
        event_time = self._times[place]
        if event_time is not None:
            seconds = event_time.timestamp()
            metrics.BRIDGE_LATENCY.observe(max(0.0, time.time() - seconds))
            metrics.LAST_EVENT.set(seconds)
        if not self._counts and self._lowest is not None and deliveries.failure is None:
            self._sequences.delivered(self._lowest)


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key: murmur2, as the Java clients and librdkafka's ``murmur2`` partitioner do it.

    Source: ``org.apache.kafka.common.utils.Utils.murmur2`` (32-bit MurmurHash2, seed 0x9747b28c).
    """
    multiplier, mask = 0x5BD1E995, 0xFFFFFFFF
    whole = len(key) & ~3
    digest = 0x9747B28C ^ len(key)
    for place in range(0, whole, 4):
        word = int.from_bytes(key[place : place + 4], "little") * multiplier & mask
        word = (word ^ word >> 24) * multiplier & mask
        digest = (digest * multiplier & mask) ^ word
    if whole < len(key):
        digest = (digest ^ int.from_bytes(key[whole:], "little")) * multiplier & mask
    digest = (digest ^ digest >> 13) * multiplier & mask
    digest ^= digest >> 15
    return (digest & 0x7FFFFFFF) % partitions
