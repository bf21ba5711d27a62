"""The whole service as a process: a real broker, real HTTP, real signals."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from api.live.consumer import LiveConsumer
from api.live.hub import Hub
from api.settings import ApiSettings
from dataflows.settings import StreamSettings
from dataflows.topics import ensure_topics
from deploy.local import broker as brokers
from deploy.local.kafka import Ports

pytestmark = pytest.mark.integration

DEADLINE = 30.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline, pause = time.monotonic() + DEADLINE, threading.Event()
    while time.monotonic() < deadline:
        if result := condition():
            return result
        pause.wait(0.02)
    raise AssertionError(f"{what}: not within {DEADLINE} s")


class Service:
    """``python -m api`` on a free port."""

    def __init__(self, log: Path, **environment: str) -> None:
        self.port = free_port()
        self.log = log
        env = {k: v for k, v in os.environ.items() if not k.startswith("TICKHOUSE_")}
        env |= {"TICKHOUSE_API_PORT": str(self.port)} | {f"TICKHOUSE_{k}": v for k, v in environment.items()}
        with log.open("wb") as output:
            self.process = subprocess.Popen([sys.executable, "-m", "api"], env=env, stdout=output, stderr=output)

    def get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.get("/health")[0] == 200
        except OSError:
            return False

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Stream:
    """A reader of the live stream."""

    def __init__(self, port: int, query: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        self.connection.request("GET", f"/api/v1/live?{query}")
        self.response = self.connection.getresponse()
        assert self.response.status == 200

    def next(self) -> tuple[str, str]:
        """The next event: (name, data as it was sent)."""
        fields: dict[str, str] = {}
        while True:
            line = self.response.readline().decode()
            if line == "\n" and fields:
                return fields["event"], fields["data"]
            if line.strip() and not line.startswith(":"):
                name, _, value = line.strip().partition(": ")
                fields[name] = value
            if not line:
                raise EOFError

    def until(self, wanted: str) -> list[tuple[str, str]]:
        found = []
        while not found or found[-1][0] != wanted:
            found.append(self.next())
        return found

    def close(self) -> None:
        self.response.close()
        self.connection.close()


@pytest.fixture
def service(broker: str, lakehouse_dir: Path, tmp_path: Path) -> Iterator[Service]:
    ensure_topics(StreamSettings(kafka_bootstrap=broker))
    service = Service(tmp_path / "api.log", KAFKA_BOOTSTRAP=broker, DATA_DIR=str(lakehouse_dir))
    try:
        until(service.ready, "readiness")
        yield service
    finally:
        if service.process.poll() is None:
            service.process.terminate()
            service.process.wait(timeout=15)


@pytest.fixture
def send(broker: str) -> Callable[[str, str, str], None]:
    """Produce one message and wait for its acknowledgement: topic, key, value."""
    producer = Producer({"bootstrap.servers": broker})

    def produce(topic: str, key: str, value: str) -> None:
        producer.produce(topic, value.encode(), key=key.encode())
        assert producer.flush(10) == 0

    return produce


def trade(symbol: str, trade_id: str) -> str:
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return (
        f'{{"trade_id":"{trade_id}","symbol":"{symbol}","timestamp":"{now}","sequence":1,"price":61800.20,'
        f'"quantity":0.00600000,"is_aggressive_buy":true}}'
    )


def metric(service: Service, name: str) -> float:
    for line in service.get("/metrics")[1].decode().splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    raise AssertionError(f"no metric {name}")


def test_a_trade_on_the_topic_reaches_the_reader_exactly_and_soon(
    service: Service, send: Callable[[str, str, str], None]
) -> None:
    stream = Stream(service.port, "symbol=LIVE1&kinds=trade")
    stream.until("live")
    send("processed.trades", "LIVE2", trade("LIVE2", "other"))
    sent = trade("LIVE1", "mine")
    send("processed.trades", "LIVE1", sent)
    assert stream.next() == ("trade", sent)
    assert metric(service, "tickhouse_api_live_latency_seconds_count") == 1
    assert metric(service, "tickhouse_api_live_latency_seconds_sum") < 5
    stream.close()
    # Only writing shows that a reader is gone: the next heartbeat does.
    until(lambda: metric(service, "tickhouse_api_live_clients") == 0, "the closed stream was noticed")


def test_what_cannot_be_decoded_is_counted_and_left_out(
    service: Service, send: Callable[[str, str, str], None]
) -> None:
    stream = Stream(service.port, "symbol=LIVE3")
    stream.until("live")
    send("processed.trades", "LIVE3", "{broken")
    send("processed.trades", "LIVE3", trade("LIVE3", "good"))
    name, data = stream.next()
    assert (name, json.loads(data)["trade_id"]) == ("trade", "good")
    assert metric(service, 'tickhouse_api_live_invalid_total{topic="processed.trades"}') >= 1
    stream.close()


def test_a_fresh_process_shows_what_was_on_the_topics_before(
    broker: str, lakehouse_dir: Path, tmp_path: Path, send: Callable[[str, str, str], None]
) -> None:
    ensure_topics(StreamSettings(kafka_bootstrap=broker))
    send("processed.trades", "LIVE4", trade("LIVE4", "before"))
    service = Service(tmp_path / "api.log", KAFKA_BOOTSTRAP=broker, DATA_DIR=str(lakehouse_dir))
    try:
        until(service.ready, "readiness")
        seen = until(
            lambda: [row for row in json.loads(service.get("/api/v1/market")[1]) if row["symbol"] == "LIVE4"],
            "the earlier trade",
        )
        assert seen[0]["last_price"] == 61800.2
        stream = Stream(service.port, "symbol=LIVE4")
        assert [name for name, _ in stream.until("live")] == ["hello", "forming", "trade", "live"]
        stream.close()
        assert metric(service, "tickhouse_api_live_latency_seconds_count") == 0
    finally:
        service.process.terminate()
        service.process.wait(timeout=15)


def test_sigterm_ends_open_streams_and_exits_cleanly_within_seconds(service: Service) -> None:
    streams = [Stream(service.port, "symbol=LIVE5") for _ in range(5)]
    for stream in streams:
        stream.until("live")
    started = time.monotonic()
    service.process.terminate()
    assert service.process.wait(timeout=10) == 0
    assert time.monotonic() - started < 5
    assert [stream.next() for stream in streams] == [("bye", '{"reason":"stopping"}')] * 5
    assert "Traceback" not in service.log.read_text()


def test_when_the_service_is_killed_its_worker_frees_the_port(service: Service) -> None:
    stream = Stream(service.port, "symbol=LIVE6")
    stream.until("live")
    service.process.send_signal(signal.SIGKILL)
    service.process.wait(timeout=5)
    until(lambda: not service.listens(), "a free port")
    stream.close()


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        env = os.environ | {"TICKHOUSE_API_PORT": str(taken.getsockname()[1]), "TICKHOUSE_DATA_DIR": str(tmp_path)}
        done = subprocess.run([sys.executable, "-m", "api"], env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "Address already in use; stop what uses it, or set TICKHOUSE_API_PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_open_address_without_keys_is_refused_in_one_clear_line(tmp_path: Path) -> None:
    env = os.environ | {
        "TICKHOUSE_API_HOST": "0.0.0.0",  # noqa: S104
        "TICKHOUSE_API_KEYS": "",
        "TICKHOUSE_DATA_DIR": str(tmp_path),
    }
    done = subprocess.run([sys.executable, "-m", "api"], env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert "TICKHOUSE_API_KEYS is empty; set at least one key, or bind to 127.0.0.1" in done.stderr
    assert "Traceback" not in done.stderr


@contextlib.contextmanager
def development_broker(port: int, home: Path) -> Iterator[None]:
    (command,) = brokers.prepare("embedded", home, home, [Ports(port, 0)]).commands
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=15)


def test_the_consumer_waits_for_a_broker_and_goes_on_after_it_was_away(tmp_path: Path) -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    hub = Hub("run", 1, 100)
    reader, _ = hub.subscribe(frozenset(), frozenset({"trade"}))
    consumer = LiveConsumer(ApiSettings(kafka_bootstrap=address), hub)
    consumer.start()

    def produced_and_received(trade_id: str) -> None:
        producer = Producer({"bootstrap.servers": address})
        producer.produce("processed.trades", trade("A", trade_id).encode(), key=b"A")
        assert producer.flush(10) == 0
        found = until(lambda: reader.take(0.1), trade_id)
        assert f'"{trade_id}"'.encode() in found[0].text

    try:
        assert not consumer.connected
        with development_broker(port, tmp_path):
            ensure_topics(StreamSettings(kafka_bootstrap=address))
            until(lambda: consumer.connected, "the connection")
            produced_and_received("first")
        until(lambda: not consumer.connected, "the loss of the connection")
        with development_broker(port, tmp_path):
            until(lambda: consumer.connected, "the connection again")
            produced_and_received("second")
    finally:
        consumer.stop()
