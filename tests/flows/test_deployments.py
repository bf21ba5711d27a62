"""The batch side with a real Prefect server: runs get scheduled, run, and none blocks the next for ever."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pyarrow as pa
import pytest

from flows.settings import prefect_environment
from lakehouse.append import append_exactly_once
from lakehouse.catalog import open_catalog
from lakehouse.settings import LakehouseSettings
from lakehouse.tables import arrow_schema, create_tables

DEADLINE_S = 120
"""Generous: a machine under load takes several times the usual ten seconds."""
EVENT = datetime(2026, 3, 13, 12, tzinfo=UTC)

T = TypeVar("T")


@dataclass(slots=True)
class Service:
    """A process of ours and its log."""

    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(cls, module: str, environment: dict[str, str], directory: Path) -> Service:
        log = directory / f"{module}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", module],
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        return cls(process, log)

    def eventually(self, what: str, look: Callable[[], T]) -> T:
        """What ``look`` returns once it is true; connections that are refused count as not yet."""
        deadline = time.monotonic() + DEADLINE_S
        pause = threading.Event()
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"{self.process.args!r} ended:\n{self.log.read_text()}"
            try:
                found = look()
            except httpx.TransportError:
                pass
            else:
                if found:
                    return found
            pause.wait(0.1)
        raise AssertionError(f"no {what} within {DEADLINE_S} s:\n{self.log.read_text()}")

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        self.process.terminate()
        try:
            return self.process.wait(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@dataclass(slots=True)
class Prefect:
    """A server with an empty database."""

    service: Service
    api: str
    environment: dict[str, str]
    metrics: str
    data_dir: Path

    def runs(self, **state: list[str]) -> list[dict[str, Any]]:
        body = {"flow_runs": {"state": state}, "sort": "EXPECTED_START_TIME_ASC"}
        found: list[dict[str, Any]] = httpx.post(f"{self.api}/flow_runs/filter", json=body).json()
        return found

    def deployment(self, flow: str) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{self.api}/deployments/name/{flow}/{flow}").json()
        return found

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Tried again on 503: a busy SQLite, seen from outside. Prefect's own client does the same."""

        def answer() -> httpx.Response | None:
            response = httpx.post(f"{self.api}/{path}", json=body)
            return None if response.status_code == httpx.codes.SERVICE_UNAVAILABLE else response

        found = self.service.eventually("answer", answer)
        assert found is not None
        content: dict[str, Any] = found.raise_for_status().json()
        return content

    def start_run(self, flow: str) -> str:
        return str(self.post(f"deployments/{self.deployment(flow)['id']}/create_flow_run", {})["id"])

    def state_of(self, run: str) -> str:
        return str(httpx.get(f"{self.api}/flow_runs/{run}").json()["state"]["type"])


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(server.getsockname()[1]) for server in held]
    for server in held:
        server.close()
    return ports


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    directory = tmp_path_factory.mktemp("flows")
    port, metrics_port = free_ports(2)
    environment = prefect_environment(directory, port) | {
        "TICKHOUSE_DATA_DIR": str(directory),
        "TICKHOUSE_PREFECT_PORT": str(port),
        "TICKHOUSE_FLOWS_METRICS_PORT": str(metrics_port),
        "TICKHOUSE_TABLE_POLL_SECONDS": "0.2",
        "TICKHOUSE_SILVER_CRON": "0 0 1 1 *",  # not during the test: it starts the runs it needs
    }
    server = Service.start("flows.server", environment, directory)
    try:
        api = environment["PREFECT_API_URL"]
        server.eventually("healthy API", lambda: httpx.get(f"{api}/health").status_code == 200)
        yield Prefect(server, api, environment, f"http://127.0.0.1:{metrics_port}/metrics", directory)
    finally:
        server.stop()


@pytest.fixture(scope="module")
def flows(prefect: Prefect) -> Iterator[Service]:
    """The batch process, ready."""
    service = Service.start("flows.deployments", prefect.environment, prefect.data_dir)
    try:
        service.eventually("readiness", lambda: "tickhouse_service_ready 1.0" in httpx.get(prefect.metrics).text)
        yield service
    finally:
        if service.process.poll() is None:
            service.stop()


def trade() -> pa.Table:
    row = {
        "event_id": "e",
        "timestamp": EVENT,
        "sequence": 1,
        "trade_id": "t",
        "symbol": "AAPL",
        "price": Decimal("185.25"),
        "quantity": Decimal(100),
        "buy_order_id": "b",
        "sell_order_id": "s",
        "buyer_agent_id": "x",
        "seller_agent_id": "y",
        "is_aggressive_buy": True,
        "_kafka_topic": "raw.trades",
        "_kafka_partition": 0,
        "_kafka_offset": 0,
        "_ingested_at": EVENT,
    }
    return pa.Table.from_pylist([row], schema=arrow_schema("bronze.trades"))


def test_the_scheduler_creates_runs_of_silver(prefect: Prefect, flows: Service) -> None:
    scheduled = flows.eventually("scheduled run", lambda: prefect.runs(type={"any_": ["SCHEDULED"]}))
    assert {run["deployment_id"] for run in scheduled} == {prefect.deployment("silver")["id"]}


def test_a_run_of_silver_refines_and_sets_gold_going(prefect: Prefect, flows: Service) -> None:
    catalog = open_catalog(LakehouseSettings(data_dir=prefect.data_dir))
    create_tables(catalog)
    append_exactly_once(catalog.load_table("bronze.trades"), trade(), {"raw.trades": {0: 1}})
    run = prefect.start_run("silver")
    flows.eventually("end of silver", lambda: prefect.state_of(run) == "COMPLETED")

    def gold_ended() -> bool:
        ended = prefect.runs(type={"any_": ["COMPLETED"]})
        return prefect.deployment("gold")["id"] in {run["deployment_id"] for run in ended}

    flows.eventually("end of gold", gold_ended)
    (day,) = catalog.load_table("gold.daily_trading_summary").scan().to_arrow().to_pylist()
    assert (day["symbol"], day["vwap"], day["trade_count"]) == ("AAPL", Decimal("185.25"), 1)

    def gauges_follow() -> bool:
        text = httpx.get(prefect.metrics).text
        return (
            'tickhouse_table_rows{layer="gold",table="minute_bars"} 1.0' in text
            and 'tickhouse_quality_check_passed{contract="silver.trades"} 1.0' in text
            and f"tickhouse_service_last_event_timestamp_seconds {EVENT.timestamp():.9e}".split("e")[0] in text
        )

    flows.eventually("gauges of the new rows", gauges_follow)


def test_a_run_that_was_abandoned_is_closed_and_the_next_one_runs(prefect: Prefect, flows: Service) -> None:
    """As after a SIGKILL of the worker: the run stands at Running and holds its deployment's only slot."""
    flows.process.send_signal(signal.SIGKILL)
    flows.process.wait()
    abandoned = prefect.start_run("silver")
    for state in ("PENDING", "RUNNING"):
        prefect.post(f"flow_runs/{abandoned}/set_state", {"state": {"type": state}})
    assert prefect.state_of(abandoned) == "RUNNING"

    again = Service.start("flows.deployments", prefect.environment, prefect.data_dir)
    try:
        again.eventually("end of the abandoned run", lambda: prefect.state_of(abandoned) == "CRASHED")
        run = prefect.start_run("silver")
        again.eventually("end of the next run", lambda: prefect.state_of(run) == "COMPLETED")
    finally:
        assert again.stop() == 0
