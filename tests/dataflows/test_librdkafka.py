"""librdkafka read in columns, beside confluent_kafka's objects of the same messages."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from dataflows import librdkafka
from dataflows.kafka import Frames, KafkaSource
from dataflows.settings import StreamSettings

pytestmark = pytest.mark.integration

NOW_NS = b"1795702258700811123"
HEADERS: list[list[tuple[str, bytes | None]]] = [
    [],
    [("event_type", b"TradeExecuted"), ("source", b"SIM"), ("received_at", NOW_NS)],
    [("received_at", NOW_NS), ("received_at", b"1")],
    [("received_at", b"9999999999999999999")],
    [("received_at", b"17957022587008111234")],
    [("received_at", b"999")],
    [("received_at", b"")],
    [("received_at", None)],
    [("received_at", b"-1")],
    [("received_at", "٣٣٣٣".encode())],
    [("Received_At", NOW_NS)],
]
RECEIVED_US = [-1, 1795702258700811, 1795702258700811, 9999999999999999, -1, 0, -1, -1, -1, -1, -1]


@pytest.fixture
def written(stream_settings: StreamSettings, topic: str) -> list[Message]:
    """Messages of every shape on the two partitions of ``topic``, as confluent_kafka reads them."""
    producer = Producer({"bootstrap.servers": stream_settings.kafka_bootstrap, "linger.ms": 20})
    for number in range(400):
        producer.produce(
            topic,
            [b"%d" % number, b"", None, b"\0x\xff" * (number % 50)][number % 4],
            [b"key%d" % number, b"", None][number % 3],
            number % 7 // 4,
            timestamp=1_795_702_258_000 + number,
            headers=HEADERS[number % len(HEADERS)],
        )
    assert producer.flush(20) == 0
    consumer = Consumer(properties(stream_settings))
    consumer.assign([TopicPartition(topic, number, 0) for number in (0, 1)])
    messages: list[Message] = []
    while len(messages) < 400:
        messages += consumer.consume(400, 20)
    consumer.close()
    return messages


def properties(settings: StreamSettings) -> dict[str, Any]:
    return settings.kafka() | {"group.id": "test", "auto.offset.reset": "error", "enable.auto.commit": False}


@pytest.fixture
def consumer(stream_settings: StreamSettings) -> Iterator[librdkafka.Consumer]:
    made = librdkafka.Consumer(properties(stream_settings), lambda _code: None, logging.getLogger())
    yield made
    made.close()


def test_columns_hold_what_the_objects_do_byte_for_byte(
    stream_settings: StreamSettings, topic: str, written: list[Message]
) -> None:
    stop = threading.Event()
    source = KafkaSource([topic], stream_settings, flow="test", stop=stop, received=True)
    parts = [source.build_part("in", name, None) for name in source.list_parts()]
    taken: list[Frames] = []
    while sum(len(frames.values) for frames in taken) < len(written):
        taken += [frames for part in parts for frames in part.next_batch()]
    parts[0].close()
    columns = [(frames.topic, frames.partition, *row) for frames in taken for row in zip(*frames[2:], strict=True)]
    assert sorted(columns) == sorted(
        (
            *(message.topic(), message.partition(), message.offset(), message.value() or b"", message.key()),
            *(message.timestamp()[1], RECEIVED_US[(message.timestamp()[1] - 1_795_702_258_000) % len(HEADERS)]),
        )
        for message in written
    )


def test_headers_are_looked_at_only_for_who_wants_to_know(
    consumer: librdkafka.Consumer, topic: str, written: list[Message]
) -> None:
    consumer.assign(topic, 0, 0)
    for received in (False, True):
        columns, errors = consumer.consume(30, 20, received=received)
        assert not errors
        assert len(columns.offset) == 30
        assert (columns.received_us > 0).any() == received
    assert consumer.topic(columns.topic[0].item()) == topic
    assert consumer.bounds(topic, 0, 20) == (0, sum(message.partition() == 0 for message in written))
    assert consumer.end(topic, 0) == consumer.bounds(topic, 0, 20)[1]


def test_what_a_partition_is_in_trouble_with_comes_beside_the_messages(
    consumer: librdkafka.Consumer, topic: str, written: list[Message]
) -> None:
    consumer.assign(topic, 0, 10**9)
    _, (error,) = consumer.consume(10, 20, received=False)
    assert error.code() == KafkaError._AUTO_OFFSET_RESET
    assert error.str().startswith(f"{topic}/0: ")
    assert "Offset out of range" in error.str()
    consumer.assign(topic, 1, 0)
    columns, errors = consumer.consume(10, 20, received=False)
    assert (len(columns.offset), errors) == (10, [])


def test_a_property_that_does_not_exist_is_named(stream_settings: StreamSettings) -> None:
    with pytest.raises(KafkaException, match="no_such"):
        librdkafka.Consumer(properties(stream_settings) | {"no_such": 1}, lambda _code: None, logging.getLogger())


def test_a_broker_that_is_not_there_is_told_of_and_logged(
    stream_settings: StreamSettings, caplog: pytest.LogCaptureFixture, until: Callable[..., Any]
) -> None:
    codes: list[int] = []
    nowhere = properties(stream_settings) | {"bootstrap.servers": "127.0.0.1:1"}
    consumer = librdkafka.Consumer(nowhere, codes.append, logging.getLogger("dataflows.kafka"))
    consumer.assign("topic", 0, 0)

    def told() -> bool:
        consumer.consume(1, 0.1, received=False)
        return KafkaError._ALL_BROKERS_DOWN in codes

    until("the error", told)
    with pytest.raises(KafkaException):
        consumer.bounds("topic", 0, 0.2)
    consumer.close()
    assert "Connection refused" in caplog.text
