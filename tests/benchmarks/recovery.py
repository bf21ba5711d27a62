"""What surviving a crash costs the vwap flow, and how soon it is back after one.

Cost: trade frames of 500 symbols, disordered by up to 2 s, go topic → windows → topic through the production flow:
with the recovery store and a snapshot each second, and without either. In turn, each in a process of its own.

Return: ``python -m dataflows.vwap`` reads trades that come live, is killed with SIGKILL, and is started again at
once; from there to the first row that it writes.

    python -m tests.benchmarks.recovery [--trades N] [--rounds R] [--kills K] [--broker auto|kafka|embedded]

CPU time of the flow with all its threads, and beside it the time by the clock, which means little on a busy
machine. Fails when the two sides, or the killed flow, did not write DuckDB's windows, or when a row came twice.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from zlib import crc32

from bytewax.recovery import RecoveryConfig
from bytewax.run import cli_main
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from dataflows.metrics import FLOW_LAG, FLOW_MESSAGES
from dataflows.run import EPOCH, recovery_store
from dataflows.settings import StreamSettings
from dataflows.topics import PROCESSED_VWAP, RAW_TRADES, TOPICS, ensure_topics
from dataflows.vwap import FLOW, build
from tests.benchmarks.brokers import ROOT, a_broker
from tests.benchmarks.vwap import (
    CLOSER,
    START_US,
    Table,
    fill_topic,
    frame,
    read_topic,
    run_duckdb,
    table,
    verdict,
    write_frames,
)

TARGET_THROUGHPUT = 0.9
TARGET_RETURN_S = 5.0
SYMBOLS = 24
TRADES_A_SECOND = 2_000
MARKET_SPEED = 60
"""Seconds of the market in one of the clock: each symbol's minute closes each second."""


def run_flow(address: str, data_dir: Path, trades: int, recovery: bool) -> tuple[float, float]:
    """CPU seconds of a flow that reads so many trades and ends; seconds by the clock until it has read them."""
    settings = StreamSettings(kafka_bootstrap=address, data_dir=data_dir, window_ahead_seconds=1e9)
    stop = threading.Event()
    flow = build(settings, stop)
    options: dict[str, Any] = {"epoch_interval": timedelta(days=1)}
    if recovery:
        store = recovery_store(data_dir / "recovery")
        options = {"epoch_interval": EPOCH, "recovery_config": RecoveryConfig(store)}  # type: ignore[no-untyped-call]
    read_at: list[float] = []

    def stop_when_read() -> None:
        while FLOW_MESSAGES.labels(FLOW, RAW_TRADES)._value.get() < trades:
            time.sleep(0.05)
        read_at.append(time.monotonic())
        while FLOW_LAG.labels(FLOW, RAW_TRADES)._value.get() > 0:  # it counts what waits for the windows too
            time.sleep(0.05)
        time.sleep(1.5)  # that was measured a second ago at the most
        stop.set()

    threading.Thread(target=stop_when_read, daemon=True).start()
    cpu, clock = time.process_time(), time.monotonic()
    cli_main(flow, **options)
    return time.process_time() - cpu, read_at[0] - clock


def renew(settings: StreamSettings, topic: str) -> None:
    """Empty a topic."""
    admin = AdminClient(settings.kafka())
    admin.delete_topics([topic])[topic].result(20)
    while topic in admin.list_topics(timeout=10).topics:
        time.sleep(0.1)
    ensure_topics(settings)


def bench_throughput(folder: Path, address: str, trades: int, rounds: int) -> bool:
    settings = StreamSettings(kafka_bootstrap=address)
    path = write_frames(folder / "trades.ndjson", trades, 500, 2_000_000)
    _, expected = run_duckdb(path)
    read = fill_topic(path, address)
    best: dict[bool, tuple[float, float]] = {}
    for number in range(rounds):
        for recovery in (True, False):
            fresh = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=fresh) as own:
                data_dir = folder / f"{number}-{recovery}"
                took = own.submit(run_flow, address, data_dir, read, recovery).result()
            assert table(read_topic(address, PROCESSED_VWAP)) == expected, "the windows differ from DuckDB's"
            best[recovery] = tuple(map(min, took, best.get(recovery, took)))  # type: ignore[assignment]
            renew(settings, PROCESSED_VWAP)
    kinds = {True: "with recovery", False: "without"}
    for recovery, (cpu, clock) in best.items():
        print(
            f"{kinds[recovery]}: {read / cpu:,.0f} trades a CPU-second, {read / clock:,.0f} a second by the clock"
        )
    ratio, by_clock = (best[False][place] / best[True][place] for place in (0, 1))
    print(f"{len(expected):,} windows equal on both sides and DuckDB's; by the clock {by_clock:.2f} of without")
    print(f"bench recovery value={ratio:.2f} unit=of_without")
    return verdict("throughput of that without", ratio, TARGET_THROUGHPUT)


class Market:
    """Trades that come live; the file has the same."""

    def __init__(self, address: str, path: Path) -> None:
        self._producer = Producer({"bootstrap.servers": address, "linger.ms": 3, "acks": "all"})
        self._partitions = TOPICS[RAW_TRADES].partitions
        self._file = path.open("wb")
        self._sent = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        begun = time.monotonic()
        while not self._stop.wait(0.01):
            due = int((time.monotonic() - begun) * TRADES_A_SECOND)
            for _ in range(due - self._sent):
                symbol = f"S{self._sent % SYMBOLS:03d}"
                value = frame(symbol, self._now_us(), self._sent, 10_000 + self._sent * 31 % 97)
                self._produce(symbol, value, crc32(symbol.encode()) % self._partitions)
                self._file.write(value + b"\n")
                self._sent += 1
            self._producer.poll(0)

    def _now_us(self) -> int:
        return START_US + self._sent * MARKET_SPEED * 1_000_000 // TRADES_A_SECOND

    def _produce(self, symbol: str, value: bytes, partition: int) -> None:
        self._producer.produce(RAW_TRADES, value, symbol, partition)

    def close(self) -> None:
        """All are in Kafka, and of each partition a last one that closes its windows."""
        self._stop.set()
        self._thread.join()
        self._file.close()
        for partition in range(self._partitions):
            self._produce(CLOSER, frame(CLOSER, self._now_us() + 3_600_000_000, self._sent, 100), partition)
        assert self._producer.flush(60) == 0, "the broker does not take the frames"


class Rows:
    """Reads processed.vwap as it grows."""

    def __init__(self, address: str) -> None:
        self._consumer = Consumer({"bootstrap.servers": address, "group.id": "bench", "fetch.wait.max.ms": 10})
        partitions = range(TOPICS[PROCESSED_VWAP].partitions)
        self._consumer.assign([TopicPartition(PROCESSED_VWAP, number, 0) for number in partitions])
        self.values: list[bytes] = []

    def next(self, within: float) -> bool:
        """Whether there is one more, or several, within so many seconds."""
        messages = [each for each in self._consumer.consume(1, within) if each.error() is None]
        messages += [each for each in self._consumer.consume(10_000, 0.0) if each.error() is None]
        self.values += [each.value() for each in messages]
        return bool(messages)


@contextmanager
def vwap(settings: StreamSettings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The flow as a service; killed at the end."""
    environment = {
        **os.environ,
        "TICKHOUSE_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "TICKHOUSE_DATA_DIR": str(settings.data_dir),
        "TICKHOUSE_WINDOW_AHEAD_SECONDS": "1e9",
        "TICKHOUSE_VWAP_METRICS_PORT": "0",
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "dataflows.vwap"], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def bench_return(folder: Path, address: str, kills: int) -> bool:
    settings = StreamSettings(kafka_bootstrap=address, data_dir=folder / "killed")
    for topic in (RAW_TRADES, PROCESSED_VWAP):
        renew(settings, topic)
    path, log = folder / "live.ndjson", folder / "vwap.log"
    rows, market = Rows(address), Market(address, path)
    returns = []
    try:
        for life in range(kills + 1):
            begun = time.monotonic()
            with vwap(settings, log):
                assert rows.next(60), log.read_text()
                if life:
                    returns.append(time.monotonic() - begun)
                steady = time.monotonic() + 5
                while time.monotonic() < steady:
                    rows.next(1)
            while rows.next(0.2):  # what it had sent before it died
                pass
        market.close()
        with vwap(settings, log):
            _, expected = run_duckdb(path)
            deadline = time.monotonic() + 60
            while not rows.next(0.1) or table(iter(rows.values)) != expected:
                assert time.monotonic() < deadline, "the windows of the killed flow differ from DuckDB's"
    finally:
        market.close()
    assert_once(rows.values, expected)
    print(f"{len(returns)} kills, seconds from start to first row: {', '.join(f'{s:.1f}' for s in returns)}")
    print(f"{len(expected):,} windows equal, no row twice")
    print(f"bench recovery value={max(returns):.1f} unit=s_to_first_row")
    return verdict("restart to first row (negative: the fewer the better)", -max(returns), -TARGET_RETURN_S, " s")


def assert_once(values: list[bytes], expected: Table) -> None:
    """Raises AssertionError: a window's revision came more than once."""
    rows = [json.loads(value) for value in values]
    keys = [(row["symbol"], row["window"], row["window_start"], row["revision"]) for row in rows]
    assert len(keys) == len(set(keys)) >= len(expected), f"{len(keys) - len(set(keys))} rows came twice"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trades", type=int, default=1_000_000, help="frames of the topic")
    parser.add_argument("--rounds", type=int, default=3, help="the best counts")
    parser.add_argument("--kills", type=int, default=3, help="the worst counts")
    parser.add_argument("--broker", default="auto", help="auto, kafka or embedded")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="tickhouse-bench-") as directory,
        a_broker(arguments.broker) as address,
    ):
        ensure_topics(StreamSettings(kafka_bootstrap=address))
        good = bench_throughput(Path(directory), address, arguments.trades, arguments.rounds)
        good &= bench_return(Path(directory), address, arguments.kills)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
