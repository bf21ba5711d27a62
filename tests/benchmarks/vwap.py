"""Trades a CPU-second of the vwap flow, beside DuckDB on the same files; with ``--flink`` beside Flink SQL.

Trade frames as the exchange prints them, 1,000 for each second of event time, over 6 and over 500 symbols, in
order and disordered by up to 2 s. The flow reads the file in batches of 8,192, and of 100 as it gets them live,
makes one-minute windows and formats their rows. DuckDB, with one thread, computes the same windows.
Then the same frames go through Kafka: topic → all windows → topic, with a snapshot each second.

    python -m tests.benchmarks.vwap [--trades N] [--flink] [--only files|kafka|flink] [--broker auto|kafka|…]

CPU time of the process that computes, with all its threads. Fails when a one-minute window differs from DuckDB's
in any digit.
"""

from __future__ import annotations

import argparse
import csv
import heapq
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any
from zlib import crc32

import bytewax.operators as op
import duckdb
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.recovery import RecoveryConfig
from bytewax.run import cli_main
from bytewax.testing import TestingSink, run_main
from confluent_kafka import Consumer, Producer, TopicPartition

from dataflows.kafka import Frames
from dataflows.metrics import FLOW_MESSAGES
from dataflows.run import EPOCH, recovery_store
from dataflows.settings import StreamSettings
from dataflows.sink import DeadLetter, Output
from dataflows.topics import PROCESSED_VWAP, RAW_TRADES, ensure_topics
from dataflows.vwap import FLOW, build, op_windows
from dataflows.windows import WINDOWS, Window
from simulator.events import format_timestamp
from tests.benchmarks.brokers import ROOT, a_broker

TARGET_RATIO_DUCKDB = 0.65
TARGET_LIVE = 400_000
TARGET_KAFKA = 300_000
TARGET_FLINK, TARGET_FLINK_STEADY = 10.0, 2.5
START_US = 1_700_000_000_000_000 // 60_000_000 * 60_000_000
APART_US = 1_000
FLINK = "2.3.0"
CLOSER = "~"
"""A symbol of one trade, an hour after all others: closes their windows."""

Table = dict[tuple[str, str], tuple[Any, ...]]
"""(symbol, window start) → open, high, low, close, volume, notional, trades, buy volume"""


def frames(trades: int, symbols: int, disorder_us: int, seed: int = 1) -> Iterator[bytes]:
    """Frames in order of arrival; event times go back by ``disorder_us`` at most."""
    rng = Random(seed)
    prices = [rng.randrange(5_000, 50_000) for _ in range(symbols)]
    delayed: list[tuple[float, int, bytes]] = []
    for i in range(trades):
        symbol = rng.randrange(symbols)
        prices[symbol] = price = max(100, prices[symbol] + rng.randrange(-3, 4))
        time_us = START_US + i * APART_US
        value = frame(f"S{symbol:03d}", time_us, i, price)
        heapq.heappush(delayed, (time_us + rng.random() * disorder_us, i, value))
        while delayed[0][0] <= time_us:
            yield heapq.heappop(delayed)[2]
            if not delayed:
                break
    while delayed:
        yield heapq.heappop(delayed)[2]
    yield frame(CLOSER, START_US + trades * APART_US + 3_600_000_000, trades, 100)


def frame(symbol: str, time_us: int, i: int, cents: int) -> bytes:
    return (
        f'{{"event_type":"TradeExecuted","data":{{"event_id":"e-5d0e3b1c9f42-{3 * i}","timestamp":'
        f'"{format_timestamp(time_us)}","sequence":{3 * i},"trade_id":"t-5d0e3b1c9f42-{i}","symbol":"{symbol}",'
        f'"price":{cents // 100}.{cents % 100:02d},"quantity":{1 + i * 7919 % 900},"buy_order_id":"o-5d0e3b1c9f42-'
        f'{2 * i}","sell_order_id":"o-5d0e3b1c9f42-{2 * i + 1}","buyer_agent_id":"retail-{i % 97:03d}",'
        f'"seller_agent_id":"mm-{i % 13:03d}","is_aggressive_buy":{"true" if i % 3 else "false"}}}}}'
    ).encode()


class _FileSource(DynamicSource[Frames]):
    def __init__(self, path: Path, batch: int) -> None:
        self._path, self._batch = path, batch

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _FilePartition:
        return _FilePartition(self._path, self._batch)


class _FilePartition(StatelessSourcePartition[Frames]):
    def __init__(self, path: Path, batch: int) -> None:
        self._file = path.open("rb", buffering=0)
        self._batch = batch
        self._values: list[bytes] = []
        self._taken = 0
        self._cut = b""
        self._offset = 0

    def next_batch(self) -> list[Frames]:
        values = self._take()
        if not values:
            self._file.close()
            raise StopIteration
        offsets = range(self._offset, self._offset + len(values))
        self._offset += len(values)
        written_ms = [START_US // 1000 + 10**9] * len(values)
        return [Frames(RAW_TRADES, 0, offsets, values, [None] * len(values), written_ms)]

    def _take(self) -> list[bytes]:
        while len(self._values) < self._taken + self._batch and (block := self._file.read(1 << 17)):
            *lines, self._cut = (self._cut + block).split(b"\n")
            self._values = [*self._values[self._taken :], *lines]
            self._taken = 0
        self._taken += self._batch
        return self._values[self._taken - self._batch : self._taken]


def run_flow(path: Path, batch: int, windows: Sequence[Window] = WINDOWS[:1]) -> tuple[float, Table]:
    """CPU seconds, and the one-minute windows."""
    out: list[tuple[str, Output]] = []
    refused: list[tuple[str, DeadLetter]] = []
    flow = Dataflow("bench_vwap")
    rows, letters = op_windows(op.input("in", flow, _FileSource(path, batch)), StreamSettings(), windows=windows)
    op.output("rows", rows, TestingSink(out))
    op.output("letters", letters, TestingSink(refused))
    begin = time.process_time()
    run_main(flow, epoch_interval=EPOCH)
    seconds = time.process_time() - begin
    assert not refused, f"{len(refused)} frames were refused, the first: {refused[0]}"
    return seconds, table(output.value for _, output in out)


def table(values: Iterator[bytes]) -> Table:
    """The newest one-minute windows of some rows, in order."""
    found = {}
    for value in values:
        if b'"window":"1m"' in value:
            row = json.loads(value, parse_float=Decimal)
            if row["symbol"] != CLOSER:
                names = ("open", "high", "low", "close", "volume", "notional", "trade_count", "buy_volume")
                found[row["symbol"], row["window_start"]] = tuple(row[name] for name in names)
    return found


WINDOWS_SQL = """
    select symbol, epoch_us(time_bucket(interval 1 minute, ts)), arg_min(price, (ts, seq)), max(price),
           min(price), arg_max(price, (ts, seq)), sum(quantity),
           sum(price::decimal(19, 8) * quantity::decimal(19, 8)), count(*),
           coalesce(sum(quantity) filter (where buy), 0)
    from (
        select data.symbol as symbol, data.price as price, data.quantity as quantity, data."sequence" as seq,
               data.is_aggressive_buy as buy, data."timestamp" as ts
        from read_json($path, format = 'newline_delimited', columns = {data: 'struct(
            symbol varchar, price decimal(18, 8), quantity decimal(18, 8), is_aggressive_buy boolean,
            "sequence" bigint, "timestamp" timestamp)'})
    )
    group by all
"""


def run_duckdb(path: Path) -> tuple[float, Table]:
    """CPU seconds, and the one-minute windows."""
    with duckdb.connect(config={"threads": 1}) as connection:
        begin = time.process_time()
        rows = connection.execute(WINDOWS_SQL, {"path": str(path)}).fetchall()
        seconds = time.process_time() - begin
    return seconds, {(row[0], format_timestamp(row[1])): row[2:] for row in rows if row[0] != CLOSER}


def verdict(what: str, figure: float, target: float, unit: str = "") -> bool:
    met = figure >= target
    print(f"  {what}: {figure:,.2f}{unit}, target {target:,.2f}{unit}: {'met' if met else 'MISSED'}")
    return met


def bench_files(folder: Path, trades: int, rounds: int) -> bool:
    good = True
    for symbols in (6, 500):
        for name, disorder_us in (("in order", 0), ("disordered", 2_000_000)):
            path = write_frames(folder / "trades.ndjson", trades, symbols, disorder_us)
            peer = whole = live = float("inf")
            for _ in range(rounds):  # in turn: what else runs on the machine disturbs all alike
                seconds, expected = run_duckdb(path)
                peer = min(peer, seconds)
                seconds, windows = run_flow(path, 8192)
                whole = min(whole, seconds)
                assert windows == expected, "the flow's windows differ from DuckDB's"
                seconds, windows = run_flow(path, 100)
                live = min(live, seconds)
                assert windows == expected, "the windows of small batches differ from DuckDB's"
            print(
                f"{symbols} symbols, {name}: {len(expected):,} windows equal; thousand trades a CPU-second:"
                f" flow {trades / whole / 1e3:,.0f}, in batches of 100 {trades / live / 1e3:,.0f},"
                f" DuckDB {trades / peer / 1e3:,.0f}"
            )
            good &= verdict("of DuckDB's speed", peer / whole, TARGET_RATIO_DUCKDB)
            good &= verdict("live batches", trades / live, TARGET_LIVE, "/s")
            print(f"bench vwap value={peer / whole:.2f} unit=of_duckdb_{symbols}_{name.replace(' ', '_')}")
    return good


def bench_kafka(folder: Path, trades: int, broker: str) -> bool:
    """Topic → windows → topic, with the production flow and a snapshot each second."""
    path = write_frames(folder / "trades.ndjson", trades, 500, 2_000_000)
    _, expected = run_duckdb(path)
    with a_broker(broker) as address:
        settings = StreamSettings(kafka_bootstrap=address, data_dir=folder / "data", window_ahead_seconds=1e9)
        ensure_topics(settings)
        read = fill_topic(path, address)
        stop = threading.Event()
        flow = build(settings, stop)
        threading.Thread(target=stop_when_read, args=(read, stop), daemon=True).start()
        recovery = RecoveryConfig(recovery_store(settings.data_dir / "recovery"))  # type: ignore[no-untyped-call]
        begin = time.process_time()
        cli_main(flow, epoch_interval=EPOCH, recovery_config=recovery)  # type: ignore[no-untyped-call]
        seconds = time.process_time() - begin
        windows = table(read_topic(address, PROCESSED_VWAP))
    assert windows == expected, "the windows that went through Kafka differ from DuckDB's"
    print(f"through Kafka ({broker}), 500 symbols, disordered: {len(expected):,} windows equal")
    print(f"bench vwap value={read / seconds:.0f} unit=trades_a_cpu_second_through_kafka")
    return verdict("topic to window", read / seconds, TARGET_KAFKA, "/s")


def bench_flink(folder: Path, trades: int) -> bool:
    """Flink SQL in an environment of its own, on a job and on one of five times the size."""
    python = ROOT / ".tickhouse" / "cache" / f"apache-flink-{FLINK}" / "bin" / "python"
    if not python.exists():
        subprocess.run(["uv", "venv", "--quiet", "--python", "3.11", python.parents[1]], check=True)
        subprocess.run(
            ["uv", "pip", "install", "--quiet", "--python", python, f"apache-flink=={FLINK}"], check=True
        )
    ours, flink = [], []
    for size in (trades, 5 * trades):
        path = write_frames(folder / "trades.ndjson", size, 6, 0)
        seconds, windows = run_flow(path, 8192)
        ours.append(seconds)
        seconds, peer_windows = run_flink(python, path, folder / f"flink-{size}")
        flink.append(seconds)
        assert {key: (*row[1:3], *row[4:]) for key, row in windows.items()} == peer_windows, "Flink's differ"
    print(f"6 symbols, in order, {trades:,} and {5 * trades:,} trades: CPU s flow {ours}, Flink {flink}")
    whole, steady = flink[0] / ours[0], (flink[1] - flink[0]) / (ours[1] - ours[0])
    print(f"bench vwap value={whole:.1f} unit=of_flink")
    good = verdict("of Flink's speed on the whole job", whole, TARGET_FLINK)
    return verdict("of Flink's steady state", steady, TARGET_FLINK_STEADY) and good


def run_flink(python: Path, path: Path, output: Path) -> tuple[float, Table]:
    """CPU seconds of the JVM, and the one-minute windows without open and close, which its SQL has no name for."""
    script = Path(__file__).with_name("vwap_flink.py")
    done = subprocess.run([python, script, path, output], check=True, capture_output=True, text=True)
    found: Table = {}
    for file in output.rglob("*"):
        for row in csv.reader(file.read_text().splitlines()) if file.is_file() else ():
            high, low, volume, notional = (Decimal(text) for text in row[2:6])
            if row[0] != CLOSER:
                key = (row[0], format_timestamp(int(row[1]) * 1_000_000))
                found[key] = (high, low, volume, notional, int(row[6]), Decimal(row[7]))
    return float(done.stdout.split()[-1]), found


def fill_topic(path: Path, address: str) -> int:
    """Produce the frames as the bridge does, keyed by symbol, a closing one to each partition; how many."""
    producer = Producer({"bootstrap.servers": address, "linger.ms": 20, "compression.type": "lz4", "acks": "all"})
    partitions = len(producer.list_topics(RAW_TRADES, timeout=10).topics[RAW_TRADES].partitions)
    produced = 0
    with path.open("rb") as lines:
        for line in lines:
            value = line.rstrip()
            symbol = value.split(b'"symbol":"', 1)[1].split(b'"', 1)[0]
            targets = range(partitions) if symbol == CLOSER.encode() else [crc32(symbol) % partitions]
            for target in targets:
                while True:
                    try:
                        producer.produce(RAW_TRADES, value, symbol, target)
                    except BufferError:
                        producer.poll(0.1)
                    else:
                        break
                produced += 1
    assert producer.flush(60) == 0, "the broker does not take the frames"
    return produced


def stop_when_read(messages: int, stop: threading.Event) -> None:
    """Set ``stop`` when the flow has read that many."""
    while FLOW_MESSAGES.labels(FLOW, RAW_TRADES)._value.get() < messages:
        time.sleep(0.1)
    time.sleep(1)  # what has been read is still on its way through the windows
    stop.set()


def read_topic(address: str, topic: str) -> Iterator[bytes]:
    """All values, those of a partition in order."""
    consumer = Consumer(
        {"bootstrap.servers": address, "group.id": "bench", "receive.message.max.bytes": 1_000_000_000}
    )
    for number in consumer.list_topics(topic, timeout=10).topics[topic].partitions:
        partition = TopicPartition(topic, number)
        low, high = consumer.get_watermark_offsets(partition, timeout=10)
        consumer.assign([TopicPartition(topic, number, low)])
        while low < high:
            for message in consumer.consume(10_000, 1.0):
                assert message.error() is None, message.error()
                low = message.offset() + 1
                yield message.value()
    consumer.close()


def write_frames(path: Path, trades: int, symbols: int, disorder_us: int) -> Path:
    with path.open("wb") as file:
        file.writelines(value + b"\n" for value in frames(trades, symbols, disorder_us))
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trades", type=int, default=2_000_000, help="frames of a file")
    parser.add_argument("--rounds", type=int, default=3, help="the best counts")
    parser.add_argument("--broker", default="auto", help="auto, kafka or embedded")
    parser.add_argument("--only", choices=["files", "kafka", "flink"], help="one part alone")
    parser.add_argument("--flink", action="store_true", help="Flink SQL too: needs Java, and installs 1 GB")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tickhouse-bench-") as directory:
        folder, good = Path(directory), True
        if arguments.only in (None, "files"):
            good &= bench_files(folder, arguments.trades, arguments.rounds)
        if arguments.only in (None, "kafka"):
            good &= bench_kafka(folder, arguments.trades, arguments.broker)
        if arguments.flink or arguments.only == "flink":
            good &= bench_flink(folder, arguments.trades)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
