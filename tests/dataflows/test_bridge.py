"""The bridge against a real broker and an exchange that misbehaves on demand."""

from __future__ import annotations

import asyncio
import json
import random
import string
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from dataflows import checkpoint
from dataflows.bridge import Bridge
from dataflows.delivery import partition_of
from dataflows.settings import StreamSettings
from dataflows.topics import DLQ_RAW, RAW_QUOTES, RAW_TOPICS

NOW = "2024-08-08T00:00:00.000001Z"


class Exchange:
    """Serves a growing list of frames, numbered by their place; resumes where a client asks."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.frames: list[bytes] = []
        self.subprotocols: list[str] | None = ["tickhouse.batch.v1"]
        self.batch = 200
        self.queries: list[dict[str, list[str]]] = []
        self.url = ""
        self._clients: set[ServerConnection] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self._thread.start()
        assert self._ready.wait(10)

    async def _serve(self) -> None:
        async with serve(self._client, "127.0.0.1", 0, select_subprotocol=self._choose) as server:
            self.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
            self._ready.set()
            await self._stop.wait()

    def _choose(self, _: ServerConnection, offered: Any) -> Any:
        return next((name for name in offered if name in (self.subprotocols or ())), None)

    async def _client(self, client: ServerConnection) -> None:
        assert client.request is not None
        query = parse_qs(urlsplit(client.request.path).query)
        self.queries.append(query)
        self._clients.add(client)
        known = query.get("session") == [self.session]
        place = int(query["from_sequence"][0]) - 1 if known else 0
        welcome = {"type": "welcome", "exchange": "TEST", "symbols": [], "session_id": self.session}
        try:
            await client.send(json.dumps({**welcome, "next_sequence": place + 1}))
            while client.state is State.OPEN:
                block = self.frames[place : place + self.batch]
                place += len(block)
                if client.subprotocol and block:
                    await client.send(b"\n".join(block).decode(errors="surrogateescape"))
                else:
                    for frame in block:
                        await client.send(frame.decode())
                await asyncio.sleep(0.002)
        except ConnectionClosed:
            pass
        finally:
            self._clients.discard(client)

    def drop_clients(self) -> None:
        """Cut every connection without a goodbye."""
        for client in list(self._clients):
            self._loop.call_soon_threadsafe(client.transport.abort)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


@pytest.fixture
def exchange(unique: str) -> Iterator[Exchange]:
    made = Exchange(f"test-{unique}")
    yield made
    made.close()


def event(event_type: str, sequence: int, **fields: Any) -> bytes:
    data = {"event_id": f"e{sequence}", "timestamp": NOW, "sequence": sequence, **fields}
    return json.dumps({"event_type": event_type, "data": data}).encode()


def nine(symbol: str) -> list[tuple[str, str, bytes]]:
    """(topic, key, frame) for each of the nine events."""
    order = {"symbol": symbol, "side": "Buy", "agent_id": "a", "order_id": "o", "price": 61800.20}
    placed = {**order, "order_type": "Limit", "quantity": 0.006, "agent_type": "RetailTrader"}
    trade = {"symbol": symbol, "price": 1.1, "quantity": 2, "is_aggressive_buy": True, "trade_id": "t"}
    parties = {"buy_order_id": "b", "sell_order_id": "s", "buyer_agent_id": "x", "seller_agent_id": "y"}
    quote = {"symbol": symbol, "best_bid": None, "best_ask": 1, "best_ask_size": 5}
    book = {"symbol": symbol, "bids": [], "asks": [{"price": 1, "quantity": 1}]}
    stats = dict.fromkeys(("open", "high", "low", "close", "volume", "trade_count", "vwap"), 1)
    halt = {"symbol": symbol, "level": 1, "halt_duration_secs": 300}
    prices = {"reason": "drop", "trigger_price": 93, "reference_price": 100, "decline_pct": 7}
    agent = f"agent-{symbol}"
    action = {"symbol": symbol, "agent_id": agent, "agent_type": "MarketMaker", "action": "quote"}
    return [
        ("raw.orders", symbol, event("OrderPlaced", 1, **placed)),
        ("raw.orders", symbol, event("OrderCancelled", 2, **order, remaining_quantity=0, reason="Expired")),
        ("raw.trades", symbol, event("TradeExecuted", 3, **trade, **parties)),
        ("raw.quotes", symbol, event("QuoteUpdate", 4, **quote)),
        ("raw.orderbook-snapshots", symbol, event("OrderBookSnapshot", 5, **book)),
        ("raw.market-stats", symbol, event("MarketStats", 6, symbol=symbol, **stats)),
        ("raw.trading-halts", symbol, event("TradingHalt", 7, **halt, **prices)),
        ("raw.trading-halts", symbol, event("TradingResume", 8, **halt, halted_at=NOW)),
        ("raw.agent-actions", agent, event("AgentAction", 9, **action, decision_factors=[])),
    ]


@pytest.fixture
def arrived(read_topic: Callable[..., list[Message]], exchange: Exchange) -> Callable[[], list[Message]]:
    """Everything this test's session has put into Kafka."""

    def read() -> list[Message]:
        return [
            message
            for message in read_topic(*RAW_TOPICS, DLQ_RAW)
            if dict(message.headers() or ()).get("session") == exchange.session.encode()
        ]

    return read


@pytest.mark.integration
@pytest.mark.parametrize("subprotocols", [["tickhouse.batch.v1"], None], ids=["batched", "plain"])
def test_every_event_reaches_its_topic_byte_for_byte_and_bad_frames_the_dead_letters(
    subprotocols: list[str] | None,
    exchange: Exchange,
    service: Callable[..., Any],
    stream_settings: StreamSettings,
    arrived: Callable[[], list[Message]],
    unique: str,
    until: Callable[..., Any],
) -> None:
    exchange.subprotocols = subprotocols
    valid = nine(unique)
    cheap = valid[2][2].replace(b"1.1", b"-1").replace(b'"sequence": 3', b'"sequence": 10')
    bad = [cheap, b'{"event_type":"Nonsense","data":{"sequence":11}}']
    exchange.frames += [frame for _, _, frame in valid] + bad
    bridge = service("dataflows.bridge", ws_url=exchange.url)
    bridge.start()
    until("all frames are in Kafka", lambda: len(arrived()) >= len(valid) + len(bad))
    messages = arrived()
    routed = [(m.topic(), m.key().decode(), m.value()) for m in messages if m.topic() != DLQ_RAW]
    assert sorted(routed) == sorted(valid)
    for message in messages:
        headers = dict(message.headers())
        assert headers["source"] == b"TEST"
        assert int(headers["received_at"]) > 1_700_000_000_000_000_000
        if message.topic() != DLQ_RAW:
            assert headers["event_type"].decode() == json.loads(message.value())["event_type"]
    letters = {m.value(): dict(m.headers()) for m in messages if m.topic() == DLQ_RAW}
    assert set(letters) == set(bad)
    assert b"price" in letters[bad[0]]["error"]
    assert letters[bad[0]]["stage"] == b"bridge"
    assert bridge.stop() == 0
    saved = checkpoint.load(stream_settings.data_dir / "bridge" / "state.json")
    assert saved is not None
    assert (saved.session, saved.acknowledged) == (exchange.session, 11)


def quotes(symbol: str, first: int, last: int) -> list[bytes]:
    return [
        event("QuoteUpdate", n, symbol=f"{symbol}{n % 7}", best_bid=n, best_bid_size=1)
        for n in range(first, last + 1)
    ]


def sequences(messages: list[Message]) -> Counter[int]:
    return Counter(json.loads(message.value())["data"]["sequence"] for message in messages)


@pytest.mark.integration
def test_a_killed_bridge_loses_and_doubles_nothing(
    exchange: Exchange,
    service: Callable[..., Any],
    stream_settings: StreamSettings,
    arrived: Callable[[], list[Message]],
    unique: str,
    until: Callable[..., Any],
) -> None:
    bridge = service("dataflows.bridge", ws_url=exchange.url)
    exchange.batch = 4  # at most 2,000 frames a second
    path = stream_settings.data_dir / "bridge" / "state.json"

    def acknowledged() -> int:
        saved = checkpoint.load(path)
        return 0 if saved is None else saved.acknowledged

    count = 0
    for _ in range(2):
        exchange.frames += quotes(unique, count + 1, count + 10_000)
        bridge.start()
        before = acknowledged()
        until("a checkpoint is written amid the stream", lambda before=before: acknowledged() > before)
        bridge.kill()
        count += 10_000
        assert len(arrived()) < count, "killed too late to prove anything"
    exchange.batch = 200
    bridge.start()
    until("all frames are in Kafka", lambda: len(arrived()) >= count)
    assert bridge.stop() == 0
    assert sequences(arrived()) == Counter(range(1, count + 1))


@pytest.mark.integration
@pytest.mark.parametrize("killed", [True, False], ids=["killed", "stopped"])
def test_a_bridge_that_never_reached_the_exchange_forgets_nothing_of_the_one_before(
    killed: bool,
    exchange: Exchange,
    service: Callable[..., Any],
    stream_settings: StreamSettings,
    arrived: Callable[[], list[Message]],
    unique: str,
    until: Callable[..., Any],
) -> None:
    exchange.batch = 4  # at most 2,000 frames a second
    exchange.frames += quotes(unique, 1, 10_000)
    first = service("dataflows.bridge", ws_url=exchange.url)
    first.start()
    until("frames beyond the checkpoint are in Kafka", lambda: len(arrived()) >= 500)
    first.kill()
    second = service("dataflows.bridge", ws_url="ws://127.0.0.1:9")
    second.start()
    until("it has tried for three seconds", lambda: second.log.read_text().count("connecting again") >= 5)
    second.kill() if killed else second.stop()
    exchange.batch = 200
    first.start()
    until("all frames are in Kafka", lambda: len(arrived()) >= 10_000)
    assert first.stop() == 0
    assert sequences(arrived()) == Counter(range(1, 10_001))


@pytest.mark.integration
@pytest.mark.parametrize("subprotocols", [["tickhouse.batch.v1"], None], ids=["batched", "plain"])
def test_a_connection_that_breaks_is_resumed_without_loss_or_doubles_and_wire_duplicates_pass(
    subprotocols: list[str] | None,
    exchange: Exchange,
    service: Callable[..., Any],
    stream_settings: StreamSettings,
    arrived: Callable[[], list[Message]],
    unique: str,
    until: Callable[..., Any],
) -> None:
    exchange.subprotocols = subprotocols
    bridge = service("dataflows.bridge", ws_url=exchange.url)
    exchange.frames += quotes(unique, 1, 1000)
    bridge.start()
    until("the first frames are in Kafka", lambda: len(arrived()) >= 500)
    exchange.drop_clients()
    exchange.frames += quotes(unique, 1001, 2000)
    until("the rest is in Kafka", lambda: len(arrived()) >= 2000)
    exchange.frames.append(exchange.frames[1499])
    until("the duplicate is in Kafka", lambda: len(arrived()) >= 2001)
    assert sequences(arrived()) == Counter([*range(1, 2001), 1500])
    assert [query.get("session") for query in exchange.queries] == [None, [exchange.session]]
    assert bridge.stop() == 0


@pytest.fixture
def small_quotes(broker: str) -> Iterator[None]:
    """raw.quotes takes no message above 4 kB."""
    admin = AdminClient({"bootstrap.servers": broker})

    def limit(value: int) -> None:
        resource = ConfigResource(ConfigResource.Type.TOPIC, RAW_QUOTES)
        entry = ConfigEntry("max.message.bytes", str(value), incremental_operation=AlterConfigOpType.SET)
        resource.add_incremental_config(entry)
        for future in admin.incremental_alter_configs([resource]).values():
            future.result()

    limit(4096)
    yield
    limit(1_048_588)


@pytest.mark.integration
def test_a_frame_that_kafka_refuses_is_not_passed_over(
    small_quotes: None,
    exchange: Exchange,
    service: Callable[..., Any],
    stream_settings: StreamSettings,
    unique: str,
    until: Callable[..., Any],
) -> None:
    """Also when it is not the last of its partition in a message, whose delivery alone is reported."""
    noise = json.dumps("".join(random.Random(1).choices(string.ascii_letters, k=20_000))).encode()
    frames = quotes(unique, 1, 10)
    frames[4] = frames[4].replace(b'"symbol"', b'"note":' + noise + b',"symbol"')
    exchange.frames += frames
    bridge = service("dataflows.bridge", ws_url=exchange.url)
    bridge.start()
    until("the bridge gives up", lambda: not bridge.alive())
    assert "Message size too large" in bridge.log.read_text()
    saved = checkpoint.load(stream_settings.data_dir / "bridge" / "state.json")
    assert saved is not None
    assert saved.acknowledged < 5


@pytest.mark.integration
def test_a_key_goes_where_librdkafka_would_send_it(broker: str, unique: str, until: Callable[..., Any]) -> None:
    admin = AdminClient({"bootstrap.servers": broker})
    admin.create_topics([NewTopic(unique, 97)])[unique].result()
    until("all partitions are known", lambda: len(admin.list_topics(unique).topics[unique].partitions) == 97)
    chance = random.Random(1)
    keys = [chance.randbytes(chance.randrange(20)) for _ in range(500)]
    found: dict[bytes, int] = {}

    def delivered(error: KafkaError | None, message: Message) -> None:
        assert error is None
        found[message.key() or b""] = message.partition()

    producer = Producer({"bootstrap.servers": broker, "partitioner": "murmur2"})
    for key in keys:
        producer.produce(unique, b"x", key, on_delivery=delivered)
    assert producer.flush(30) == 0
    assert found == {key: partition_of(key, 97) for key in keys}
    admin.delete_topics([unique])[unique].result()


SCALARS = st.none() | st.floats() | st.integers() | st.text()
FIELDS = st.sampled_from(["event_type", "data", "type", "sequence", "timestamp"])
NESTED = st.lists(SCALARS) | st.dictionaries(FIELDS, SCALARS | st.dictionaries(FIELDS, SCALARS))
ANYTHING = st.binary(max_size=300) | NESTED.map(lambda value: json.dumps(value).encode())


def test_no_bytes_stop_the_bridge() -> None:
    nowhere = StreamSettings(kafka_bootstrap="127.0.0.1:1", kafka_config={"log_level": "0"})
    bridge = Bridge(nowhere, threading.Event(), {topic: {0: 0} for topic in (*RAW_TOPICS, DLQ_RAW)})

    @hypothesis_settings(max_examples=200)
    @given(st.lists(ANYTHING))
    def take(frames: list[bytes]) -> None:
        bridge.take(frames)

    take()
    bridge.take([b"[" * 100_000])
    bridge.take([b'{"event_type":"TradeExecuted","data":{"sequence":' + b"9" * 5000 + b"}}"])
    bridge.take([b"x" * 1_000_001])


def test_a_checkpoint_survives_on_disk_and_a_foreign_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bridge" / "state.json"
    assert checkpoint.load(path) is None
    saved = checkpoint.Checkpoint("s", 7, {"raw.trades": {0: 5, 3: 9}})
    checkpoint.save(path, saved)
    assert checkpoint.load(path) == saved
    path.write_text("[]")
    with pytest.raises(ValueError, match="is not a checkpoint"):
        checkpoint.load(path)
