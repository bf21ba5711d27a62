"""Recordings of our own: what is recorded is served again byte for byte; broken files are told and survived."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.events import format_timestamp
from simulator.exchange import Exchange
from simulator.market import load_market
from simulator.recorded.capture import ReplayCollector, ReplayError
from simulator.recorded.recording import Progress, RecordingError, RecordingReplay, record
from simulator.replay import open_replay

START_US = 1_767_623_400_000_000

Pair = tuple[int, bytes]


class Feed:
    """A feed of prepared events."""

    exchange = "TEST"
    symbols = ("AAPL", "TSLA")
    session_id = "session-1"

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._pairs = pairs

    def events(self) -> Iterator[Pair]:
        yield from self._pairs


def pair(sequence: int, us: int = 0) -> Pair:
    time_us = START_US + 1_000 * sequence + us
    data = {"event_id": f"e-{sequence}", "timestamp": format_timestamp(time_us), "sequence": sequence}
    text = json.dumps({"event_type": "MarketStats", "data": {**data, "symbol": "AAPL"}}, separators=(",", ":"))
    return time_us, text.encode()


def pairs(count: int) -> list[Pair]:
    return [pair(sequence) for sequence in range(1, count + 1)]


def write(path: Path, feed: Any, speed: float = 0, **options: Any) -> Progress:
    chosen: dict[str, Any] = {
        "clock": lambda: 0.0,
        "sleep": lambda _: None,
        "stopped": lambda: False,
        "progress": lambda _: None,
        **options,
    }
    return record(feed, path, {"seed": 7}, speed=speed, **chosen)


def plain(path: Path) -> bytes:
    if path.suffix != ".zst":
        return path.read_bytes()
    with pyarrow.CompressedInputStream(str(path), "zstd") as file:
        return bytes(file.read())


@pytest.mark.parametrize("name", ["c.jsonl", "c.jsonl.zst"])
def test_a_recording_is_served_again_byte_for_byte_with_its_event_times(tmp_path: Path, name: str) -> None:
    events = pairs(1_234)
    done = write(tmp_path / name, Feed(events))
    lines = b"".join(frame + b"\n" for _, frame in events)
    header, _, body = plain(tmp_path / name).partition(b"\n")
    assert body == lines
    assert (done.frames, done.first_us, done.last_us) == (1_234, events[0][0], events[-1][0])
    assert done.sha256 == hashlib.sha256(lines).hexdigest()
    assert json.loads(header) == {
        "type": "recording",
        "format": 1,
        "exchange": "TEST",
        "symbols": ["AAPL", "TSLA"],
        "session_id": "session-1",
        "next_sequence": 1,
        "seed": 7,
    }
    replay = open_replay(tmp_path / name)
    assert isinstance(replay, RecordingReplay)
    assert (replay.exchange, replay.symbols) == ("TEST", ["AAPL", "TSLA"])
    assert list(replay.events()) == list(replay.events()) == events
    assert (replay.counts.bad_lines, replay.counts.gaps, replay.counts.frames) == (0, 0, 1_234)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_recorded_market_is_the_same_bytes_each_time_and_each_frame_comes_back(tmp_path: Path) -> None:
    def market() -> Exchange:
        return Exchange(load_market(), seed=7, start_us=START_US, duration_us=3_000_000)

    first, second = (write(tmp_path / name, market()) for name in ("a.jsonl.zst", "b.jsonl.zst"))
    assert first == second
    assert first.frames > 500
    assert (tmp_path / "a.jsonl.zst").read_bytes() == (tmp_path / "b.jsonl.zst").read_bytes()
    assert list(open_replay(tmp_path / "a.jsonl.zst").events()) == list(market().events())


def test_recording_at_a_speed_takes_the_time_that_it_should(tmp_path: Path) -> None:
    now = [50.0]
    seen: list[int] = []

    def sleep(seconds: float) -> None:
        now[0] += seconds

    write(
        tmp_path / "c.jsonl",
        Feed([pair(1), pair(2, 10_000_000)]),
        speed=2,
        clock=lambda: now[0],
        sleep=sleep,
        progress=lambda progress: seen.append(progress.frames),
    )
    assert now[0] == pytest.approx(50 + 10.001 / 2)
    assert seen[0] == 1, "a frame that was due is written before the next one is waited for"


@pytest.mark.parametrize("speed", [0, 1])
def test_a_stopped_recording_is_a_whole_one_of_what_was_recorded(tmp_path: Path, speed: float) -> None:
    calls = [0]

    def stopped() -> bool:
        calls[0] += 1
        return calls[0] > 2

    events = [pair(1), pair(2, 3_600_000_000)] if speed else pairs(5_000)
    done = write(tmp_path / "c.jsonl.zst", Feed(events), speed=speed, stopped=stopped)
    assert 0 < done.frames < len(events)
    assert list(open_replay(tmp_path / "c.jsonl.zst").events()) == events[: done.frames]


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.zst"])
def test_a_killed_recording_leaves_a_prefix_under_another_name(tmp_path: Path, suffix: str) -> None:
    events = pairs(20_000)
    path = tmp_path / f"c{suffix}"
    write(path, Feed(events[:10]))
    before = path.read_bytes()

    def dying() -> Iterator[Pair]:
        yield from events[:-1]
        raise Killed

    feed = Feed([])
    feed.events = dying  # type: ignore[method-assign]
    with pytest.raises(Killed):
        write(path, feed)
    assert path.read_bytes() == before
    draft = tmp_path / f"c{suffix}.part"
    # A killed process does not even close its file: its last bytes are not there.
    torn = tmp_path / "torn"
    torn.write_bytes(draft.read_bytes()[:-1_000])
    found = list(open_replay(torn).events())
    assert 1_000 < len(found) < len(events)
    assert found == events[: len(found)]


@pytest.mark.parametrize("name", ["c.json", "c.zst", "c.jsonl.gz", "c"])
def test_another_ending_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecordingError, match=r"a recording is called ….jsonl.zst, or"):
        write(tmp_path / name, Feed([]))


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    for name in ("c.jsonl", "c.jsonl.zst"):
        with pytest.raises(RecordingError, match=rf"cannot write .*nowhere/{name}.*; give another place"):
            write(tmp_path / "nowhere" / name, Feed([]))


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    feed = Feed([])

    def full() -> Iterator[Pair]:
        yield pair(1)
        raise OSError(28, "No space left on device")

    feed.events = full  # type: ignore[method-assign]
    with pytest.raises(RecordingError, match="No space left on device"):
        write(tmp_path / "c.jsonl", feed)
    assert list(tmp_path.iterdir()) == []


def edited(tmp_path: Path, *lines: bytes) -> RecordingReplay:
    write(tmp_path / "c.jsonl", Feed([]))
    path = tmp_path / "edited.jsonl"
    path.write_bytes((tmp_path / "c.jsonl").read_bytes() + b"".join(line + b"\n" for line in lines))
    return RecordingReplay(path)


def test_a_gap_is_told_and_the_sequence_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    replay = edited(tmp_path, *(pair(n)[1] for n in (1, 2, 5, 6, 9)))
    found = list(replay.events())
    assert [time_us for time_us, _ in found] == [pair(n)[0] for n in (1, 2, 5, 6, 9)]
    assert [json.loads(frame)["data"]["sequence"] for _, frame in found] == [1, 2, 3, 4, 5]
    assert [json.loads(frame)["data"]["event_id"] for _, frame in found] == ["e-1", "e-2", "e-5", "e-6", "e-9"]
    assert found[:2] == [pair(1), pair(2)]
    assert (replay.counts.gaps, replay.counts.missing) == (2, 4)
    assert "2 frames are missing after frame 2" in caplog.text
    metrics = {metric.name: metric.samples[0].value for metric in ReplayCollector(replay).collect()}
    assert metrics == {
        "tickhouse_exchange_replay_bad_lines": 0,
        "tickhouse_exchange_replay_gaps": 2,
        "tickhouse_exchange_replay_missing": 4,
        "tickhouse_exchange_replay_repeated": 0,
    }


def test_frames_that_come_again_are_left_out(tmp_path: Path) -> None:
    replay = edited(tmp_path, *(pair(n)[1] for n in (1, 2, 1, 2, 3)))
    assert list(replay.events()) == pairs(3)
    assert (replay.counts.repeated, replay.counts.gaps) == (2, 0)


GOOD = pair(2)[1]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (GOOD[:-9], "truncated"),
        (b"", "no frame of an event"),
        (b'{"data":{},"event_type":"MarketStats"}', "no frame of an event"),
        (GOOD.replace(b"MarketStats", b"Gossip"), "Invalid enum value 'Gossip'"),
        (GOOD.replace(b'"sequence":2', b'"sequence":"2"'), "Expected `int`"),
        (GOOD.replace(b'"sequence":2', b'"sequence":0'), "Expected `int` >= 1"),
        (GOOD.replace(b'"sequence":2', b'"sequence" : 2'), "not written as the exchange writes it"),
        (GOOD.replace(b"AAPL", b"\x80APL"), "can't decode byte 0x80"),
        (GOOD.replace(b"2026-01-05", b"yesterday"), "Invalid RFC3339"),
        (GOOD.replace(b"2026-01-05", b"1926-01-05"), "before 1970"),
        (GOOD[:-1] + b',"x":"' + b"y" * 1_000_000 + b'"}', "a frame of more than 1,000,000 bytes"),
        (b'{"event_type":"MarketStats","data":' + b"[" * 100_000, "Expected `object`"),
    ],
)
def test_a_bad_line_is_named_counted_and_then_a_gap(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, line: bytes, reason: str
) -> None:
    replay = edited(tmp_path, pair(1)[1], line, pair(3)[1])
    assert len(list(replay.events())) == 2
    assert (replay.counts.bad_lines, replay.counts.gaps, replay.counts.missing) == (1, 1, 1)
    assert "edited.jsonl:3: line passed over" in caplog.text
    assert reason in caplog.text


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b'{"type":"recording"}', "the header of the recording is damaged: .* `format`"),
        (b'{"type":"recording","format":1,"exchange":"X","symbols":[]}', "is damaged"),
        (b'{"type":"recording","format":2,"exchange":"X","symbols":["A"]}', "of format 2; known is 1"),
    ],
)
def test_a_header_that_cannot_be_used_is_said(tmp_path: Path, header: bytes, message: str) -> None:
    (tmp_path / "c").write_bytes(header + b"\n")
    with pytest.raises(ReplayError, match=message):
        open_replay(tmp_path / "c")


def test_the_format_is_told_by_the_content_and_gzip_is_read_too(tmp_path: Path) -> None:
    write(tmp_path / "c.jsonl", Feed(pairs(3)))
    packed = tmp_path / "capture.txt"
    packed.write_bytes(gzip.compress((tmp_path / "c.jsonl").read_bytes()))
    assert list(open_replay(packed).events()) == pairs(3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 1_200), st.binary(min_size=1, max_size=4)), min_size=1, max_size=5))
def test_damaged_bytes_never_stop_the_replay_nor_break_the_sequence(
    tmp_path: Path, damages: list[tuple[int, bytes]]
) -> None:
    write(tmp_path / "c.jsonl", Feed([]))
    content = bytearray(b"".join(frame + b"\n" for _, frame in pairs(8)))
    for position, patch in damages:
        content[position : position + len(patch)] = patch
    path = tmp_path / "damaged"
    path.write_bytes((tmp_path / "c.jsonl").read_bytes() + content)
    found = [json.loads(frame)["data"]["sequence"] for _, frame in RecordingReplay(path).events()]
    assert found == list(range(1, len(found) + 1))
