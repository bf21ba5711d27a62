"""What only Apache Kafka promises, and this project relies on: durability, compaction, retention, rebalances."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from dataflows.settings import StreamSettings
from dataflows.sink import KafkaSink, Output
from dataflows.topics import PROCESSED_TRADES, PROCESSED_VWAP, RAW_TOPICS, RAW_TRADES, TOPICS, Topic, ensure_topics
from lakehouse.catalog import open_catalog
from lakehouse.dimensions.dim_symbol import read_symbols, seed_dim_symbol
from lakehouse.settings import LakehouseSettings
from lakehouse.tables import create_tables
from tests.brokers import LocalBroker, local_broker

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("apache_kafka")]

DAY_MS = 86_400_000
SOON = {  # the broker looks after its logs several times a second, and not every few minutes
    "log.cleaner.backoff.ms": "200",
    "log.retention.check.interval.ms": "200",
    "log.initial.task.delay.ms": "200",
    "log.segment.delete.delay.ms": "0",
}
SMALL_SEGMENTS = (("segment.ms", "200"), ("min.cleanable.dirty.ratio", "0.01"))


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """Apache Kafka for this module alone: it is killed."""
    with local_broker("kafka", tmp_path_factory.mktemp("own"), SOON) as running:
        yield running


@pytest.fixture
def settings(own_broker: LocalBroker, tmp_path: Path) -> StreamSettings:
    return StreamSettings(kafka_bootstrap=own_broker.address, data_dir=tmp_path)


class Written:
    """A topic of one partition, and the sink that writes to it."""

    def __init__(self, topic: Topic, settings: StreamSettings) -> None:
        ensure_topics(settings, topics=[topic])
        self.topic, self._settings = topic, settings
        sink = KafkaSink(topic.name, settings, flow="test", stop=threading.Event())
        self._part = sink.build_part("out", "0000", None)

    def write(self, key: str, *versions: int) -> int:
        """Returns when the broker has acknowledged all; the end of the partition."""
        self._part.write_batch([Output(key, b"%d" % version, key, version) for version in versions])
        return self._part.snapshot()[0]

    def records(self) -> list[tuple[str, int]]:
        """(key, version) of each that the partition holds now, in order."""
        consumer = self._consumer()
        found: list[tuple[str, int]] = []
        consumer.assign([TopicPartition(self.topic.name, 0, self.first_offset())])
        while True:
            for message in consumer.consume(10_000, 1.0):
                if message.error() is not None:  # its end
                    consumer.close()
                    return found
                found.append((message.key().decode(), int(message.value())))

    def first_offset(self) -> int:
        consumer = self._consumer()
        low, _ = consumer.get_watermark_offsets(TopicPartition(self.topic.name, 0), timeout=10)
        consumer.close()
        return int(low)

    def _consumer(self) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self._settings.kafka_bootstrap,
                "group.id": "test",
                "enable.partition.eof": True,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",  # the first ones may go while they are read
            }
        )


@pytest.fixture
def written(settings: StreamSettings, unique: str) -> Callable[[Topic], Written]:
    """A topic like the one given, with another name and one partition, to write to."""
    return lambda like: Written(replace(like, name=f"test.{unique}", partitions=1), settings)


def test_topics_are_kept_as_long_as_they_are_to_be(settings: StreamSettings) -> None:
    ensure_topics(settings)
    admin = AdminClient(settings.kafka())
    asked = admin.describe_configs([ConfigResource(ResourceType.TOPIC, name) for name in TOPICS])
    configs = {resource.name: config.result(10) for resource, config in asked.items()}
    found = {
        name: (config["cleanup.policy"].value, int(config["retention.ms"].value))
        for name, config in configs.items()
    }
    assert {found[name] for name in RAW_TOPICS} == {("delete", 7 * DAY_MS)}
    assert found["dlq.raw"] == found["dlq.processing"] == ("delete", 90 * DAY_MS)
    assert found[PROCESSED_VWAP][0] == "compact"
    assert int(configs[PROCESSED_VWAP]["segment.ms"].value) == 3_600_000


def test_what_was_acknowledged_survives_the_death_of_the_broker(
    own_broker: LocalBroker, written: Callable[[Topic], Written], until: Callable[..., Any]
) -> None:
    log = written(TOPICS[RAW_TRADES])
    acknowledged: list[int] = []
    stop = threading.Event()

    def write() -> None:
        for version in itertools.count(step=50):
            if stop.is_set():
                break
            log.write("key", *range(version, version + 50))
            acknowledged.extend(range(version, version + 50))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        until("records are acknowledged", lambda: len(acknowledged) > 2000)
        own_broker.kill()
        own_broker.start()
        reached = len(acknowledged) + 500
        until("it goes on", lambda: len(acknowledged) > reached)
    finally:
        stop.set()
        writer.join()
    assert log.records() == [("key", version) for version in acknowledged]


def test_a_compacted_topic_keeps_the_newest_revision_of_each_window(
    written: Callable[[Topic], Written], until: Callable[..., Any]
) -> None:
    log = written(replace(TOPICS[PROCESSED_VWAP], config=SMALL_SEGMENTS))
    keys = [f"S{number}|1m|2030-01-01T00:00:00Z" for number in range(20)]
    for revision in range(1, 5):
        for key in keys:
            log.write(key, revision)

    def cleaned() -> bool:
        log.write("later", int(time.monotonic() * 1000))  # the segment in use is not cleaned: begin another
        return [record for record in log.records() if record[0] != "later"] == [(key, 4) for key in keys]

    until("the cleaner ran", cleaned, 30)


def test_retention_deletes_old_segments_and_keeps_young_ones(
    own_broker: LocalBroker, written: Callable[[Topic], Written], until: Callable[..., Any]
) -> None:
    log = written(replace(TOPICS[RAW_TRADES], retention_ms=1500, config=SMALL_SEGMENTS))
    old = log.write("old", *range(1000))
    young = itertools.count(1)

    def deleted() -> bool:
        log.write("young", next(young))
        return log.first_offset() >= old

    until("the old ones are gone", deleted, 30)
    folder = own_broker.home / "kafka" / "logs" / f"{log.topic.name}-0"
    until("their files too", lambda: all(int(file.stem) >= old for file in folder.glob("*.log")), 10)

    def kept() -> bool:
        newest = next(young)
        log.write("young", newest)
        return log.records()[-1:] == [("young", newest)]

    until("a young one is read", kept, 30)  # on a busy machine it may grow old before


class Member:
    """A user's consumer in a group that rebalances cooperatively; commits before it gives a partition up."""

    def __init__(self, broker: str, group: str, take: Callable[[Message], None]) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": broker,
                "group.id": group,
                "partition.assignment.strategy": "cooperative-sticky",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "heartbeat.interval.ms": 300,  # how soon a member hears of another
            }
        )
        self._take, self._stop = take, threading.Event()
        self.partitions: set[int] = set()
        self._consumer.subscribe([PROCESSED_TRADES], on_assign=self._assigned, on_revoke=self._revoked)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.incremental_assign(partitions)
        self.partitions |= {each.partition for each in partitions}

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._commit()
        consumer.incremental_unassign(partitions)
        self.partitions -= {each.partition for each in partitions}

    def _run(self) -> None:
        while not self._stop.is_set():
            for message in self._consumer.consume(100, 0.05):
                if message.error() is None:
                    self._take(message)
        self._commit()
        self._consumer.close()

    def _commit(self) -> None:
        positions = [each for each in self._consumer.position(self._consumer.assignment()) if each.offset >= 0]
        if positions:
            self._consumer.commit(offsets=positions, asynchronous=False)

    def leave(self) -> None:
        self._stop.set()
        self._thread.join()


def test_a_group_that_rebalances_while_a_flow_writes_misses_nothing_and_keeps_the_order(
    broker: str,
    stream_settings: StreamSettings,
    service: Callable[..., Any],
    produce: Callable[..., None],
    trade_frame: Callable[..., bytes],
    unique: str,
    until: Callable[..., Any],
) -> None:
    catalog = open_catalog(LakehouseSettings(data_dir=stream_settings.data_dir))
    create_tables(catalog)
    seed_dim_symbol(catalog, read_symbols(), as_of=datetime.now(UTC))
    taken: defaultdict[str, list[int]] = defaultdict(list)

    def take(message: Message) -> None:
        if (message.key() or b"").startswith(unique.encode()):  # other tests' messages stand in the topic too
            row = json.loads(message.value())
            taken[row["symbol"]].append(row["sequence"])

    sent, stop = 0, threading.Event()

    def send() -> None:
        nonlocal sent
        while not stop.wait(0.002):
            symbol = f"{unique}{sent % 24}"
            produce(RAW_TRADES, trade_frame(symbol, time.time_ns() // 1000, sequence=sent), symbol)
            sent += 1

    service("dataflows.enrichment").start()
    sender = threading.Thread(target=send)
    sender.start()
    members = [Member(broker, unique, take)]
    try:
        until("trades arrive", lambda: taken)
        for joined in (2, 3):
            members.append(Member(broker, unique, take))
            until("it has its share", lambda n=joined: [len(each.partitions) for each in members] == [6 // n] * n)
        members.pop(0).leave()
        until("two share all", lambda: [len(each.partitions) for each in members] == [3, 3])
        stop.set()
        sender.join()
        until("all have come", lambda: sum(map(len, taken.values())) >= sent, 30)
    finally:
        stop.set()
        sender.join()
        for member in members:
            member.leave()
    assert taken == {f"{unique}{number}": list(range(number, sent, 24)) for number in range(24)}
