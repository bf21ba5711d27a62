"""Dead letters of flows that commit elsewhere than to Kafka.

In: records with the reason they were refused. Out: their bytes, unchanged, on dlq.processing, with headers that
say where they came from. :meth:`DeadLetters.send` returns when Kafka has them, so that a caller can count them
as handled; after a crash before that they are sent again: a letter may arrive twice, it is never lost.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from dataflows.metrics import FLOW_DEAD_LETTERS
from dataflows.settings import StreamSettings
from dataflows.topics import DLQ_PROCESSING, Stopped

if TYPE_CHECKING:  # flows without tables must not pay a second and 80 MB for what writes them
    from lakehouse.frames import Rejected

log = logging.getLogger(__name__)

MAX_ERROR_CHARS = 1000
"""A reason may quote the record; the record itself is the value."""


def letter_headers(
    error: str, stage: str, topic: str, partition: int | str, offset: int | str, failed_at_ns: int
) -> list[tuple[str, bytes]]:
    """Headers of a dead letter: why it was refused, by which part, where it came from, when (ns since 1970)."""
    said = {
        "error": error[:MAX_ERROR_CHARS],
        "stage": stage,
        "source_topic": topic,
        "source_partition": partition,
        "source_offset": offset,
        "failed_at": failed_at_ns,
    }
    return [(name, str(value).encode()) for name, value in said.items()]


class DeadLetters:
    """Writes refused records to dlq.processing."""

    def __init__(self, settings: StreamSettings, stage: str, stop: threading.Event) -> None:
        """``stage`` is the part that refuses, for the header; ``stop`` ends waiting for a broker that is away."""
        self._producer = Producer(
            {
                **settings.kafka(),
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 5,
                "compression.type": "lz4",
            },
            logger=log,
        )
        self._stage = stage
        self._stop = stop
        self._failure: KafkaError | None = None

    def send(self, letters: Sequence[Rejected], failed_at: datetime) -> None:
        """Write ``letters`` and wait until they are acknowledged.

        Raises:
            Stopped: the process was asked to stop before they were.
            KafkaException: the broker refuses them.
        """
        failed_at_ns = round(failed_at.timestamp() * 1e6) * 1000
        for letter in letters:
            self._produce(letter, failed_at_ns)
        while self._producer.flush(1.0):
            log.warning("dead letters wait for Kafka")
            if self._stop.is_set():
                raise Stopped
        if self._failure is not None:
            raise KafkaException(self._failure)
        FLOW_DEAD_LETTERS.labels(self._stage).inc(len(letters))
        log.warning("%d records refused, the first: %s", len(letters), _described(letters[0]))

    def _produce(self, letter: Rejected, failed_at_ns: int) -> None:
        headers = letter_headers(
            letter.error, self._stage, letter.topic, letter.partition, letter.offset, failed_at_ns
        )
        while True:
            try:
                self._producer.produce(
                    DLQ_PROCESSING,
                    value=letter.value,
                    key=letter.key,
                    headers=headers,
                    on_delivery=self._delivered,
                )
            except BufferError:  # the local queue is full: make room
                self._producer.poll(0.5)
                if self._stop.is_set():
                    raise Stopped from None
            else:
                return

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._failure = error


def _described(letter: Rejected) -> str:
    return f"{letter.topic}/{letter.partition}@{letter.offset}: {letter.error[:200]}"
