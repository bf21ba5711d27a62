"""The exchange's own recordings: a feed written to a file, and that file served again, byte for byte.

In and out: a file, plain (``.jsonl``) or zstd (``.jsonl.zst``). Its first line is a header (JSON with ``type``
"recording", ``format``, and the facts of the session as in the welcome frame); then come the frames, one a line.

Recording streams: memory does not grow with the file. It is written under the name ``<name>.part``, synced and
renamed, so that the final name always holds a whole recording; what a killed one leaves under ``.part`` can be
replayed up to where it is torn. Replay gives each frame as it was recorded. Where frames are missing (or their
lines are damaged), that gap is logged and counted, and the ``sequence`` of the frames behind it is moved up,
because readers resume by it; nothing else of them changes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Annotated, Any, Literal, cast

import msgspec

from simulator.events import EVENT_TYPES, MAX_FRAME_BYTES
from simulator.publisher import Feed
from simulator.recorded.capture import BAD_LINE, Replay, ReplayCounts, ReplayError

FORMAT = 1
BLOCK_FRAMES = 500
LONGEST_SLEEP = 0.2
"""Seconds; so that a stop is noticed."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class RecordingError(Exception):
    """The recording cannot be written; the message says where and what to do."""


@dataclass
class Progress:
    """How far a recording is; at its end, what it is."""

    frames: int = 0
    first_us: int = 0
    """Event time of the first frame, µs since the epoch."""
    last_us: int = 0
    sha256: str = ""
    """Of the frames as they stand in the file, each with its newline, without the header; once it is whole."""


def record(
    feed: Feed,
    path: Path,
    facts: Mapping[str, Any],
    *,
    speed: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    stopped: Callable[[], bool],
    progress: Callable[[Progress], None],
) -> Progress:
    """Write a feed to ``path`` until it ends, or until ``stopped()``; what is there then is a whole recording.

    Args:
        facts: go into the header, beside the feed's own.
        speed: market time over clock time; 0 = as fast as it goes.
        clock: seconds, for the pace.
        progress: called after each block of frames.

    Raises:
        RecordingError: the name has another ending, or the disk refuses.
    """
    if not path.name.endswith((".jsonl", ".jsonl.zst")):
        raise RecordingError(f"{path}: a recording is called ….jsonl.zst, or ….jsonl where it is not compressed")
    header = {
        "type": "recording",
        "format": FORMAT,
        "exchange": feed.exchange,
        "symbols": list(feed.symbols),
        "session_id": feed.session_id,
        "next_sequence": 1,
        **facts,
    }
    draft = path.with_name(f"{path.name}.part")
    try:
        with _create(draft, compressed=path.suffix == ".zst") as file:
            file.write(msgspec.json.encode(header) + b"\n")
            state = _write(feed, file, speed, clock, sleep, stopped, progress)
        _sync(draft)
        draft.replace(path)
        _sync(path.parent)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise RecordingError(f"cannot write {path}: {error.strerror or error}; give another place") from error
    return state


def _write(
    feed: Feed,
    file: IO[bytes],
    speed: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    stopped: Callable[[], bool],
    progress: Callable[[Progress], None],
) -> Progress:
    digest = hashlib.sha256()
    block: list[bytes] = []
    state = Progress()
    began = clock()

    def flush() -> None:
        if block:
            lines = b"\n".join(block) + b"\n"
            digest.update(lines)
            file.write(lines)
            state.frames += len(block)
            block.clear()
        progress(state)

    for event_us, frame in feed.events():
        if not state.first_us:
            state.first_us = event_us
        if speed:
            due = began + (event_us - state.first_us) / 1e6 / speed
            while (early := due - clock()) > 0 and not stopped():
                flush()
                sleep(min(early, LONGEST_SLEEP))
            if stopped():
                break
        block.append(frame)
        state.last_us = event_us
        if len(block) >= BLOCK_FRAMES:
            flush()
            if stopped():
                break
    flush()
    state.sha256 = digest.hexdigest()
    progress(state)
    return state


def _create(path: Path, *, compressed: bool) -> IO[bytes]:
    if not compressed:
        return path.open("wb")
    # Imported only here: it is 50 MB of memory that the exchange does not need otherwise.
    import pyarrow

    return cast("IO[bytes]", pyarrow.CompressedOutputStream(str(path), "zstd"))


def _sync(path: Path) -> None:
    """Wait until the disk has a file's content, or a directory's entries."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Header(msgspec.Struct):
    type: Literal["recording"]
    format: int
    exchange: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    symbols: Annotated[list[Annotated[str, msgspec.Meta(min_length=1, max_length=32)]], msgspec.Meta(min_length=1)]


class _Stamp(msgspec.Struct, gc=False):
    sequence: Annotated[int, msgspec.Meta(ge=1)]
    timestamp: Annotated[datetime, msgspec.Meta(tz=True)]


class _Frame(msgspec.Struct, gc=False):
    event_type: Literal[EVENT_TYPES]  # type: ignore[valid-type]
    data: _Stamp


_decode_header = msgspec.json.Decoder(_Header).decode
_decode_frame = msgspec.json.Decoder(_Frame).decode
_HEADER_START = b'{"type":"recording"'
_FRAME_START = b'{"event_type":"'


class RecordingReplay(Replay):
    """A finite feed of one recording.

    Raises:
        ReplayError: of a format of another time, or its header is damaged.
    """

    format_name = "Tickhouse recording"
    translation = ("recording", FORMAT)

    def _find_symbols(self, lines: Iterable[bytes]) -> list[str]:
        first = next(iter(lines), b"")
        if not first.startswith(_HEADER_START):
            return []
        try:
            header = _decode_header(first)
        except BAD_LINE as error:
            raise ReplayError(f"{self.path}: the header of the recording is damaged: {error}") from error
        if header.format != FORMAT:
            raise ReplayError(f"{self.path}: a recording of format {header.format}; known is {FORMAT}")
        self.exchange = header.exchange
        return header.symbols

    def _translator(self) -> _Translator:
        return _Translator(self.path, self.counts)


class _Translator:
    """Lines of a recording → the frames in them, checked for gaps."""

    def __init__(self, path: Path, counts: ReplayCounts) -> None:
        self._path = path
        self._counts = counts
        self._newest = 0
        """Recorded sequence of the newest frame."""

    def bad_line(self, line: bytes) -> None:
        """A lost frame shows in the sequence of the next one."""

    def translate(self, line: bytes) -> tuple[tuple[int, bytes], ...]:
        frame = line.rstrip(b"\n")
        if not frame.startswith(_FRAME_START):
            if frame.startswith(_HEADER_START) and not self._newest:
                return ()
            raise ValueError("no frame of an event")
        if len(frame) > MAX_FRAME_BYTES:
            raise ValueError(f"a frame of more than {MAX_FRAME_BYTES:,} bytes")
        if not frame.isascii():
            frame.decode()  # raises where it is no UTF-8, which the decoder below does not check in every field
        stamp = _decode_frame(frame).data
        time_us = (stamp.timestamp - _EPOCH) // _MICROSECOND
        if time_us < 0:
            raise ValueError(f"time {stamp.timestamp} is before 1970")
        sequence, counts = stamp.sequence, self._counts
        written = b'"sequence":%d,' % sequence
        if frame.count(written) != 1:
            raise ValueError("the sequence is not written as the exchange writes it")
        if sequence <= self._newest:
            counts.repeated += 1
            return ()
        if sequence > self._newest + 1:
            missing = sequence - self._newest - 1
            counts.gap(missing, f"{self._path}: {missing} frames are missing after frame {self._newest}")
        self._newest = sequence
        counts.frames = position = counts.frames + 1
        if position != sequence:
            frame = frame.replace(written, b'"sequence":%d,' % position)
        return ((time_us, frame),)
