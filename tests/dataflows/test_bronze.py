"""The bronze flow against a real broker, with real processes that are killed."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from pyiceberg.catalog import Catalog

from dataflows.settings import StreamSettings
from dataflows.topics import (
    DLQ_PROCESSING,
    RAW_ORDERBOOK_SNAPSHOTS,
    RAW_TRADES,
    RAW_TRADING_HALTS,
    TABLE_OF_TOPIC,
    ensure_topics,
)
from lakehouse.catalog import open_catalog
from lakehouse.settings import LakehouseSettings
from lakehouse.state import committed_offsets
from lakehouse.tables import create_tables

pytestmark = pytest.mark.integration

DEADLINE_S = 60
_PAUSE = threading.Event()
TOPICS = (*TABLE_OF_TOPIC, DLQ_PROCESSING)


def trade(number: int) -> bytes:
    second, micro = divmod(number, 1_000_000)
    data = {
        "event_id": f"e{number}",
        "timestamp": f"2026-03-02T10:00:{second:02d}.{micro:06d}Z",
        "sequence": number + 1,
        "trade_id": f"t{number}",
        "symbol": ("AAPL", "MSFT", "NVDA")[number % 3],
        "buy_order_id": "b",
        "sell_order_id": "s",
        "buyer_agent_id": "x",
        "seller_agent_id": "y",
        "is_aggressive_buy": number % 2 == 0,
    }
    text = json.dumps(data)[:-1] + f', "price": {100 + number % 7}.10, "quantity": 0.00{number % 9 + 1}}}'
    return f'{{"event_type": "TradeExecuted", "data": {text}}}'.encode()


@pytest.fixture
def topics(broker: str) -> Iterator[StreamSettings]:
    """Empty topics on the broker."""
    settings = StreamSettings(kafka_bootstrap=broker)
    _delete_topics(broker)
    ensure_topics(settings)
    yield settings
    _delete_topics(broker)


def _delete_topics(broker: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker})
    present = [topic for topic in TOPICS if topic in admin.list_topics(timeout=10).topics]
    for future in admin.delete_topics(present, operation_timeout=20).values() if present else ():
        future.result()
    until(lambda: not set(TOPICS) & set(admin.list_topics(timeout=10).topics))


@pytest.fixture
def lake(tmp_path: Path) -> LakehouseSettings:
    settings = LakehouseSettings(data_dir=tmp_path)
    create_tables(open_catalog(settings))
    return settings


@contextmanager
def bronze(
    topics: StreamSettings, lake: LakehouseSettings, commit_seconds: float = 0.3, metrics_port: int = 0
) -> Iterator[subprocess.Popen[str]]:
    """The flow as a process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TICKHOUSE_")} | {
        "TICKHOUSE_DATA_DIR": str(lake.data_dir),
        "TICKHOUSE_KAFKA_BOOTSTRAP": topics.kafka_bootstrap,
        "TICKHOUSE_BRONZE_COMMIT_SECONDS": str(commit_seconds),
        "TICKHOUSE_BRONZE_METRICS_PORT": str(metrics_port),
    }
    with (lake.data_dir / "bronze.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dataflows.bronze"], env=environment, stdout=log, stderr=log, text=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def produce(topics: StreamSettings, topic: str, frames: list[bytes], **extra: Any) -> None:
    producer = Producer({"bootstrap.servers": topics.kafka_bootstrap, "linger.ms": 5})
    for number, frame in enumerate(frames):
        producer.produce(topic, frame, key=str(number % 5), headers={"received_at": str(time.time_ns())}, **extra)
        producer.poll(0)
    assert producer.flush(30) == 0


def until(condition: Callable[[], Any], message: Callable[[], str] = lambda: "not in time") -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if value := condition():
            return value
        _PAUSE.wait(0.1)
    raise AssertionError(message())


def stored(catalog: Catalog, table: str = "bronze.trades") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = catalog.load_table(table).scan().to_arrow().to_pylist()
    return rows


def row_count(catalog: Catalog, table: str = "bronze.trades") -> int:
    """As its head says: cheaper than reading the rows, again and again."""
    head = catalog.load_table(table).current_snapshot()
    return 0 if head is None or head.summary is None else int(head.summary["total-records"])


def commits(catalog: Catalog, table: str = "bronze.trades") -> int:
    return len(catalog.load_table(table).snapshots())


def log_of(lake: LakehouseSettings) -> str:
    return (lake.data_dir / "bronze.log").read_text()


def messages_read(port: int) -> float:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
            text = response.read().decode()
    except OSError:  # not there yet
        return 0
    return sum(
        float(line.split()[-1]) for line in text.splitlines() if line.startswith("tickhouse_flow_messages_total")
    )


def test_every_trade_is_stored_once_although_the_flow_is_killed_again_and_again(
    topics: StreamSettings, lake: LakehouseSettings
) -> None:
    catalog = open_catalog(lake)
    chance = random.Random(7)
    sent = 0

    def produce_some() -> None:
        nonlocal sent
        produce(topics, RAW_TRADES, [trade(n) for n in range(sent, sent + 40)])
        sent += 40
        _PAUSE.wait(0.03)

    for _ in range(4):
        before = commits(catalog)
        with bronze(topics, lake, commit_seconds=0.1) as process:
            while commits(catalog) == before:
                assert process.poll() is None, log_of(lake)
                produce_some()
            kill_at = time.monotonic() + chance.uniform(0, 0.5)
            while time.monotonic() < kill_at:
                produce_some()
            process.send_signal(signal.SIGKILL)
            process.wait()
    produce_some()
    with bronze(topics, lake) as process:
        until(lambda: row_count(catalog) >= sent, lambda: log_of(lake))
        process.terminate()
        assert process.wait(timeout=20) == 0
    rows = stored(catalog)
    assert sorted(row["trade_id"] for row in rows) == sorted(f"t{n}" for n in range(sent))
    positions = {(r["_kafka_topic"], r["_kafka_partition"], r["_kafka_offset"]) for r in rows}
    assert len(positions) == sent
    one = next(row for row in rows if row["trade_id"] == "t8")
    assert (str(one["price"]), str(one["quantity"])) == ("101.10000000", "0.00900000")
    assert one["_received_at"] <= one["_ingested_at"]
    assert sum(committed_offsets(catalog.load_table("bronze.trades"))[RAW_TRADES].values()) == sent


def test_terminating_it_commits_what_was_read_and_exits_with_0(
    topics: StreamSettings, lake: LakehouseSettings
) -> None:
    catalog = open_catalog(lake)
    with bronze(topics, lake, commit_seconds=0.2) as process:
        produce(topics, RAW_TRADES, [trade(0)])
        until(lambda: row_count(catalog), lambda: log_of(lake))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with bronze(topics, lake, commit_seconds=600, metrics_port=port) as process:
        produce(topics, RAW_TRADES, [trade(n) for n in range(1, 501)])
        until(lambda: messages_read(port) == 500 or process.poll() is not None, lambda: log_of(lake))
        process.terminate()
        assert process.wait(timeout=20) == 0, log_of(lake)
    assert len(stored(catalog)) == 501


def test_it_commits_what_waits_also_when_nothing_new_comes(
    topics: StreamSettings, lake: LakehouseSettings
) -> None:
    catalog = open_catalog(lake)
    with bronze(topics, lake, commit_seconds=1):
        produce(topics, RAW_TRADES, [trade(0)])
        until(lambda: row_count(catalog), lambda: log_of(lake))
        assert commits(catalog) == 1


def test_what_is_no_frame_goes_to_the_dead_letters_and_is_not_read_again(
    topics: StreamSettings, lake: LakehouseSettings
) -> None:
    catalog = open_catalog(lake)
    too_fine = trade(2).replace(b'"price": 102.10', b'"price": 1.123456789')
    with bronze(topics, lake) as process:
        produce(topics, RAW_TRADES, [trade(0), b"no frame", too_fine, trade(3)], partition=2)
        until(lambda: _committed(catalog, RAW_TRADES, 2) == 4, lambda: log_of(lake))
        process.send_signal(signal.SIGKILL)
        process.wait()
    with bronze(topics, lake):
        produce(topics, RAW_TRADES, [b"{}"], partition=2)
        until(lambda: _committed(catalog, RAW_TRADES, 2) == 5, lambda: log_of(lake))
    assert sorted(row["trade_id"] for row in stored(catalog)) == ["t0", "t3"]
    letters = _messages(topics, DLQ_PROCESSING, 3)
    assert [letter.value() for letter in letters] == [b"no frame", too_fine, b"{}"]
    headers = dict(letters[0].headers())
    assert (headers["source_topic"], headers["source_partition"], headers["source_offset"], headers["stage"]) == (
        b"raw.trades",
        b"2",
        b"1",
        b"bronze",
    )
    assert b"malformed" in headers["error"]


def test_all_tables_fill_and_halts_and_resumptions_share_one(
    topics: StreamSettings, lake: LakehouseSettings
) -> None:
    catalog = open_catalog(lake)
    halt = {"symbol": "A", "reason": "CircuitBreaker", "level": 1, "trigger_price": 93, "reference_price": 100}
    halt |= {"decline_pct": 7.0, "halt_duration_secs": 300}
    resume = {"symbol": "A", "halted_at": "2026-03-02T10:00:00Z", "halt_duration_secs": 300, "level": 1}
    book = {"event_id": "e", "symbol": "A", "bids": [{"price": 9.5, "quantity": 3}], "asks": []}
    frames = [(RAW_TRADING_HALTS, "TradingHalt", halt), (RAW_TRADING_HALTS, "TradingResume", resume)]
    with bronze(topics, lake):
        for topic, event_type, data in frames:
            produce(topics, topic, [json.dumps({"event_type": event_type, "data": data}).encode()])
        envelope = {"event_type": "OrderBookSnapshot", "timestamp": "2026-03-02T10:00:00.5Z", "data": book}
        produce(topics, RAW_ORDERBOOK_SNAPSHOTS, [json.dumps(envelope).encode()])
        until(lambda: row_count(catalog, "bronze.trading_halts") == 2, lambda: log_of(lake))
        until(lambda: row_count(catalog, "bronze.orderbook_snapshots"), lambda: log_of(lake))
    kinds = {row["event_type"]: row for row in stored(catalog, "bronze.trading_halts")}
    assert kinds["TradingHalt"]["timestamp"] is None
    assert kinds["TradingResume"]["halted_at"].isoformat() == "2026-03-02T10:00:00+00:00"
    (row,) = stored(catalog, "bronze.orderbook_snapshots")
    assert row["timestamp"].isoformat() == "2026-03-02T10:00:00.500000+00:00"
    assert [str(level["price"]) for level in row["bids"]] == ["9.50000000"]


def test_a_topic_made_anew_is_read_from_its_beginning(topics: StreamSettings, lake: LakehouseSettings) -> None:
    catalog = open_catalog(lake)
    with bronze(topics, lake) as process:
        produce(topics, RAW_TRADES, [trade(n) for n in range(10)], partition=0)
        until(lambda: row_count(catalog) == 10, lambda: log_of(lake))
        process.terminate()
        assert process.wait(timeout=20) == 0
    _delete_topics(topics.kafka_bootstrap)
    ensure_topics(topics)
    produce(topics, RAW_TRADES, [trade(n) for n in range(100, 104)], partition=0)
    with bronze(topics, lake) as process:
        until(lambda: row_count(catalog) >= 14, lambda: log_of(lake))
        process.send_signal(signal.SIGKILL)
        process.wait()
    with bronze(topics, lake):
        produce(topics, RAW_TRADES, [trade(104)], partition=0)
        until(lambda: row_count(catalog) >= 15, lambda: log_of(lake))
    assert sorted(int(row["trade_id"][1:]) for row in stored(catalog)) == [*range(10), *range(100, 105)]
    assert "made anew" in log_of(lake)


def test_a_log_that_was_cut_is_read_on_from_where_it_differs(
    topics: StreamSettings, lake: LakehouseSettings
) -> None:
    catalog = open_catalog(lake)
    with bronze(topics, lake):
        produce(topics, RAW_TRADES, [trade(n) for n in range(20)], partition=0)
        until(lambda: row_count(catalog) == 20, lambda: log_of(lake))
    _delete_topics(topics.kafka_bootstrap)
    ensure_topics(topics)
    produce(topics, RAW_TRADES, [trade(n) for n in (*range(12), *range(100, 103))], partition=0)
    with bronze(topics, lake):
        until(lambda: row_count(catalog) >= 23, lambda: log_of(lake))
    assert sorted(int(row["trade_id"][1:]) for row in stored(catalog)) == [*range(20), *range(100, 103)]
    assert "Going on from offset 12" in log_of(lake)


def _committed(catalog: Catalog, topic: str, partition: int) -> int:
    return committed_offsets(catalog.load_table(TABLE_OF_TOPIC[topic])).get(topic, {}).get(partition, 0)


def _messages(topics: StreamSettings, topic: str, count: int) -> list[Any]:
    consumer = Consumer(
        {"bootstrap.servers": topics.kafka_bootstrap, "group.id": "test", "enable.auto.commit": False}
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: list[Any] = []
    try:
        until(lambda: found.extend(consumer.consume(10, 0.5)) or len(found) >= count)
    finally:
        consumer.close()
    return found
