"""The local brokers: which one is chosen, what is verified before it runs, and that it carries messages."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from deploy.local import broker as brokers
from deploy.local import kafka
from deploy.local.errors import LaunchError


@pytest.mark.integration
def test_the_broker_delivers_what_it_acknowledged(broker: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker})
    admin.create_topics([NewTopic("deploy-test", 2, 1)])["deploy-test"].result(10)
    errors: list[object] = []
    producer = Producer({"bootstrap.servers": broker, "enable.idempotence": True, "acks": "all"})
    for n in range(100):
        producer.produce(
            "deploy-test", str(n).encode(), b"k%d" % n, on_delivery=lambda error, _: errors.append(error)
        )
    assert producer.flush(10) == 0
    assert errors == [None] * 100

    consumer = Consumer(
        {
            "bootstrap.servers": broker,
            "group.id": "deploy-test",
            "auto.offset.reset": "earliest",
            "receive.message.max.bytes": 1_000_000_000,
        }
    )
    consumer.subscribe(["deploy-test"])
    received: list[bytes] = []
    for _ in range(200):
        received += [message.value() for message in consumer.consume(100, 0.2) if message.error() is None]
        if len(received) >= 100:
            break
    consumer.close()
    assert sorted(received, key=int) == [str(n).encode() for n in range(100)]


def test_auto_without_java_is_the_embedded_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert brokers.resolve("auto", tmp_path) == "embedded"
    with pytest.raises(LaunchError, match=r"needs Java 17 .* broker=embedded"):
        brokers.resolve("kafka", tmp_path)


def test_an_old_java_is_not_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    java.chmod(0o755)
    (tmp_path / f"kafka-{kafka.version()}").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert kafka.java_major() == 11
    assert brokers.resolve("auto", tmp_path) == "embedded"


@pytest.mark.parametrize("address", ["127.0.0.1:9092", "a.example:9092,b.example:9093"])
def test_an_address_is_taken_as_it_is(address: str, tmp_path: Path) -> None:
    chosen = brokers.prepare(address, tmp_path, tmp_path, [kafka.Ports(1, 2)])
    assert (chosen.kind, chosen.address, chosen.commands) == ("external", address, [])


@pytest.mark.parametrize("wrong", ["redpanda", "localhost", "host:", "a:1,b"])
def test_a_choice_that_is_not_understood_is_named(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=f"broker={wrong} is not understood"):
        brokers.resolve(wrong, tmp_path)


def test_without_maven_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match="install Maven"):
        kafka.fetch(tmp_path / "cache")
    assert not kafka.cached(tmp_path / "cache")


def test_a_jar_that_was_changed_is_refused(tmp_path: Path) -> None:
    jars = kafka.jars_directory(tmp_path)
    jars.mkdir(parents=True)
    (jars / "slf4j-api-1.7.36.jar").write_bytes(b"not the jar")
    with pytest.raises(LaunchError, match=r"slf4j-api-1\.7\.36\.jar.* differ from jars\.sha256"):
        kafka.fetch(tmp_path)


def test_the_locked_jars_hold_the_pinned_version() -> None:
    assert f"kafka_2.13-{kafka.version()}.jar" in kafka.checksums()


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("mvn") is None, reason="Maven is not installed")
@pytest.mark.skipif(kafka.java_major() < kafka.OLDEST_JAVA, reason="Java 17 is not installed")
def test_formatting_again_keeps_the_cluster(tmp_path: Path, broker_cache: Path) -> None:
    jars = kafka.fetch(broker_cache)
    (command,) = kafka.prepare(jars, tmp_path, [kafka.Ports(1, 2)])
    assert command[0] == "java"
    identity = (tmp_path / "kafka" / "logs" / "meta.properties").read_text()
    kafka.prepare(jars, tmp_path, [kafka.Ports(3, 4)])
    assert (tmp_path / "kafka" / "logs" / "meta.properties").read_text() == identity
    properties = (tmp_path / "kafka" / "server.properties").read_text().splitlines()
    assert "advertised.listeners=PLAINTEXT://127.0.0.1:3" in properties
    assert "auto.create.topics.enable=false" in properties
