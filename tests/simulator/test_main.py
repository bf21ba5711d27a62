"""The exchange as a real process: killed, resumed, stopped, misconfigured."""

from __future__ import annotations

import gzip
import itertools
import json
import socket
import time
import urllib.request
from pathlib import Path

import pytest
from websockets.sync.client import connect as connect_websocket

from simulator.__main__ import StartError, read_settings
from simulator.events import format_timestamp, parse_frame
from simulator.recorded.coinbase import CoinbaseReplay

COINBASE = Path(__file__).parents[3] / "shared/data/coinbase_ws_capture.txt"


def connect(url: str, **options):
    """With an unlimited queue: a full one would keep the client from seeing the answer to its close."""
    return connect_websocket(url, compression=None, max_queue=None, **options)


class Bridge:
    """A client that remembers, as the real one does, which session and sequence it has."""

    def __init__(self) -> None:
        self.session: str | None = None
        self.frames: dict[str, list[bytes]] = {}

    def run(self, url: str, until, *, batch: bool = True) -> None:
        """Connect, resume, receive until the condition holds."""
        query = "?from_sequence=0"
        if self.session is not None:
            query = f"?session={self.session}&from_sequence={len(self.frames[self.session]) + 1}"
        protocols = ["tickhouse.batch.v1"] if batch else None
        with connect(url + query, subprotocols=protocols) as client:
            while not until(self):
                for line in client.recv(timeout=20, decode=False).split(b"\n"):
                    self.take(line)

    def take(self, line: bytes) -> None:
        if line.startswith(b'{"type"'):
            hello = json.loads(line)
            self.session = hello["session_id"]
            have = self.frames.setdefault(self.session, [])
            assert hello["next_sequence"] == len(have) + 1
        else:
            have = self.frames[self.session]
            assert json.loads(line)["data"]["sequence"] == len(have) + 1, "each frame exactly once, in order"
            have.append(line)


def journalled(data: Path) -> dict[str, list[bytes]]:
    sessions = {}
    for path in (data / "exchange" / "journal").iterdir():
        if path.is_dir():
            segments = sorted(path.glob("*.jsonl"))
            sessions[path.name] = b"".join(segment.read_bytes() for segment in segments).splitlines()
    return sessions


@pytest.mark.parametrize("batch", [False, True])
def test_a_client_that_resumes_after_sigkills_gets_every_frame_exactly_once(exchange_process, tmp_path, batch):
    bridge = Bridge()
    environment = {"TICKHOUSE_EXCHANGE_ACTIVITY": "5"}
    for sessions in (1, 2):
        exchange = exchange_process(**environment)
        bridge.run(
            exchange.url,
            lambda b, sessions=sessions: len(b.frames) == sessions and len(b.frames[b.session]) > 500,
            batch=batch,
        )
        exchange.kill()
    printed = journalled(tmp_path / "data")
    exchange = exchange_process(**environment)
    bridge.run(exchange.url, lambda b: len(b.frames) == 3 and len(b.frames[b.session]) > 100, batch=batch)
    assert len(printed) == 2
    for session, lines in printed.items():
        assert bridge.frames[session] == lines
    everything = [json.loads(line)["data"]["event_id"] for lines in bridge.frames.values() for line in lines]
    assert len(set(everything)) == len(everything)
    assert exchange.terminate() == 0


def test_frames_of_the_process_are_valid_and_arrive_within_ten_milliseconds(exchange_process):
    exchange = exchange_process()
    delays = []
    with connect(exchange.url, subprotocols=["tickhouse.batch.v1"]) as client:
        client.recv(timeout=20)
        while len(delays) < 1_500:
            message = client.recv(timeout=20, decode=False)
            now = time.time()
            for line in message.split(b"\n"):
                event = parse_frame(line).data
                delays.append(now - event.timestamp.timestamp())
    delays.sort()
    assert delays[0] >= -0.001, "no frame is early"
    assert delays[len(delays) // 10] < 0.010, "a loaded machine is late at times; a tenth of the frames is not"


def test_metrics_say_what_the_exchange_does(exchange_process):
    exchange = exchange_process()
    with connect(exchange.url) as client:
        received = 0
        while b'"TradeExecuted"' not in client.recv(timeout=20, decode=False) or received < 300:
            received += 1
        text = urllib.request.urlopen(f"http://127.0.0.1:{exchange.metrics_port}/metrics").read().decode()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert values["tickhouse_service_ready"] == "1.0"
    assert values["tickhouse_exchange_clients"] == "1.0"
    assert values["tickhouse_exchange_feed_finished"] == "0.0"
    assert abs(float(values["tickhouse_service_last_event_timestamp_seconds"]) - time.time()) < 10
    by_type = [float(v) for k, v in values.items() if k.startswith("tickhouse_exchange_events_total")]
    assert len(by_type) == 9
    assert sum(by_type) == float(values["tickhouse_exchange_sequence"]) >= received
    assert float(values["tickhouse_exchange_trade_quantity_total"]) > 0
    assert float(values["process_resident_memory_bytes"]) > 0


def capture(path: Path, trades: int) -> Path:
    start_ms = 1_723_161_256_000
    with gzip.open(path, "wt") as file:
        for number in range(trades):
            now = start_ms + number * 10
            data = {
                "e": "trade",
                "E": now,
                "T": now,
                "s": "BTCUSDT",
                "t": number + 1,
                "p": "61800.20",
                "q": "0.006",
            }
            message = {"stream": "btcusdt@trade", "data": {**data, "X": "MARKET", "m": bool(number % 2)}}
            file.write(f"{now * 1_000_000} {json.dumps(message)}\n")
    return path


def test_a_replay_killed_on_the_way_continues_its_session_and_nothing_is_lost_or_doubled(
    exchange_process, tmp_path
):
    path = capture(tmp_path / "capture.gz", 3_000)
    bridge = Bridge()
    first = exchange_process("--file", str(path), "--speed", "20")
    bridge.run(first.url, lambda b: sum(map(len, b.frames.values())) > 300)
    first.kill()
    second = exchange_process("--file", str(path), "--speed", "0")
    second.wait_for_log("the feed has ended")
    assert "is continued after frame" in second.log()
    (printed,) = journalled(tmp_path / "data").values()
    bridge.run(second.url, lambda b: len(b.frames[b.session]) == len(printed))
    assert list(bridge.frames.values()) == [printed]
    trades = [line for line in printed if b'"TradeExecuted"' in line]
    assert len({json.loads(line)["data"]["trade_id"] for line in trades}) == len(trades) == 3_000
    assert second.terminate() == 0


def test_a_simulated_market_at_speed_zero_with_an_end_loses_nothing(exchange_process, tmp_path):
    exchange = exchange_process("--speed", "0", "--duration", "30", TICKHOUSE_EXCHANGE_JOURNAL_MAX_MB="16")
    exchange.wait_for_log("the feed has ended")
    (printed,) = journalled(tmp_path / "data").values()
    assert len(printed) > 15_000
    bridge = Bridge()
    bridge.run(exchange.url, lambda b: len(b.frames.get(b.session, ())) == len(printed))
    assert bridge.frames[bridge.session] == printed


def test_sigterm_ends_it_in_time_even_with_a_client_that_reads_nothing(exchange_process):
    exchange = exchange_process("--speed", "0", "--duration", "60")
    raw = socket.create_connection(("127.0.0.1", exchange.port))
    raw.sendall(
        b"GET /?from_sequence=0 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    exchange.wait_for_log("one event a message")
    exchange.wait_for_log("the feed has ended")
    began = time.monotonic()
    assert exchange.terminate() == 0
    assert time.monotonic() - began < 10
    assert "stopped after frame" in exchange.log()
    raw.close()


def last_line(exchange) -> str:
    assert exchange.process.wait(20) == 1
    lines = exchange.log().splitlines()
    assert not any("Traceback" in line for line in lines), exchange.log()
    return lines[-1]


def test_a_taken_port_is_one_clear_line(exchange_process, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = last_line(exchange_process(TICKHOUSE_EXCHANGE_PORT=port, ready=False))
        assert f"127.0.0.1:{port} cannot be opened" in line
        assert "TICKHOUSE_EXCHANGE_PORT" in line
        line = last_line(exchange_process(TICKHOUSE_EXCHANGE_METRICS_PORT=port, ready=False))
        assert f"metrics port {port}" in line


def test_a_second_exchange_on_the_same_data_is_one_clear_line(exchange_process):
    exchange_process()
    assert "another exchange uses the journal" in last_line(exchange_process(ready=False))


def test_a_missing_capture_is_one_clear_line(exchange_process, tmp_path):
    line = last_line(exchange_process("--file", str(tmp_path / "nothing.gz"), ready=False))
    assert "nothing.gz" in line


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--feed", "replay"], "TICKHOUSE_REPLAY_FILE"),
        (["--speed", "0"], "TICKHOUSE_EXCHANGE_DURATION_SECONDS"),
        (["--activity", "-1"], "TICKHOUSE_EXCHANGE_ACTIVITY: "),
        (["--port", "99999"], "TICKHOUSE_EXCHANGE_PORT: "),
    ],
)
def test_a_wrong_setting_is_named_by_its_variable(options, complaint, monkeypatch):
    monkeypatch.setenv("TICKHOUSE_REPLAY_FILE", "")
    with pytest.raises(StartError, match=complaint):
        read_settings(options)


def test_options_override_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("TICKHOUSE_EXCHANGE_SEED", "5")
    monkeypatch.setenv("TICKHOUSE_REPLAY_SPEED", "3")
    assert read_settings([])[0].exchange_seed == 5
    assert read_settings(["--seed", "9"])[0].exchange_seed == 9
    replay, _ = read_settings(["--file", str(tmp_path / "x.gz")])
    assert (replay.exchange_feed, replay.speed, replay.feed_ends) == ("replay", 3.0, True)
    assert read_settings(["--file", "x.gz", "--speed", "0"])[0].speed == 0


@pytest.mark.skipif(not COINBASE.exists(), reason=f"recorded capture {COINBASE.name} is not here")
def test_a_coinbase_capture_is_served_whole(exchange_process):
    exchange = exchange_process("--file", str(COINBASE), "--speed", "0")
    exchange.wait_for_log("the feed has ended")
    expected = [frame for _, frame in CoinbaseReplay(COINBASE).events()]
    bridge = Bridge()
    bridge.run(exchange.url, lambda b: len(b.frames.get(b.session, ())) == len(expected), batch=False)
    assert bridge.frames[bridge.session] == expected


def test_a_restarted_market_opens_at_the_last_prices(exchange_process, tmp_path):
    first = exchange_process("--speed", "0", "--duration", "20")
    first.wait_for_log("the feed has ended")
    assert first.terminate() == 0
    (printed,) = journalled(tmp_path / "data").values()
    last = {}
    for frame in map(json.loads, printed):
        price = {"MarketStats": "close", "TradeExecuted": "price"}.get(frame["event_type"])
        if price:
            last[frame["data"]["symbol"]] = frame["data"][price]
    second = exchange_process()
    assert "opening at the last prices of session" in second.log()
    opened = {}
    with connect(second.url + "?from_sequence=0") as client:
        client.recv(timeout=20)
        while len(opened) < len(last):
            frame = json.loads(client.recv(timeout=20))
            if frame["event_type"] == "MarketStats":
                opened.setdefault(frame["data"]["symbol"], frame["data"]["open"])
    assert opened == last


def test_event_times_follow_the_clock(exchange_process):
    exchange = exchange_process()
    began = format_timestamp(time.time_ns() // 1000 - 20_000_000)
    with connect(exchange.url) as client:
        client.recv(timeout=20)
        stamps = [json.loads(client.recv(timeout=20))["data"]["timestamp"] for _ in range(50)]
    assert all(a <= b for a, b in itertools.pairwise(stamps))
    assert began < stamps[0] < format_timestamp(time.time_ns() // 1000 + 1_000_000)
