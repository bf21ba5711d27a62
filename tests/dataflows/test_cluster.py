"""A flow as several processes writes what one writes, also when one of them is killed, or there are more later."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message
from pyiceberg.expressions import StartsWith

from dataflows.settings import StreamSettings
from lakehouse.catalog import open_catalog
from lakehouse.settings import LakehouseSettings
from lakehouse.tables import create_tables
from tests.dataflows.test_vwap import figures, naive_minutes, shuffled

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.integration


class Running:
    """``python -m dataflows.cluster`` against the test's broker and data directory."""

    def __init__(self, arguments: list[str], environment: dict[str, str], log: Path, port: int) -> None:
        self.log, self.port = log, port
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dataflows.cluster", *arguments],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=output,
                stderr=output,
            )

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


@pytest.fixture
def cluster(stream_settings: StreamSettings, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """(processes, flow, metrics port) → running, with the topics there; everything is ended after the test."""
    started: list[Running] = []

    def start(processes: int, flow: str, port: int = 0) -> Running:
        environment = {
            "TICKHOUSE_KAFKA_BOOTSTRAP": stream_settings.kafka_bootstrap,
            "TICKHOUSE_DATA_DIR": str(tmp_path),
            "TICKHOUSE_IDLE_CLOSE_SECONDS": "2",
            "TICKHOUSE_WINDOW_AHEAD_SECONDS": "1e9",  # the trades are of the year 2030
            "TICKHOUSE_BRONZE_COMMIT_SECONDS": "0.3",
            f"TICKHOUSE_{flow.upper()}_METRICS_PORT": str(port),
        }
        log = tmp_path / f"{flow}-{len(started)}.log"
        started.append(Running([str(processes), flow], environment, log, port))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.stop()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_two_processes_one_of_them_killed_then_three_write_the_windows_of_one(
    cluster: Callable[[int, str], Any],
    produce: Callable[..., None],
    count_messages: Callable[[str], int],
    read_topic: Callable[..., list[Message]],
    trade_frame: Callable[..., bytes],
    unique: str,
    until: Callable[..., Any],
) -> None:
    trades = shuffled(trade_frame, [f"{unique}{i}" for i in range(12)], 6000, seed=2)

    def send(begin: int, end: int) -> None:
        before = count_messages("processed.vwap")
        for symbol, value in trades[begin:end]:
            produce("raw.trades", value, symbol)
        until("rows come out", lambda: count_messages("processed.vwap") > before)

    two = cluster(2, "vwap")
    send(0, 2000)
    first = until("two processes run", lambda: len(found := children(two.process.pid)) == 2 and found)
    os.kill(first[1], signal.SIGKILL)
    until(
        "both are started again", lambda: len(now := children(two.process.pid)) == 2 and not set(now) & set(first)
    )
    send(2000, 4000)
    assert two.stop() == 0
    three = cluster(3, "vwap")
    send(4000, 6000)

    expected = naive_minutes([value for _, value in trades])

    def written() -> list[Message]:
        return [m for m in read_topic("processed.vwap") if m.key().startswith(unique.encode())]

    def final() -> bool:
        table = {m.key(): json.loads(m.value(), parse_float=Decimal) for m in written()}
        return {k.decode(): figures(row) for k, row in table.items() if row["window"] == "1m"} == expected

    until("the newest rows are the exact ones", final)
    versions = [(m.key(), json.loads(m.value())["revision"]) for m in written()]
    assert len(versions) == len(set(versions))
    assert three.stop() == 0


def test_bronze_as_two_processes_one_of_them_killed_then_as_three_stores_every_record_once(
    cluster: Callable[[int, str], Any],
    produce: Callable[..., None],
    trade_frame: Callable[..., bytes],
    unique: str,
    tmp_path: Path,
    until: Callable[..., Any],
) -> None:
    lake = LakehouseSettings(data_dir=tmp_path)
    create_tables(open_catalog(lake))
    trades = open_catalog(lake).load_table("bronze.trades")
    expected: list[str] = []

    def send(count: int) -> None:
        for number in range(len(expected), len(expected) + count):
            symbol = f"{unique}{number % 12}"
            produce("raw.trades", trade_frame(symbol, 1_770_000_000_000_000 + number, sequence=number), symbol)
            expected.append(f"t-{symbol}-{number}")

    def stored() -> list[str]:
        rows = trades.refresh().scan(StartsWith("symbol", unique), selected_fields=("trade_id",)).to_arrow()
        return sorted(rows["trade_id"].to_pylist())

    two = cluster(2, "bronze")
    send(1000)
    until("rows are committed", stored)
    first = until("two processes run", lambda: len(found := children(two.process.pid)) == 2 and found)
    send(1000)
    os.kill(first[1], signal.SIGKILL)
    until(
        "both are started again", lambda: len(now := children(two.process.pid)) == 2 and not set(now) & set(first)
    )
    send(1000)
    until("the others are committed", lambda: len(stored()) >= 3000)
    send(1000)
    assert two.stop() == 0
    three = cluster(3, "bronze")
    send(1000)
    until("all are there", lambda: len(stored()) >= 5000)
    assert three.stop() == 0
    assert stored() == sorted(expected)


def test_a_second_one_of_a_flow_that_runs_is_refused(
    cluster: Callable[..., Any], until: Callable[..., Any]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = int(server.getsockname()[1])
    first = cluster(1, "orderbook", port)
    until("it serves its metrics", first.answers)
    second = cluster(1, "orderbook", port)
    assert second.process.wait(timeout=30) == 1
    assert "orderbook runs already" in second.log.read_text()
    assert first.stop() == 0
