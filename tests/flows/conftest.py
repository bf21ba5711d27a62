"""One Prefect server for all tests of the flows: starting it is the slow part."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from flows.settings import prefect_environment

DEADLINE_S = 120
"""Generous: a machine under load takes several times the usual ten seconds."""

HTTP = httpx.Client()
"""One for all: ``httpx.get`` makes one at each call, which takes 50 ms of CPU."""

T = TypeVar("T")


def eventually(what: str, look: Callable[[], T], alive: Callable[[], str | None] = lambda: None) -> T:
    """What ``look`` returns once it is true; connections that are refused count as not yet.

    ``alive`` says what went wrong when there is nothing to wait for any more.
    """
    deadline = time.monotonic() + DEADLINE_S
    pause = threading.Event()
    while time.monotonic() < deadline:
        try:
            found = look()
        except httpx.TransportError:
            pass
        else:
            if found:
                return found
        wrong = alive()
        assert wrong is None, wrong
        pause.wait(0.25)  # most looks are a query of the server's database
    raise AssertionError(f"no {what} within {DEADLINE_S} s")


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
        """As the function of that name; the log is shown when it does not come about."""

        def alive() -> str | None:
            ended = self.process.poll() is not None
            return f"{self.process.args!r} ended:\n{self.log.read_text()}" if ended else None

        try:
            return eventually(what, look, alive)
        except AssertionError as error:
            error.add_note(self.log.read_text())
            raise

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

    def runs(self, flow: str | None = None, *states: str) -> list[dict[str, Any]]:
        """Runs of a flow, or of all, in some states, or in any."""
        body: dict[str, Any] = {"sort": "EXPECTED_START_TIME_ASC"}
        if states:
            body["flow_runs"] = {"state": {"type": {"any_": list(states)}}}
        if flow is not None:
            body["flows"] = {"name": {"any_": [flow]}}
        return self.post("flow_runs/filter", body)  # type: ignore[no-any-return]

    def deployment(self, flow: str) -> dict[str, Any]:
        found: dict[str, Any] = HTTP.get(f"{self.api}/deployments/name/{flow}/{flow}").json()
        return found

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Tried again on 503: a busy SQLite, seen from outside. Prefect's own client does the same."""

        def answer() -> httpx.Response | None:
            response = HTTP.post(f"{self.api}/{path}", json=body)
            return None if response.status_code == httpx.codes.SERVICE_UNAVAILABLE else response

        found = self.service.eventually("answer", answer)
        assert found is not None
        return found.raise_for_status().json() if found.content else None

    def start_run(self, flow: str, **parameters: Any) -> str:
        path = f"deployments/{self.deployment(flow)['id']}/create_flow_run"
        return str(self.post(path, {"parameters": parameters})["id"])

    def run(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = HTTP.get(f"{self.api}/flow_runs/{run}").json()
        return found

    def state_of(self, run: str) -> str:
        return str(self.run(run)["state"]["type"])


@dataclass(slots=True)
class Webhook:
    """Where alerts arrive."""

    url: str
    texts: list[str] = field(default_factory=list)


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(server.getsockname()[1]) for server in held]
    for server in held:
        server.close()
    return ports


@pytest.fixture(scope="session")
def webhook() -> Iterator[Webhook]:
    texts: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            texts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield Webhook(f"http://127.0.0.1:{server.server_port}/alerts", texts)
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory, webhook: Webhook) -> Iterator[Prefect]:
    directory = tmp_path_factory.mktemp("flows")
    port, metrics_port = free_ports(2)
    environment = prefect_environment(directory, port) | {
        "TICKHOUSE_DATA_DIR": str(directory),
        "TICKHOUSE_PREFECT_PORT": str(port),
        "TICKHOUSE_FLOWS_METRICS_PORT": str(metrics_port),
        "TICKHOUSE_TABLE_POLL_SECONDS": "0.4",
        "PREFECT_WORKER_QUERY_SECONDS": "0.5",
        "TICKHOUSE_SILVER_CRON": "0 0 1 1 *",  # not during the test: bronze sets it going
        "TICKHOUSE_SILVER_PATIENCE_SECONDS": "0.1",
        "TICKHOUSE_ALERT_WEBHOOK_URL": webhook.url,
        "TICKHOUSE_KAFKA_BOOTSTRAP": "127.0.0.1:1",
    }
    server = Service.start("flows.server", environment, directory)
    try:
        api = environment["PREFECT_API_URL"]
        server.eventually("healthy API", lambda: HTTP.get(f"{api}/health").status_code == 200)
        yield Prefect(server, api, environment, f"http://127.0.0.1:{metrics_port}/metrics", directory)
    finally:
        server.stop()


@pytest.fixture(scope="module")
def flows(prefect: Prefect) -> Iterator[Service]:
    """The batch process, ready."""
    service = Service.start("flows.deployments", prefect.environment, prefect.data_dir)
    try:
        service.eventually("readiness", lambda: "tickhouse_service_ready 1.0" in HTTP.get(prefect.metrics).text)
        yield service
    finally:
        if service.process.poll() is None:
            service.stop()
