"""``python -m simulator --out``: a recording made by the real process, and served by it."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from simulator.__main__ import StartError, read_market, read_settings
from simulator.replay import open_replay
from tests.simulator.test_main import Bridge


def test_symbols_are_given_as_one_word(monkeypatch):
    assert read_settings([])[0].exchange_symbols == ()
    monkeypatch.setenv("TICKHOUSE_EXCHANGE_SYMBOLS", "TSLA, AAPL,")
    assert read_settings([])[0].exchange_symbols == ("TSLA", "AAPL")
    chosen, _ = read_settings(["--symbols", "V"])
    assert [symbol.ticker for symbol in read_market(chosen).symbols] == ["V"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--start", "2026-01-05T14:30:00Z"], "--start is for a recording: add --out FILE"),
        (
            ["--out", "x.jsonl", "--start", "noon"],
            "--start noon is not a time with a zone, as 2026-01-05T14:30:00Z",
        ),
        (["--out", "x.jsonl", "--start", "2026-01-05T14:30:00"], "is not a time with a zone"),
        (["--out", "x.jsonl", "--start", "1960-01-05T14:30:00Z"], "is before 1970"),
    ],
)
def test_a_wrong_start_is_said(options, complaint):
    with pytest.raises(StartError, match=complaint):
        read_settings(options)


def run_to_end(tmp_path: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "simulator", *options],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TICKHOUSE_DATA_DIR": str(tmp_path / "data"), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def frames_of(path: Path) -> list[bytes]:
    return [frame for _, frame in open_replay(path).events()]


def test_out_records_without_serving_and_the_same_options_give_the_same_bytes(tmp_path):
    options = ("--duration", "5", "--seed", "7", "--symbols", "TSLA,AAPL", "--speed", "0")
    path = tmp_path / "capture.jsonl.zst"
    done = run_to_end(tmp_path, "--out", str(path), *options, TZ="Asia/Tokyo")
    assert done.returncode == 0, done.stderr
    again = run_to_end(tmp_path, "--out", str(tmp_path / "again.jsonl"), *options, TZ="America/New_York")
    [line] = done.stdout.splitlines()
    digest = hashlib.sha256(b"".join(frame + b"\n" for frame in frames_of(path))).hexdigest()
    assert line.endswith(f"sha256 {digest}")
    assert line.startswith(f"{path}: ")
    assert again.stdout.partition(": ")[2] == line.partition(": ")[2] + "\n"
    assert "market time 2026-01-05T14:30:04.9" in done.stderr
    assert "100%" in done.stderr
    frames = [json.loads(frame) for frame in frames_of(path)]
    assert frames[0]["data"]["timestamp"] == "2026-01-05T14:30:00.000000Z"
    assert {frame["data"]["symbol"] for frame in frames} == {"AAPL", "TSLA"}
    assert len(frames) > 500
    assert not (tmp_path / "data").exists(), "no journal is read or written"
    other = run_to_end(
        tmp_path, "--out", str(tmp_path / "o.jsonl"), *options, "--start", "2026-01-06T09:30:00-05:00"
    )
    assert other.stdout.rpartition(" ")[2] != digest
    assert json.loads(frames_of(tmp_path / "o.jsonl")[0])["data"]["timestamp"] == "2026-01-06T14:30:00.000000Z"


def test_a_recorded_market_is_served_as_it_was_recorded(exchange_process, tmp_path):
    path = tmp_path / "capture.jsonl.zst"
    assert run_to_end(tmp_path, "--out", str(path), "--duration", "5", "--speed", "0").returncode == 0
    exchange = exchange_process("--file", str(path), "--speed", "0")
    exchange.wait_for_log("the feed has ended")
    recorded = frames_of(path)
    bridge = Bridge()
    bridge.run(exchange.url, lambda b: len(b.frames.get(b.session, ())) == len(recorded))
    assert bridge.frames[bridge.session] == recorded
    text = urllib.request.urlopen(f"http://127.0.0.1:{exchange.metrics_port}/metrics").read().decode()
    assert "tickhouse_exchange_replay_gaps_total 0.0" in text


def test_sigterm_ends_a_recording_with_what_there_is(tmp_path):
    path = tmp_path / "capture.jsonl"
    options = ["--out", str(path), "--speed", "1"]
    with subprocess.Popen(
        [sys.executable, "-m", "simulator", *options],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        end = time.monotonic() + 20
        draft = path.with_name("capture.jsonl.part")
        while not (draft.exists() and draft.stat().st_size > 20_000):
            assert time.monotonic() < end
            time.sleep(0.02)
        process.terminate()
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "sha256" in output
    assert len(frames_of(path)) > 50
    assert not draft.exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            ["--symbols", "AAPL,NOPE", "--out", "x.jsonl"],
            "NOPE is not a symbol of the market: known are AAPL, GOOGL",
        ),
        (["--symbols", "NOPE"], "NOPE is not a symbol of the market"),
        (["--duration", "1", "--speed", "0", "--out", "nowhere/x.jsonl"], "cannot write nowhere/x.jsonl"),
        (["--duration", "1", "--speed", "0", "--out", "x.csv"], "a recording is called"),
        (["--file", "justfile"], "justfile is no recorded market; known are: Tickhouse recording, Binance"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(tmp_path, options, complaint):
    done = run_to_end(
        tmp_path, *options, TICKHOUSE_EXCHANGE_PORT="1", TICKHOUSE_EXCHANGE_METRICS_PORT=str(unused_port())
    )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert complaint in line


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
