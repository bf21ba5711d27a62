"""Shared by the tests of the streams: trades as frames, real service processes, and reading topics."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from dataflows.settings import StreamSettings
from dataflows.topics import ensure_topics
from simulator.events import format_timestamp

ROOT = Path(__file__).resolve().parents[2]


def _trade_frame(
    symbol: str, time_us: int, price: float = 100, quantity: float = 1, sequence: int = 0, **changes: Any
) -> bytes:
    data = {
        "event_id": f"e-{symbol}-{sequence}",
        "timestamp": format_timestamp(time_us),
        "sequence": sequence,
        "trade_id": f"t-{symbol}-{sequence}",
        "symbol": symbol,
        "price": price,
        "quantity": quantity,
        "buy_order_id": "b",
        "sell_order_id": "s",
        "buyer_agent_id": "buyer",
        "seller_agent_id": "seller",
        "is_aggressive_buy": sequence % 2 == 0,
        **changes,
    }
    return json.dumps({"event_type": "TradeExecuted", "data": data}, separators=(",", ":")).encode()


@pytest.fixture(scope="session")
def trade_frame() -> Callable[..., bytes]:
    """(symbol, time_us, price, quantity, sequence, **other fields) → a valid TradeExecuted frame."""
    return _trade_frame


@pytest.fixture
def unique() -> str:
    """A prefix that no other test uses: the broker is shared."""
    return uuid.uuid4().hex[:8].upper()


@pytest.fixture
def stream_settings(broker: str, tmp_path: Path) -> StreamSettings:
    """Settings against the real broker, with the topics there."""
    settings = StreamSettings(kafka_bootstrap=broker, data_dir=tmp_path)
    ensure_topics(settings)
    return settings


@pytest.fixture
def produce(broker: str) -> Iterator[Callable[..., None]]:
    """(topic, value, key) → sent; flushed at once when ``flush`` is given."""
    producer = Producer({"bootstrap.servers": broker, "partitioner": "murmur2", "linger.ms": 1})

    def send(topic: str, value: bytes, key: str, flush: bool = False) -> None:
        producer.produce(topic, value, key)
        producer.poll(0)
        if flush:
            assert producer.flush(20) == 0

    yield send
    assert producer.flush(20) == 0


def _offsets(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """First and end offset; a partition just created has no leader for a moment."""
    deadline = time.monotonic() + 10
    while True:
        try:
            low, high = consumer.get_watermark_offsets(partition, timeout=10)
        except KafkaException:
            if time.monotonic() > deadline:
                raise
        else:
            return low, high


@pytest.fixture
def read_topic(broker: str) -> Iterator[Callable[..., list[Message]]]:
    """topics → all their messages now, those of a partition in order; called again, it reads what came since."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker,
            "group.id": "test",
            "enable.auto.commit": False,
            "receive.message.max.bytes": 1_000_000_000,
            "fetch.wait.max.ms": 10,  # a question for offsets waits for the answer to a fetch
        }
    )
    known: dict[str, list[Message]] = {}
    places: dict[tuple[str, int], int] = {}

    def read(*topics: str) -> list[Message]:
        ends: dict[tuple[str, int], int] = {}
        for topic in topics:
            for number in consumer.list_topics(topic, timeout=10).topics[topic].partitions:
                low, high = _offsets(consumer, TopicPartition(topic, number))
                if places.setdefault((topic, number), low) < high:
                    ends[topic, number] = high
        consumer.assign([TopicPartition(*place, places[place]) for place in ends])
        deadline = time.monotonic() + 30
        while any(places[place] < end for place, end in ends.items()):
            assert time.monotonic() < deadline, f"could not be read to their ends: {ends}, only to {places}"
            for message in consumer.consume(10_000, 0.05):
                assert message.error() is None, message.error()
                places[message.topic(), message.partition()] = message.offset() + 1
                known.setdefault(message.topic(), []).append(message)
        consumer.unassign()
        return [message for topic in topics for message in known.get(topic, ())]

    yield read
    consumer.close()


@pytest.fixture
def count_messages(broker: str) -> Iterator[Callable[[str], int]]:
    """topic → how many messages it has, by its offsets."""
    consumer = Consumer({"bootstrap.servers": broker, "group.id": "test", "enable.auto.commit": False})

    def count(topic: str) -> int:
        numbers = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        offsets = [_offsets(consumer, TopicPartition(topic, number)) for number in numbers]
        return sum(high - low for low, high in offsets)

    yield count
    consumer.close()


@pytest.fixture
def until() -> Callable[..., Any]:
    """(what, condition, seconds) → the first true value of the condition."""

    def wait(what: str, condition: Callable[[], Any], seconds: float = 90) -> Any:
        deadline = time.monotonic() + seconds
        while True:
            value = condition()
            if value:
                return value
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
            time.sleep(0.1)  # between two looks, not instead of one

    return wait


@pytest.fixture
def topic(stream_settings: StreamSettings, unique: str, until: Callable[..., Any]) -> Iterator[str]:
    """A topic of two partitions for this test alone."""
    name = f"test.{unique}"
    admin = AdminClient({"bootstrap.servers": stream_settings.kafka_bootstrap})
    admin.create_topics([NewTopic(name, 2, 1)])[name].result(20)

    def led() -> bool:
        """Of a topic that it has not heard of yet a broker lists no partitions."""
        partitions = admin.list_topics(name).topics[name].partitions.values()
        return len(partitions) == 2 and all(partition.leader >= 0 for partition in partitions)

    until("the topic has leaders", led)
    yield name
    admin.delete_topics([name])[name].result(20)


class Service:
    """``python -m MODULE`` against the test's broker and data directory."""

    def __init__(self, module: str, environment: dict[str, str], log: Path) -> None:
        self._module, self._environment, self.log = module, environment, log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                cwd=ROOT,
                env={**os.environ, **self._environment},
                stdout=output,
                stderr=output,
            )

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def wait(self, seconds: float = 60) -> int:
        """The exit code, once it has ended by itself."""
        assert self._process is not None
        return self._process.wait(timeout=seconds)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self, seconds: float = 10) -> int:
        """SIGTERM; the exit code. Fails when it takes longer."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=seconds)


@pytest.fixture
def service(broker: str, tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """(module, **settings) → a Service that is not started yet; killed at the end of the test."""
    services: list[Service] = []

    def make(module: str, **settings: str) -> Service:
        environment = {"TICKHOUSE_KAFKA_BOOTSTRAP": broker, "TICKHOUSE_DATA_DIR": str(tmp_path)}
        name = module.rpartition(".")[2]
        environment[f"TICKHOUSE_{name.upper()}_METRICS_PORT"] = "0"
        environment |= {f"TICKHOUSE_{key.upper()}": value for key, value in settings.items()}
        services.append(Service(module, environment, tmp_path / f"{name}.log"))
        return services[-1]

    yield make
    for each in services:
        if each.alive():
            each.kill()
