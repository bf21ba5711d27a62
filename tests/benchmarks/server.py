"""The exchange's server on loopback: events a second to one client, fifty clients at once, and the delay live.

The frames are the simulated market's own, printed beforehand; publisher, journal and server are the real ones, in
a process of their own, and so are the clients. A client takes the frames off its socket, counts them and hashes
them; count and hash must be the journal's, so one frame lost, doubled or out of order fails the run. Events a
second are counted from the first frame's arrival at the clients to the last one's, while the feed is being
published; all of the server's process is in its CPU time, journal and metrics too.

    python -m tests.benchmarks.server [--events N] [--seconds S] [--only batch|plain|fifty|live|peer]

``peer`` is the same journal sent the way the ``websockets`` library offers, one ``send()`` an event. Rows marked
"websockets client" are read with that library, whose own cost is then the limit.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from simulator.exchange import Exchange
from simulator.faults import Faults
from simulator.journal import Journal
from simulator.market import DataQuality, load_market
from simulator.metrics import ExchangeMetrics
from simulator.publisher import Publisher
from simulator.server import ExchangeServer

BATCH = "tickhouse.batch.v1"


class Scenario(NamedTuple):
    name: str
    clients: int
    batch: bool
    rate: float
    """Events a second that are published; 0 = as fast as it goes."""
    target: float
    """Events a second, all clients together; 0 = the delay is what counts."""
    reader: str = "socket"
    server: str = "exchange"


SCENARIOS = {
    "batch": [
        Scenario("one batching client", 1, True, 0, 150_000),
        Scenario("one batching client, websockets client", 1, True, 0, 150_000, reader="websockets"),
    ],
    "plain": [
        Scenario("one plain client", 1, False, 0, 50_000),
        Scenario("one plain client, websockets client", 1, False, 0, 50_000, reader="websockets"),
    ],
    "fifty": [Scenario("50 plain clients, 2,000 events/s each", 50, False, 2_000, 100_000)],
    "live": [
        Scenario("live, 1,000 events/s, one plain client", 1, False, 1_000, 0),
        Scenario("live, 2,000 events/s, one batching client", 1, True, 2_000, 0),
    ],
    "peer": [Scenario("peer: websockets' send() an event, one plain client", 1, False, 0, 0, server="peer")],
}


# --- the server's process


class Recording:
    """A feed of frames printed beforehand, one every ``gap_us`` of event time."""

    exchange = "TICKHOUSE"
    symbols = ("AAPL",)
    session_id = "benchmark"

    def __init__(self, path: Path, events: int, gap_us: int) -> None:
        self._frames = path.read_bytes().split(b"\n", events)[:events]
        self._gap_us = gap_us

    def events(self) -> Iterator[tuple[int, bytes]]:
        for number, frame in enumerate(self._frames):
            yield 1_800_000_000_000_000 + number * self._gap_us, frame


def _now_us() -> int:
    return time.time_ns() // 1000


async def serve_recording(recording: Recording, root: Path, clients: int, rate: float) -> None:
    """Publish once all clients are there, until stdin ends; says its port, then what it cost."""
    registry = CollectorRegistry()
    metrics = ExchangeMetrics(registry)
    faults = Faults(DataQuality(), 1)
    journal = Journal(root, max_bytes=1 << 40)
    journal.open_session(recording, keep_all=True)
    server = ExchangeServer(journal, metrics, faults, host="127.0.0.1", port=0)
    await server.start()
    print(json.dumps({"port": server.port}), flush=True)
    while registry.get_sample_value("tickhouse_exchange_clients") != clients:
        await asyncio.sleep(0.01)
    start_us = _now_us() + 200_000
    publisher = Publisher(
        recording,
        journal,
        metrics,
        faults,
        clock=_now_us,
        speed=1 if rate else 0,
        start_us=start_us,
        on_published=server.published,
    )
    cpu, began = time.process_time(), time.monotonic()
    await publisher.run()
    server.feed_ended()
    published = time.monotonic() - began
    await asyncio.to_thread(sys.stdin.read)
    print(json.dumps({"start_us": start_us, "cpu": time.process_time() - cpu, "published": published}), flush=True)
    await server.stop()
    journal.close()


async def serve_peer(recording: Recording) -> None:
    """The same frames, each with one ``send()`` of the library."""

    async def send_all(client: ServerConnection) -> None:
        await client.send(json.dumps({"type": "welcome"}))
        for _, frame in recording.events():
            await client.send(frame, text=True)
        await client.wait_closed()

    async with serve(send_all, "127.0.0.1", 0, compression=None) as server:
        print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
        cpu = time.process_time()
        await asyncio.to_thread(sys.stdin.read)
        print(json.dumps({"start_us": 0, "cpu": time.process_time() - cpu}), flush=True)


# --- the clients' process


class SocketClient:
    """Takes frames off a WebSocket as cheaply as Python can; what it keeps is a count and a hash."""

    def __init__(self, port: int, batch: bool) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        protocol = f"Sec-WebSocket-Protocol: {BATCH}\r\n" if batch else ""
        self._socket.sendall(
            f"GET /?from_sequence=0 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"Sec-WebSocket-Version: 13\r\n{protocol}\r\n".encode()
        )
        self._rest = b""
        self._shaken = self._welcomed = False
        self._hash = hashlib.sha256()
        self.frames = 0
        self.arrivals: list[tuple[int, int]] = []
        """(clock in µs, frames so far) after each read."""

    def fileno(self) -> int:
        return self._socket.fileno()

    def take(self) -> None:
        """What the socket has."""
        data = self._socket.recv(1 << 20)
        if not data:
            raise ConnectionError(f"the exchange hung up after {self.frames:,} frames")
        data = self._rest + data
        if not self._shaken:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._rest = head
                return
            assert b" 101 " in head, head
            self._shaken = True
        self._rest = self._messages(data)

    def _messages(self, data: bytes) -> bytes:
        """Count and hash whole messages (RFC 6455, 5.2); returns the rest."""
        messages = []
        at, end = 0, len(data)
        while end - at >= 2:
            first, length = data[at], data[at + 1]
            body = at + 2
            if length == 126:
                body, length = at + 4, int.from_bytes(data[at + 2 : at + 4], "big")
            elif length == 127:
                body, length = at + 10, int.from_bytes(data[at + 2 : at + 10], "big")
            if body > end or body + length > end:
                break
            at = body + length
            if first == 0x81:
                messages.append(data[body:at])
            elif first == 0x89:
                self._socket.sendall(bytes((0x8A, 0x80 | length, 0, 0, 0, 0)) + data[body:at])
            else:
                raise ConnectionError(f"unexpected frame {first:#x}: {data[body:at]!r}")
        if messages and not self._welcomed:
            assert b'"welcome"' in messages.pop(0)
            self._welcomed = True
        if messages:
            block = b"\n".join(messages) + b"\n"
            self._hash.update(block)
            self.frames += block.count(b"\n")
            self.arrivals.append((_now_us(), self.frames))
        return data[at:]

    def result(self) -> dict[str, Any]:
        return {"frames": self.frames, "hash": self._hash.hexdigest(), "arrivals": self.arrivals}


def read_sockets(port: int, clients: int, batch: bool, events: int) -> list[dict[str, Any]]:
    """All clients in one process, whichever has something."""
    selector = selectors.DefaultSelector()
    everyone = [SocketClient(port, batch) for _ in range(clients)]
    for client in everyone:
        selector.register(client, selectors.EVENT_READ)
    while selector.get_map():
        for key, _ in selector.select():
            client = key.fileobj
            assert isinstance(client, SocketClient)
            client.take()
            if client.frames >= events:
                selector.unregister(client)
    return [client.result() for client in everyone]


async def read_library(port: int, batch: bool, events: int) -> list[dict[str, Any]]:
    """One client of the ``websockets`` library."""
    url = f"ws://127.0.0.1:{port}/?from_sequence=0"
    digest = hashlib.sha256()
    frames = 0
    arrivals = []
    async with connect(url, subprotocols=[BATCH] if batch else None, compression=None) as client:
        await client.recv()
        while frames < events:
            message = await client.recv(decode=False)
            digest.update(message)
            digest.update(b"\n")
            frames += message.count(b"\n") + 1
            arrivals.append((_now_us(), frames))
    return [{"frames": frames, "hash": digest.hexdigest(), "arrivals": arrivals}]


# --- the parent


def print_market(path: Path, events: int) -> None:
    """The default market's first frames, one a line."""
    market = Exchange(load_market(), seed=1, start_us=1_800_000_000_000_000, activity=20)
    with path.open("wb") as file:
        for number, (_, frame) in enumerate(market.events(), 1):
            file.write(frame + b"\n")
            if number == events:
                return


def _child(role: str, arguments: Sequence[object]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.server", "--role", role, json.dumps(list(map(str, arguments)))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def _said(process: subprocess.Popen[bytes]) -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"a child ended early, exit code {process.wait()}"
    return json.loads(line)


def run(scenario: Scenario, recording: Path, events: int) -> float:
    """Events a second of all clients together; prints them with what they cost.

    Raises:
        AssertionError: a client did not get exactly the journal.
    """
    with tempfile.TemporaryDirectory(prefix="tickhouse-bench-") as directory:
        root = Path(directory) / "journal"
        gap_us = int(1e6 / scenario.rate) if scenario.rate else 1
        server = _child(scenario.server, (recording, events, gap_us, root, scenario.clients, scenario.rate))
        port = _said(server)["port"]
        reader = _child(scenario.reader, (port, scenario.clients, int(scenario.batch), events))
        results = _said(reader)
        assert reader.wait() == 0
        assert server.stdin is not None
        server.stdin.close()
        cost = _said(server)
        assert server.wait() == 0
        lines = recording.read_bytes().split(b"\n", events)[:events]
        wanted = hashlib.sha256(b"".join(line + b"\n" for line in lines)).hexdigest()
        if scenario.server == "exchange":
            kept = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(root.glob("*/*.jsonl"))))
            assert kept.hexdigest() == wanted, "the journal is not what was published"
    for number, result in enumerate(results["clients"]):
        assert (result["frames"], result["hash"]) == (events, wanted), f"client {number} did not get the journal"
    arrivals = [result["arrivals"] for result in results["clients"]]
    seconds = (max(a[-1][0] for a in arrivals) - min(a[0][0] for a in arrivals)) / 1e6
    total = scenario.clients * events
    rate = total / seconds
    print(f"{scenario.name}: {rate:,.0f} events/s", end="")
    print(
        f", server {100 * cost['cpu'] / seconds:.1f} % of a core, {1e6 * cost['cpu'] / total:.2f} µs an event",
        end="",
    )
    print(f", clients {100 * results['cpu'] / seconds:.0f} % of a core", end="")
    if scenario.rate:
        delays = sorted(delay for a in arrivals for delay in _delays(a, cost["start_us"], gap_us))
        shown = (
            f"p{100 * p:g} {delays[min(len(delays) - 1, int(p * len(delays)))] / 1e3:.1f}" for p in (0.5, 0.99, 1)
        )
        print(f"; due to client, ms: {', '.join(shown)}", end="")
    print(flush=True)
    return rate


def _delays(arrivals: Sequence[Sequence[int]], start_us: int, gap_us: int) -> Iterator[int]:
    """From when each frame was due to when it had arrived, µs."""
    before = 0
    for at, frames in arrivals:
        for number in range(before, frames):
            yield at - start_us - number * gap_us
        before = frames


def _run_child(role: str, text: str) -> None:
    given = json.loads(text)
    if role in ("exchange", "peer"):
        recording = Recording(Path(given[0]), int(given[1]), int(given[2]))
        if role == "peer":
            asyncio.run(serve_peer(recording))
        else:
            asyncio.run(serve_recording(recording, Path(given[3]), int(given[4]), float(given[5])))
        return
    port, clients, batch, events = map(int, given)
    cpu = time.process_time()
    if role == "socket":
        results = read_sockets(port, clients, bool(batch), events)
    else:
        results = asyncio.run(read_library(port, bool(batch), events))
    print(json.dumps({"cpu": time.process_time() - cpu, "clients": results}), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=400_000, help="of a run that goes as fast as it goes")
    parser.add_argument("--seconds", type=float, default=8, help="of a run at a rate")
    parser.add_argument("--only", choices=sorted(SCENARIOS), action="append")
    parser.add_argument("--role", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role:
        _run_child(*arguments.role)
        return 0
    missed = []
    rates: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="tickhouse-bench-") as directory:
        recording = Path(directory) / "frames.jsonl"
        print_market(recording, arguments.events)
        size = os.path.getsize(recording)
        print(f"{arguments.events:,} frames of the simulated market, {size / arguments.events:.0f} bytes each")
        for name in arguments.only or SCENARIOS:
            for scenario in SCENARIOS[name]:
                events = int(scenario.rate * arguments.seconds) or arguments.events
                rate = run(scenario, recording, events)
                rates.setdefault(name, rate)
                if scenario.reader == "socket" and rate < 0.99 * scenario.target:
                    missed.append(f"{scenario.name}: {rate:,.0f} of {scenario.target:,.0f} events/s")
    for name in (name for name in ("batch", "plain", "fifty") if name in rates):
        target = SCENARIOS[name][0].target
        print(f"{name}: {rates[name] / target:.2f} times the target of {target:,.0f} events/s")
        print(f"bench server value={rates[name]:.0f} unit=events/s_{name}")
    if {"plain", "peer"} <= rates.keys():
        print(f"plain: {rates['plain'] / rates['peer']:.1f} times websockets' send() an event")
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
