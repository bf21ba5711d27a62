"""A recorded market in a file: its lines, read safely whatever they hold, and what a pass over them found.

In: a file, plain, gzip or zstd (told by its first bytes, not its name), one message a line.
Out: a :class:`Replay`, which is a feed for the publisher: ``(event time, frame)`` in the order of the file. What
the lines mean is its subclass's part.

A line that cannot be read is logged with file and line, counted, and passed over. On a crash nothing is lost:
session id, event ids and sequence follow from the file alone, so that a second run prints the same frames.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol, cast
from zlib import error as ZlibError

import msgspec
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

MAX_LINE_BYTES = 8_000_000
"""The longest line read whole; a whole book of 10,000 levels is about 300 kB."""
HEAD_LINES = 1_000
"""Lines searched for the format and the symbols."""
FINGERPRINT_BYTES = 1 << 20
"""The session id covers this much of the file's start and end, and its size: a day's capture is gigabytes."""
LOGGED_ERRORS = 20
"""Faults logged one by one; the rest is only counted, so that a broken file does not fill the log."""

BAD_LINE = (msgspec.DecodeError, ValueError, RecursionError)
"""What a line can raise: no JSON, not the venue's message, bytes that are no UTF-8 or no number, deep nesting."""

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"

logger = logging.getLogger(__name__)


class ReplayError(Exception):
    """The file cannot be replayed at all."""


class OtherFormatError(ReplayError):
    """The file can be read, and is not of the format that was asked for."""


class OtherStream(Exception):
    """A message of a stream that has no event here (its argument is the stream's name): nothing is wrong."""


@dataclass
class ReplayCounts:
    """What one pass over the file found."""

    lines: int = 0
    frames: int = 0
    bad_lines: int = 0
    zero_trades: int = 0
    repeated: int = 0
    """Trades or frames that came a second time, and were left out."""
    gaps: int = 0
    """Breaks in the venue's own sequence: something is not in the file."""
    missing: int = 0
    """Trades or frames lost in those gaps, where the venue's numbers say how many."""
    book_resyncs: int = 0
    """Books lost in a gap and healed by a snapshot."""
    other_streams: Counter[str] = field(default_factory=Counter)
    """Lines that have no event here, by the venue's name of them."""

    def gap(self, missing: int, message: str) -> None:
        """Count a gap of ``missing`` items, and say so in the log."""
        self.gaps += 1
        self.missing += missing
        if self.gaps <= LOGGED_ERRORS:
            logger.warning("%s", message)


class Translator(Protocol):
    """Lines → frames, with the state of one pass."""

    def translate(self, line: bytes) -> Iterable[tuple[int, bytes]]:
        """The frames of one line.

        Raises:
            OtherStream: a sound line that has no event here.
            BAD_LINE: one that breaks a rule of the venue or of the contract.
        """

    def bad_line(self, line: bytes) -> None:
        """What this line said is lost (empty: it was too long to be read)."""


class Replay(ABC):
    """A finite feed of one recorded file.

    Attributes:
        exchange: the venue's name in the welcome.
        symbols: those that the head of the file names.
        session_id: follows from the file's content and size.
        counts: of the pass of :meth:`events` that runs or ran last.

    Raises:
        ReplayError: the file is not there or not readable.
        OtherFormatError: it is of another format.
    """

    exchange: str
    symbols: list[str]
    format_name: str
    """What the file is when it is one of these, for messages."""
    translation: tuple[object, ...]
    """Part of the session id: change it when the same file would give other frames."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.counts = ReplayCounts()
        try:
            fingerprint = self._fingerprint()
            lines = (line for _, line in islice(self._lines(report=False), HEAD_LINES) if line)
            self.symbols = self._find_symbols(lines)
        except OSError as error:
            raise ReplayError(
                f"cannot read the capture {self.path}: {error.strerror or error}; "
                "give the path of a recorded file, plain, .gz or .zst"
            ) from error
        if not self.symbols:
            raise OtherFormatError(
                f"{self.path} is no {self.format_name}: not found in its first {HEAD_LINES} lines"
            )
        self.session_id = f"replay-{fingerprint}"

    @abstractmethod
    def _find_symbols(self, lines: Iterable[bytes]) -> list[str]:
        """The symbols that these first lines name; none: the file is of another format."""

    @abstractmethod
    def _translator(self) -> Translator:
        """A new one, for a new pass; it counts in ``self.counts``."""

    def events(self) -> Iterator[tuple[int, bytes]]:
        """Yield ``(event time in µs since the epoch, frame)``, sequence 1, 2, …, to the end of the file."""
        self.counts = counts = ReplayCounts()
        translator = self._translator()
        translate = translator.translate
        for number, line in self._lines():
            counts.lines = number
            if line is None:
                self._bad(number, f"longer than {MAX_LINE_BYTES:,} bytes")
                translator.bad_line(b"")
                continue
            try:
                frames = translate(line)
            except OtherStream as other:
                counts.other_streams[str(other)] += 1
                continue
            except BAD_LINE as error:
                self._bad(number, str(error))
                translator.bad_line(line)
                continue
            yield from frames
        logger.info("replayed %s: %s", self.path, counts)

    def _bad(self, number: int, reason: str) -> None:
        self.counts.bad_lines += 1
        if self.counts.bad_lines <= LOGGED_ERRORS:
            logger.error("%s:%d: line passed over: %s", self.path, number, reason)
        if self.counts.bad_lines == LOGGED_ERRORS:
            logger.error("%s: further bad lines are only counted", self.path)

    def _lines(self, *, report: bool = True) -> Iterator[tuple[int, bytes | None]]:
        """Number and bytes of each line, None for one too long; a torn end is counted as a bad line."""
        number = 0
        with _open(self.path) as stream:
            while True:
                number += 1
                try:
                    line = stream.readline(MAX_LINE_BYTES)
                    too_long = len(line) == MAX_LINE_BYTES and not line.endswith(b"\n")
                    while too_long and (rest := stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                        pass
                except (EOFError, ZlibError, OSError) as error:
                    if report:
                        self._bad(number, f"the compressed data is torn, the replay ends here: {error}")
                    return
                if not line:
                    return
                yield number, None if too_long else line

    def _fingerprint(self) -> str:
        size = self.path.stat().st_size
        digest = hashlib.sha256(repr((*self.translation, size)).encode())
        with self.path.open("rb") as file:
            digest.update(file.read(FINGERPRINT_BYTES))
            if size > FINGERPRINT_BYTES:
                file.seek(max(FINGERPRINT_BYTES, size - FINGERPRINT_BYTES))
                digest.update(file.read(FINGERPRINT_BYTES))
        return digest.hexdigest()[:16]


class ReplayCollector(Collector):
    """The counts of a replay, as metrics."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay

    def collect(self) -> Iterator[CounterMetricFamily]:
        counts = self._replay.counts
        for name, text, value in (
            ("bad_lines", "Lines of the capture that could not be read.", counts.bad_lines),
            ("gaps", "Breaks in the venue's own sequence.", counts.gaps),
            ("missing", "Trades or frames lost in those gaps, where the venue says how many.", counts.missing),
            ("repeated", "Trades or frames that came again and were left out.", counts.repeated),
        ):
            yield CounterMetricFamily(f"tickhouse_exchange_replay_{name}", text, value)


def _open(path: Path) -> IO[bytes]:
    """The file's bytes, decompressed as its first bytes say."""
    with path.open("rb") as file:
        magic = file.read(4)
    if magic.startswith(GZIP_MAGIC):
        return io.BufferedReader(gzip.GzipFile(path), 1 << 18)
    if magic == ZSTD_MAGIC:
        # Imported only here: it is 50 MB of memory that the exchange does not need otherwise.
        import pyarrow

        stream: Any = pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")
        return io.BufferedReader(cast("io.RawIOBase", stream), 1 << 16)
    return path.open("rb")
