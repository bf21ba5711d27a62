"""The exchange's bounded replay buffer on disk: every frame is here before any client gets it.

In: frames of one session after another, in sequence order (the first of a session has sequence 1). Out:
readers that start at any kept sequence and follow the session as it grows.

Layout: ``<root>/<session_id>/session.json`` says whose session it is; ``<first sequence, 20 digits>.jsonl``
are its segments, one frame a line, so line i of a segment is frame first + i. When all sessions together
exceed the limit, the oldest segments of the oldest session go first; the newest segment, and a session opened
with ``keep_all``, stay.

On a crash: a killed process loses nothing, because each append is one write to the operating system before
the frames are sent; a line torn by a full disk or a power cut is cut off when the journal is opened. There is
no fsync: a power cut may lose the last seconds. A lock on the root keeps a second exchange out.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

logger = logging.getLogger(__name__)

SEGMENT_BYTES = 4 << 20
"""Small, because finding a sequence reads its segment from the start: 4 MiB take about 2 ms."""

EMPTY_SESSIONS = 100
"""Kept though no frame was ever printed, because a client that was welcomed to one may come back with its name to
get the sessions after it."""

_SESSION_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}")


class JournalError(RuntimeError):
    """The journal cannot be opened or written; the message says where and what to do."""


class FramesNoLongerKept(LookupError):
    """The frames a reader wants have been removed to keep the journal within its limit."""


class SessionInfo(Protocol):
    """What the journal remembers of a session beside its frames; any feed has it."""

    @property
    def exchange(self) -> str: ...

    @property
    def symbols(self) -> Sequence[str]: ...

    @property
    def session_id(self) -> str: ...


class Session:
    """The kept frames of one session: ``first_sequence`` … ``last_sequence``; first = last + 1 where none are."""

    def __init__(self, path: Path, number: int, exchange: str, symbols: Sequence[str]) -> None:
        self.path = path
        self.session_id = path.name
        self.number = number
        """Sessions are ordered by the time they were last opened."""
        self.exchange = exchange
        self.symbols = list(symbols)
        self.segments: list[tuple[int, int]] = []
        """(first sequence, bytes), oldest first."""
        self.last_sequence = 0

    @property
    def first_sequence(self) -> int:
        return self.segments[0][0] if self.segments else self.last_sequence + 1

    def segment_path(self, first_sequence: int) -> Path:
        return self.path / f"{first_sequence:020d}.jsonl"


class Journal:
    """All kept sessions, one of them current and growing.

    Args:
        root: directory, created when missing.
        max_bytes: limit for all sessions together (exceeded by at most one segment, or by a kept session).
        segment_bytes: a segment that has reached this size is followed by a new one.

    Raises:
        JournalError: another exchange has the journal open, or the directory cannot be used.
    """

    def __init__(self, root: Path, *, max_bytes: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._root = root
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._sessions: dict[str, Session] = {}
        self._current: Session | None = None
        self._keep_all = False
        self._file = -1
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise JournalError(
                f"cannot use the journal directory {root}: {error.strerror}; set TICKHOUSE_DATA_DIR elsewhere"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise JournalError(
                f"another exchange uses the journal {root}: stop it, or set TICKHOUSE_DATA_DIR elsewhere"
            ) from error
        self._load()

    # --- opening

    def _load(self) -> None:
        found = []
        for path in self._root.iterdir():
            if not path.is_dir():
                continue
            try:
                facts: dict[str, Any] = json.loads((path / "session.json").read_bytes())
                session = Session(path, int(facts["number"]), str(facts["exchange"]), list(facts["symbols"]))
            except (OSError, ValueError, KeyError, TypeError) as error:
                logger.warning("journal: %s is no session (%s) and is left alone", path, error)
                continue
            self._load_segments(session)
            found.append(session)
        for session in sorted(found, key=lambda session: session.number):
            self._sessions[session.session_id] = session

    def _load_segments(self, session: Session) -> None:
        paths = sorted(session.path.glob("*.jsonl"))
        session.segments = [(int(path.stem), path.stat().st_size) for path in paths]
        if not paths:
            return
        text = paths[-1].read_bytes()
        whole = text.rfind(b"\n") + 1
        if whole < len(text):
            logger.warning("journal: cut a torn line of %d bytes off %s", len(text) - whole, paths[-1])
            os.truncate(paths[-1], whole)
        first = session.segments[-1][0]
        session.segments[-1] = (first, whole)
        session.last_sequence = first + text.count(b"\n", 0, whole) - 1

    def open_session(self, info: SessionInfo, *, keep_all: bool = False) -> Session:
        """Make a session current: a new one, or one of an earlier run that is continued.

        Args:
            keep_all: never remove its segments; for feeds with an end, which somebody may want in full.

        Raises:
            JournalError: the id is unfit for a file name, or the disk refuses.
        """
        if not _SESSION_ID.fullmatch(info.session_id):
            raise JournalError(f"session id {info.session_id!r} is unfit for a file name")
        number = 1 + max((session.number for session in self._sessions.values()), default=0)
        session = self._sessions.pop(info.session_id, None)
        if session is None:
            session = Session(self._root / info.session_id, number, info.exchange, info.symbols)
        session.number = number
        facts = {"number": number, "exchange": info.exchange, "symbols": list(info.symbols)}
        try:
            session.path.mkdir(exist_ok=True)
            draft = session.path / "session.json.new"
            draft.write_text(json.dumps(facts), encoding="utf-8")
            draft.replace(session.path / "session.json")
        except OSError as error:
            raise self._refused(error) from error
        self._sessions[session.session_id] = session
        self._current = session
        self._keep_all = keep_all
        self._close_segment()
        self._prune()
        return session

    # --- writing

    @property
    def current(self) -> Session:
        if self._current is None:
            raise JournalError("no session is open: call open_session first")
        return self._current

    def append(self, frames: Sequence[bytes]) -> None:
        """Write the next frames of the current session; when this returns, readers find them.

        Raises:
            JournalError: the disk refuses. What was written in part is cut off again at the next start.
        """
        session = self.current
        if not frames:
            return
        block = b"\n".join(frames) + b"\n"
        try:
            if self._file < 0:
                self._open_segment(session)
            view = memoryview(block)
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            raise self._refused(error) from error
        first, size = session.segments[-1]
        session.segments[-1] = (first, size + len(block))
        session.last_sequence += len(frames)
        if size + len(block) >= self._segment_bytes:
            self._close_segment()
            self._prune()

    def _open_segment(self, session: Session) -> None:
        last = session.segments[-1] if session.segments else None
        if last is None or last[1] >= self._segment_bytes:
            last = (session.last_sequence + 1, 0)
            session.segments.append(last)
        path = session.segment_path(last[0])
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def _close_segment(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _refused(self, error: OSError) -> JournalError:
        return JournalError(
            f"cannot write the journal {self._root}: {error.strerror}; free space there, or set TICKHOUSE_DATA_DIR"
        )

    def _prune(self) -> None:
        """Remove the oldest segments until the limit holds, sessions with none left, and many empty ones."""
        sessions = sorted(self._sessions.values(), key=lambda session: session.number)
        excess = sum(size for session in sessions for _, size in session.segments) - self._max_bytes
        for session in sessions:
            current = session is self._current
            keep = 0 if not current else len(session.segments) if self._keep_all else 1
            while excess > 0 and len(session.segments) > keep:
                first, size = session.segments.pop(0)
                session.segment_path(first).unlink(missing_ok=True)
                excess -= size
        bare = [session for session in sessions if not session.segments and session is not self._current]
        empty = [session for session in bare if not session.last_sequence]
        for session in bare:
            if session not in empty[-EMPTY_SESSIONS:]:
                (session.path / "session.json").unlink(missing_ok=True)
                session.path.rmdir()
                del self._sessions[session.session_id]

    def close(self) -> None:
        """Let go of files and the lock; everything written stays."""
        self._close_segment()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # --- reading

    def session(self, session_id: str) -> Session | None:
        return self._sessions.get(session_id)

    def sessions_after(self, session: Session) -> list[Session]:
        """The sessions opened later, in that order; the last one is the current session."""
        later = (other for other in self._sessions.values() if other.number > session.number)
        return sorted(later, key=lambda other: other.number)


class Position(NamedTuple):
    """A place between two frames of a session."""

    next_sequence: int
    segment: int
    """First sequence of the segment; -1: to be looked up."""
    offset: int
    """Bytes, in the segment."""


class JournalReader:
    """A position in one session. Reads only whole frames, in order, as fast as asked; holds one open file."""

    def __init__(self, session: Session, from_sequence: int) -> None:
        self._session = session
        self._position = Position(max(from_sequence, session.first_sequence), -1, 0)
        self._file = -1

    @property
    def next_sequence(self) -> int:
        """Of the next frame to be read: the wanted one, or the earliest kept."""
        return self._position.next_sequence

    @property
    def position(self) -> Position:
        """May be set to where another reader of this session stands."""
        return self._position

    @position.setter
    def position(self, position: Position) -> None:
        if position.segment != self._position.segment:
            self.close()
        self._position = position

    def read(self, max_bytes: int) -> bytes:
        """The next frames, each ended by a newline; about ``max_bytes``, at least one frame; empty: none yet.

        Raises:
            FramesNoLongerKept: the journal has removed what comes next.
        """
        if self.next_sequence > self._session.last_sequence:
            return b""
        if self._position.segment < 0:
            self._seek()
        while True:
            if self._file < 0:
                self._open()
            sequence, segment, offset = self._position
            block = os.pread(self._file, max_bytes, offset)
            end = block.rfind(b"\n") + 1
            if end:
                break
            if len(block) < max_bytes:  # the end of this segment; the frame is in the next one
                self.close()
                self._seek()
            else:
                max_bytes *= 2
        block = block[:end]
        self._position = Position(sequence + block.count(b"\n"), segment, offset + end)
        return block

    def _seek(self) -> None:
        """Find the next frame's segment, and its place there."""
        segments = self._session.segments
        sequence = self.next_sequence
        index = bisect_right(segments, sequence, key=lambda segment: segment[0]) - 1
        if index < 0:
            raise FramesNoLongerKept(f"frame {sequence} of session {self._session.session_id} is no longer kept")
        first = segments[index][0]
        self._position = Position(sequence, first, 0)
        if sequence > first:
            self._open()
            self._position = Position(sequence, first, self._skip_lines(sequence - first))

    def _open(self) -> None:
        first = self._position.segment
        try:
            self._file = os.open(self._session.segment_path(first), os.O_RDONLY)
        except FileNotFoundError as error:
            raise FramesNoLongerKept(f"segment {first} of session {self._session.session_id} is gone") from error

    def _skip_lines(self, lines: int) -> int:
        """Byte offset after this many lines of the open segment."""
        offset = 0
        while lines:
            block = os.pread(self._file, 1 << 18, offset)
            if not block:
                raise JournalError(f"session {self._session.session_id}: a segment lacks its last frames")
            count = block.count(b"\n")
            if count < lines:
                lines -= count
                offset += len(block)
                continue
            position = 0
            for _ in range(lines):
                position = block.index(b"\n", position) + 1
            return offset + position
        return offset

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
