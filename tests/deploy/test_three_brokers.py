"""Three brokers of Apache Kafka under the real supervisor: one is killed while a flow reads and writes."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from dataflows.settings import StreamSettings
from dataflows.sink import KafkaSink, Output
from dataflows.topics import PROCESSED_TRADES, RAW_TRADES, TOPICS, Topic, ensure_topics
from deploy.local import broker as brokers
from deploy.local.kafka import Ports
from deploy.local.services import Service, broker_services, service_environment
from deploy.local.settings import DEFAULT_PORTS, LocalSettings, kafka_port_names
from deploy.local.start import start, stop_everything
from deploy.local.supervision import Supervisor
from lakehouse.catalog import open_catalog
from lakehouse.dimensions.dim_symbol import read_symbols, seed_dim_symbol
from lakehouse.settings import LakehouseSettings
from lakehouse.tables import create_tables
from simulator.events import format_timestamp
from tests.brokers import CACHE, free_ports

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("apache_kafka")]

ROOT = Path(__file__).resolve().parents[2]
LONGEST_STALL_S = 15.0
TRADES_A_SECOND = 200


class Cluster:
    """Three brokers, and the environment that the services of this machine get."""

    def __init__(self, home: Path) -> None:
        self.settings = LocalSettings(
            data_dir=home, **dict(zip(DEFAULT_PORTS, free_ports(len(DEFAULT_PORTS)), strict=True))
        )
        ports = self.settings.ports()
        nodes = [Ports(*(ports[name] for name in kafka_port_names(node))) for node in (1, 2, 3)]
        self.broker = brokers.prepare("kafka", CACHE, self.settings.root, nodes)
        self.services = broker_services(self.broker)
        self.environment = service_environment(self.settings, self.broker)
        self.supervisor = Supervisor(self.settings)

    def stream_settings(self) -> StreamSettings:
        return StreamSettings(
            kafka_bootstrap=self.environment["TICKHOUSE_KAFKA_BOOTSTRAP"],
            kafka_replication=int(self.environment["TICKHOUSE_KAFKA_REPLICATION"]),
        )

    def kill(self, service: Service) -> Callable[[], bool]:
        """SIGKILL; whether it runs again, with all that it is to have a copy of."""
        before = self.supervisor.processes()[service.name].pid
        os.kill(before, signal.SIGKILL)

        def is_back() -> bool:
            return self.supervisor.processes()[service.name].pid not in (0, before) and service.ready()

        return is_back


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("three"))
    try:
        start(made.supervisor, made.services, made.environment, 120, print)
        ensure_topics(made.stream_settings())
        yield made
    finally:
        stop_everything(made.supervisor)


@pytest.fixture(scope="module")
def enrichment(cluster: Cluster) -> Iterator[None]:
    """The flow as a service of this machine runs it."""
    catalog = open_catalog(LakehouseSettings(data_dir=cluster.settings.root))
    create_tables(catalog)
    seed_dim_symbol(catalog, read_symbols(), as_of=datetime.now(UTC))
    with (cluster.settings.root / "enrichment.log").open("wb") as log:
        environment = {**os.environ, **cluster.environment}
        command = [sys.executable, "-m", "dataflows.enrichment"]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    yield
    process.terminate()
    assert process.wait(timeout=30) == 0, (cluster.settings.root / "enrichment.log").read_text()


def test_every_topic_has_three_copies_of_which_two_acknowledge(
    cluster: Cluster, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    admin = AdminClient({"bootstrap.servers": cluster.broker.address})
    consumer = Consumer({"bootstrap.servers": cluster.broker.address, "group.id": "user"})

    def committed() -> bool:
        """The first commit makes an internal topic, whose coordinator may still move."""
        try:
            consumer.commit(offsets=[TopicPartition(RAW_TRADES, 0, 0)], asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.NOT_COORDINATOR:
                raise
            return False
        return True

    eventually(committed)
    consumer.close()
    found = admin.list_topics(timeout=10).topics
    names = [*TOPICS, "__consumer_offsets"]
    copies = {name: {len(part.replicas) for part in found[name].partitions.values()} for name in names}
    assert set(map(frozenset, copies.values())) == {frozenset({3})}, copies
    asked = admin.describe_configs([ConfigResource(ResourceType.TOPIC, name) for name in names])
    enough = {resource.name: config.result(10)["min.insync.replicas"].value for resource, config in asked.items()}
    assert enough == dict.fromkeys(names, "2")


class Market:
    """Trades at a steady rate, sent as the bridge sends them."""

    def __init__(self, address: str) -> None:
        self.acknowledged: dict[str, float] = {}
        """Trade id → when, by the monotonic clock."""
        self._stop = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": address,
                "partitioner": "murmur2",
                "acks": "all",
                "enable.idempotence": True,
                "message.timeout.ms": 0,
                "linger.ms": 3,
            }
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for number in itertools.count():
            if self._stop.wait(1 / TRADES_A_SECOND):
                break
            trade = f"t-{number}"
            symbol = f"S{number % 12}"
            self._producer.produce(
                RAW_TRADES, _trade(trade, symbol, number), symbol, on_delivery=self._delivered(trade)
            )
            self._producer.poll(0)

    def _delivered(self, trade: str) -> Callable[..., None]:
        def take(error: object, _: object) -> None:
            assert error is None
            self.acknowledged[trade] = time.monotonic()

        return take

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        assert self._producer.flush(30) == 0


def _trade(trade: str, symbol: str, number: int) -> bytes:
    data = {
        "event_id": f"e-{number}",
        "timestamp": format_timestamp(time.time_ns() // 1000),
        "sequence": number,
        "trade_id": trade,
        "symbol": symbol,
        "price": 100,
        "quantity": 1,
        "buy_order_id": "b",
        "sell_order_id": "s",
        "buyer_agent_id": "buyer",
        "seller_agent_id": "seller",
        "is_aggressive_buy": True,
    }
    return json.dumps({"event_type": "TradeExecuted", "data": data}).encode()


class Reader:
    """Reads a topic as it grows, as a user of it does."""

    def __init__(self, address: str, topic: str) -> None:
        self.seen: Counter[str] = Counter()
        self.times: list[float] = []
        self._consumer = Consumer(
            {"bootstrap.servers": address, "group.id": f"reader-{topic}", "auto.offset.reset": "earliest"}
        )
        self._consumer.subscribe([topic])

    def read(self) -> None:
        """What there is now."""
        for message in self._consumer.consume(1000, 0.05):
            if message.error() is None:
                body = json.loads(message.value())
                self.seen[body.get("data", body)["trade_id"]] += 1
                self.times.append(time.monotonic())

    def until(self, what: str, done: Callable[[], Any], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            self.read()
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}"


def longest_gap(times: list[float]) -> float:
    return max(after - before for before, after in itertools.pairwise(sorted(times)))


def test_what_a_killed_flow_had_sent_while_a_broker_hung_is_not_written_again(cluster: Cluster) -> None:
    settings = cluster.stream_settings()
    topic = Topic("test.hung", 1, "key")
    ensure_topics(settings, topics=[topic])

    def part(resume: Any) -> Any:
        return KafkaSink(topic.name, settings, flow="test", stop=threading.Event()).build_part(
            "out", "0000", resume
        )

    first, second = (Output("key", b"%d" % version, "origin", version) for version in (1, 2))
    killed = part(None)
    killed.write_batch([first])
    snapshot = killed.snapshot()
    leader = AdminClient(settings.kafka()).list_topics(topic.name).topics[topic.name].partitions[0].leader
    follower = cluster.supervisor.processes()[f"broker-{leader % 3 + 1}"].pid
    os.kill(follower, signal.SIGSTOP)  # the leader alone has what comes now, and shows it to nobody
    try:
        sent = Producer({**settings.kafka(), "acks": "1"})
        sent.produce(
            topic.name, second.value, b"key", headers=[("origin", b"origin"), ("version", b"2")]
        )  # as the flow does, which then dies
        assert sent.flush(10) == 0
        resumed = part(snapshot)
        resumed.write_batch([second])
        assert resumed.snapshot()[0] == 2
    finally:
        os.kill(follower, signal.SIGCONT)


@pytest.mark.usefixtures("enrichment")
def test_one_killed_loses_nothing_stalls_shortly_and_comes_back(cluster: Cluster) -> None:
    address = cluster.broker.address
    assert len(address.split(",")) == 3
    reader, market = Reader(address, PROCESSED_TRADES), Market(address)
    try:
        reader.until("trades flow", lambda: len(reader.seen) > TRADES_A_SECOND)
        reader.until("it is back and has caught up", cluster.kill(cluster.services[0]))
    finally:
        market.close()
    reader.until("the flow has written all", lambda: reader.seen.keys() >= market.acknowledged.keys())
    raw = Reader(address, RAW_TRADES)
    raw.until("the topic holds all", lambda: raw.seen.keys() >= market.acknowledged.keys())
    assert set(raw.seen.values()) == set(reader.seen.values()) == {1}
    stalls = {
        "acknowledged": longest_gap(list(market.acknowledged.values())),
        PROCESSED_TRADES: longest_gap(reader.times),
    }
    assert all(stall < LONGEST_STALL_S for stall in stalls.values()), stalls
