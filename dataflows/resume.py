"""Where a flow that keeps its offsets in Iceberg goes on reading, also when its topic is not what it was.

In: committed offsets and the tables that hold them. Out: the offset to start from, for each partition.

A log that ends before the committed offset was cut (a development broker killed) or its topic was made anew.
What the table and the log agree on is not read again: the flow starts at the first record that differs.
"""

from __future__ import annotations

import json
import logging
import threading
from bisect import bisect_left
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaException, TopicPartition
from pyiceberg.expressions import And, EqualTo
from pyiceberg.table import Table

from dataflows.settings import StreamSettings
from dataflows.topics import Stopped

log = logging.getLogger(__name__)

_TIMEOUT_S = 5.0


def resume_offsets(
    settings: StreamSettings,
    tables: Mapping[str, Table],
    committed: Mapping[str, Mapping[int, int]],
    stop: threading.Event,
) -> dict[tuple[str, int], int]:
    """(topic, partition) → offset to start from; a partition never read is left out.

    Args:
        tables: topic → the table its records are in.
        committed: topic → partition → next offset, from the table's head.

    Raises:
        Stopped: ``stop`` was set while waiting for the broker.
    """
    starts: dict[tuple[str, int], int] = {}
    consumer = Consumer(
        {
            "group.id": "tickhouse-resume",  # required, but never joined
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "receive.message.max.bytes": 1_000_000_000,
            **settings.kafka(),
        },
        logger=log,
    )
    try:
        for topic, partitions in committed.items():
            for number, offset in partitions.items():
                low, high = _log_bounds(consumer, topic, number, stop)
                starts[topic, number] = offset
                if offset > high:
                    starts[topic, number] = _first_difference(
                        consumer, tables[topic], topic, number, low, high, stop
                    )
                    log.error(
                        "%s/%d ends at offset %d, but the lakehouse has read it up to %d: the broker lost "
                        "messages or the topic was made anew. Going on from offset %d, the first that the "
                        "lakehouse does not have.",
                        *(topic, number, high, offset, starts[topic, number]),
                    )
    finally:
        consumer.close()
    return starts


def _log_bounds(consumer: Consumer, topic: str, number: int, stop: threading.Event) -> tuple[int, int]:
    wait = 0.2
    while True:
        try:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_TIMEOUT_S)
        except KafkaException as error:
            log.warning("Kafka: %s; trying again in %.1f s", error.args[0].str(), wait)
        else:
            return low, high
        if stop.wait(wait):
            raise Stopped
        wait = min(wait * 2, 5.0)


def _first_difference(
    consumer: Consumer, table: Table, topic: str, number: int, low: int, high: int, stop: threading.Event
) -> int:
    """First offset of the log whose record is not the table's.

    A cut log begins like the old one and differs from some offset on, so bisection finds it in a few reads; a
    topic made anew differs from its beginning.
    """

    def differs(offset: int) -> bool:
        in_log = _event_id_in_log(consumer, topic, number, offset, stop)
        in_table = (
            table.scan(
                row_filter=And(EqualTo("_kafka_partition", number), EqualTo("_kafka_offset", offset)),  # type: ignore[call-arg,arg-type]
                selected_fields=("event_id",),
            )
            .to_arrow()["event_id"]
            .to_pylist()
        )
        return in_log not in in_table

    return low + bisect_left(range(low, high), True, key=differs)


def _event_id_in_log(
    consumer: Consumer, topic: str, number: int, offset: int, stop: threading.Event
) -> str | None:
    """The event's id at ``offset``, or the next after it; None where the record has none."""
    consumer.assign([TopicPartition(topic, number, offset)])
    while True:
        message = consumer.poll(_TIMEOUT_S)
        if message is not None and message.error() is None:
            break
        if message is not None and not message.error().retriable():
            raise KafkaException(message.error())
        log.warning("%s/%d: waiting for the record at offset %d", topic, number, offset)
        if stop.is_set():
            raise Stopped
    try:
        frame = json.loads(message.value() or b"")
        return str(frame["data"]["event_id"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
