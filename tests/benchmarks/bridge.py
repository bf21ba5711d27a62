"""Events a CPU-second of the bridge, from the WebSocket to Kafka, beside the textbook bridge and librdkafka alone.

The frames are the simulated market's own, printed beforehand. A WebSocket server in a process of its own sends
them, one a message or in batches of 256 KiB; the bridge is the real one (``python -m dataflows.bridge``), the
broker too.

``textbook`` is the obvious bridge: ``json.loads``, Pydantic models of floats and texts, the event flattened and
serialised again, one ``produce`` and one ``poll`` a message, no headers. It knows no batches. ``librdkafka`` is
``confluent_kafka.Producer`` fed from memory with the bridge's messages, keys and headers, nothing else.

    python -m tests.benchmarks.bridge [--events N] [--repeats N] [--broker auto|kafka|embedded]

CPU time of the whole process, all threads, from the first frame sent to the last one in Kafka, without its start.
Medians of the repeats. Fails when two sides did not put the same events under the same keys on the same topics.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from confluent_kafka import Consumer, Producer, TopicPartition
from prometheus_client import Counter, Histogram
from pydantic import BaseModel, Field, TypeAdapter, create_model
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from dataflows.settings import StreamSettings
from dataflows.topics import RAW_TOPICS, TOPIC_OF_EVENT, ensure_topics
from dataflows.wire import decode_exact
from simulator.exchange import Exchange
from simulator.market import load_market
from tests.benchmarks.brokers import ROOT, a_broker

BATCH = "tickhouse.batch.v1"
BATCH_BYTES = 256 * 1024
TARGET_BATCHED, TARGET_PLAIN, TARGET_LIBRDKAFKA = 4.0, 2.0, 0.5
DEADLINE_S = 120

Content = dict[str, tuple[int, int]]
"""topic → messages, sum of their hashes"""


def print_frames(path: Path, events: int) -> None:
    exchange = Exchange(load_market(), seed=1, start_us=1_770_000_000_000_000, duration_us=10**15)
    path.write_bytes(b"\n".join(frame for _, frame in islice(exchange.events(), events)))


# --- the exchange's side


def serve_frames(path: Path) -> None:
    """Greets, waits for a line on stdin, sends everything. Prints its port, then a line for each client."""
    frames = path.read_bytes().split(b"\n")
    welcome = json.dumps({"type": "welcome", "exchange": "BENCH", "session_id": "bench", "next_sequence": 1})

    async def client(connection: ServerConnection) -> None:
        await connection.send(welcome)
        print("connected", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        if connection.subprotocol == BATCH:
            block: list[bytes] = []
            size = 0
            for frame in frames:
                block.append(frame)
                size += len(frame) + 1
                if size >= BATCH_BYTES:
                    await connection.send(b"\n".join(block), text=True)
                    block, size = [], 0
            await connection.send(b"\n".join(block), text=True)
        else:
            for frame in frames:
                await connection.send(frame, text=True)
        await connection.wait_closed()

    async def run() -> None:
        def choose(_: ServerConnection, offered: Sequence[Any]) -> Any:
            return BATCH if BATCH in offered and not os.environ.get("PLAIN") else None

        async with serve(client, "127.0.0.1", 0, select_subprotocol=choose, compression=None) as server:
            print(next(iter(server.sockets)).getsockname()[1], flush=True)
            await server.serve_forever()

    asyncio.run(run())


# --- the textbook bridge


def _models() -> TypeAdapter[Any]:
    """The nine events as plain models: no bounds, times are texts."""
    base = {"event_id": str, "timestamp": str}
    order = base | {"order_id": str, "symbol": str, "side": Literal["Buy", "Sell"], "agent_id": str}
    agent = Literal["RetailTrader", "InstitutionalInvestor", "MarketMaker", "HighFrequencyTrader"]
    level = create_model("Level", price=(float, ...), quantity=(int, ...), order_count=(int, 0))
    maybe = float | None
    fields: dict[str, dict[str, Any]] = {
        "OrderPlaced": order
        | {"order_type": Literal["Market", "Limit"], "price": maybe, "quantity": int, "agent_type": agent},
        "OrderCancelled": order | {"price": maybe, "remaining_quantity": int, "reason": str},
        "TradeExecuted": base
        | {"trade_id": str, "symbol": str, "price": float, "quantity": int, "is_aggressive_buy": bool}
        | dict.fromkeys(("buy_order_id", "sell_order_id", "buyer_agent_id", "seller_agent_id"), str),
        "QuoteUpdate": base
        | {"symbol": str, "best_bid": maybe, "best_bid_size": int, "best_ask": maybe}
        | {"best_ask_size": int, "spread": maybe},
        "OrderBookSnapshot": base | {"symbol": str, "bids": list[level], "asks": list[level]},  # type: ignore[valid-type]
        "MarketStats": base
        | {"symbol": str, "volume": int, "trade_count": int}
        | dict.fromkeys(("open", "high", "low", "close", "vwap"), float),
        "TradingHalt": {"symbol": str, "reason": str, "level": int, "halt_duration_secs": int}
        | dict.fromkeys(("trigger_price", "reference_price", "decline_pct"), float),
        "TradingResume": {"symbol": str, "halted_at": str, "level": int, "halt_duration_secs": int},
        "AgentAction": base
        | {"agent_id": str, "agent_type": agent, "symbol": str, "action": str, "decision_factors": list[str]},
    }
    envelopes: list[type[BaseModel]] = []
    for name, types in fields.items():
        data = create_model(name, **{key: (kind, ...) for key, kind in types.items()})  # type: ignore[call-overload]
        envelopes.append(create_model(f"{name}Frame", event_type=(Literal[name], ...), data=(data, ...)))
    union = envelopes[0]
    for envelope in envelopes[1:]:
        union = union | envelope  # type: ignore[assignment]
    return TypeAdapter(Annotated[union, Field(discriminator="event_type")])


def textbook(url: str, bootstrap: str) -> None:
    adapter = _models()
    received = Counter("received", "")
    produced = Counter("produced", "", ["topic"])
    latency = Histogram("latency", "")
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "client.id": "textbook",
            "acks": "all",
            "compression.type": "snappy",
            "linger.ms": 20,
            "batch.size": 65536,
            "queue.buffering.max.messages": 100_000,
            "enable.idempotence": True,
        }
    )

    async def run() -> None:
        async with connect(url, compression=None, max_size=None) as socket:
            async for message in socket:
                received.inc()
                began = time.perf_counter()
                raw = json.loads(message)
                if "event_type" not in raw:
                    continue
                adapter.validate_python(raw)
                data = raw["data"]
                topic = TOPIC_OF_EVENT[raw["event_type"]]
                key = data["agent_id" if raw["event_type"] == "AgentAction" else "symbol"]
                value = json.dumps({"event_type": raw["event_type"], **data}).encode()
                while True:
                    try:
                        producer.produce(topic, value=value, key=key.encode())
                        break
                    except BufferError:
                        producer.poll(0.01)
                producer.poll(0)
                produced.labels(topic=topic).inc()
                latency.observe(time.perf_counter() - began)

    asyncio.run(run())


# --- librdkafka alone


def librdkafka(path: Path, bootstrap: str) -> None:
    """Prints the CPU seconds that producing took."""
    received_at = str(time.time_ns())
    messages = []
    for frame in path.read_bytes().split(b"\n"):
        event_type, key, _, _ = decode_exact(frame)
        headers = [("event_type", event_type), ("source", "BENCH"), ("received_at", received_at)]
        messages.append((TOPIC_OF_EVENT[event_type], frame, key.encode(), [*headers, ("session", "bench")]))
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 3,
            "compression.type": "lz4",
            "partitioner": "murmur2",
            # more is slower: what the producer holds no longer fits the processor's cache
            "queue.buffering.max.messages": StreamSettings().bridge_pending_max,
        }
    )
    producer.list_topics(timeout=10)
    began = time.process_time()
    for topic, value, key, of_frame in messages:
        while True:
            try:
                producer.produce(topic, value, key, headers=of_frame)
                break
            except BufferError:
                producer.poll(0.01)
    producer.flush()
    print(time.process_time() - began, flush=True)


# --- measuring


class Topics:
    """What the raw topics have got since the last look."""

    def __init__(self, bootstrap: str) -> None:
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "bench", "receive.message.max.bytes": 1_000_000_000}
        )
        self._read = self._ends()

    def close(self) -> None:
        self._consumer.close()

    def _ends(self) -> dict[tuple[str, int], int]:
        found = self._consumer.list_topics(timeout=10).topics
        places = [(topic, number) for topic in RAW_TOPICS for number in found[topic].partitions]
        return {
            place: self._consumer.get_watermark_offsets(TopicPartition(*place), timeout=10)[1] for place in places
        }

    def count(self) -> int:
        return sum(self._ends().values()) - sum(self._read.values())

    def content(self, parse: Callable[[bytes], Any]) -> Content:
        """What is new, by its meaning; ``parse`` gives the flattened event."""
        ends = self._ends()
        unread = {place: end for place, end in ends.items() if end > self._read[place]}
        self._consumer.assign([TopicPartition(*place, self._read[place]) for place in unread])
        self._read = ends
        content: Content = {}
        while unread:
            for message in self._consumer.consume(10_000, 0.2):
                assert message.error() is None, message.error()
                text = json.dumps([message.key().decode(), parse(message.value())], sort_keys=True)
                digest = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
                messages, total = content.get(message.topic(), (0, 0))
                content[message.topic()] = (messages + 1, total + digest)
                place = (message.topic(), message.partition())
                if message.offset() + 1 >= unread.get(place, message.offset() + 2):
                    del unread[place]
        return content


def _flattened(frame: bytes) -> Any:
    event = json.loads(frame)
    return {"event_type": event["event_type"], **event["data"]}


def cpu_seconds(pid: int) -> float:
    """Of all threads of a running process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _process(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"{process.args!r} died"
    return line.strip()


def bridged(side: str, frames: Path, events: int, bootstrap: str, topics: Topics) -> tuple[float, Content]:
    """CPU seconds and what came of it."""
    with ExitStack() as stack:
        plain = {} if side == "batched" else {"PLAIN": "1"}
        server = stack.enter_context(_process("tests.benchmarks.bridge", "--serve", str(frames), **plain))
        url = f"ws://127.0.0.1:{_line(server)}"
        if side == "textbook":
            process = stack.enter_context(_process("tests.benchmarks.bridge", "--textbook", url, bootstrap))
        else:
            settings = {"WS_URL": url, "KAFKA_BOOTSTRAP": bootstrap, "BRIDGE_METRICS_PORT": "0"}
            settings["DATA_DIR"] = stack.enter_context(tempfile.TemporaryDirectory())
            environment = {f"TICKHOUSE_{name}": value for name, value in settings.items()}
            process = stack.enter_context(_process("dataflows.bridge", **environment))
        assert _line(server) == "connected"
        time.sleep(0.5)  # so that the start is over
        before = cpu_seconds(process.pid)
        assert server.stdin is not None
        server.stdin.write("go\n")
        server.stdin.flush()
        deadline = time.monotonic() + DEADLINE_S
        while topics.count() < events:
            assert process.poll() is None, f"{side} died"
            assert time.monotonic() < deadline, f"{side}: {topics.count()} of {events} events arrived"
            time.sleep(0.1)
        used = cpu_seconds(process.pid) - before
    return used, topics.content(json.loads if side == "textbook" else _flattened)


def alone(frames: Path, bootstrap: str, topics: Topics) -> tuple[float, Content]:
    with _process("tests.benchmarks.bridge", "--librdkafka", str(frames), bootstrap) as process:
        used = float(_line(process))
    return used, topics.content(_flattened)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--broker", default="auto")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--textbook", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--librdkafka", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.serve:
        serve_frames(Path(given.serve))
        return 0
    if given.textbook:
        textbook(*given.textbook)
        return 0
    if given.librdkafka:
        librdkafka(Path(given.librdkafka[0]), given.librdkafka[1])
        return 0
    used: dict[str, list[float]] = {}
    results: list[Content] = []
    with a_broker(given.broker) as bootstrap, tempfile.TemporaryDirectory() as home:
        ensure_topics(StreamSettings(kafka_bootstrap=bootstrap))
        frames = Path(home) / "frames.jsonl"
        print_frames(frames, given.events)
        mean = frames.stat().st_size / given.events
        topics = Topics(bootstrap)
        for _ in range(given.repeats):
            for side in ("textbook", "plain", "batched", "librdkafka"):
                if side == "librdkafka":
                    seconds, content = alone(frames, bootstrap, topics)
                else:
                    seconds, content = bridged(side, frames, given.events, bootstrap, topics)
                used.setdefault(side, []).append(seconds)
                results.append(content)
                print(f"{side:<10} {given.events / seconds:>9,.0f} events per CPU-second", flush=True)
        topics.close()
    if any(content != results[0] for content in results):
        print("the sides disagree:", *results, sep="\n", file=sys.stderr)
        return 1
    rate = {side: given.events / statistics.median(seconds) for side, seconds in used.items()}
    print(f"{given.events} events, {mean:.0f} bytes in the mean; the same on every topic on all sides")
    for side, peer, target in (
        ("batched", "textbook", TARGET_BATCHED),
        ("plain", "textbook", TARGET_PLAIN),
        ("batched", "librdkafka", TARGET_LIBRDKAFKA),
    ):
        print(f"{side} / {peer}: {rate[side] / rate[peer]:.2f} (target {target})")
    for side, events in rate.items():
        print(f"bench bridge.{side} value={events:.0f} unit=events/cpu-s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
