"""Working off a backfill's pieces: several at once, one at a time for each table, and on from where it was.

In: pieces of :func:`lakehouse.rebuild.plan` and something that runs one. Out: all of them done, stage by stage;
a journal names those that are. On a crash: the journal stays, and the next backfill of the same days and tables by
the same rules leaves out what it names; a piece that was done but not yet named is done again, with the same rows.
"""

from __future__ import annotations

import hashlib
import queue
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Protocol

from lakehouse.rebuild import Piece

POLL_S = 1.0
"""How often somebody who waits for a piece can be interrupted."""


class Future(Protocol):
    """A piece that runs: of :mod:`concurrent.futures`, or of Prefect."""

    def add_done_callback(self, fn: Callable[[Any], None]) -> object: ...

    def result(self) -> Any: ...


@dataclass(slots=True)
class Journal:
    """Names of the pieces done, a line each, in a file that outlives the process."""

    path: Path
    done: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, directory: Path, first: date, last: date, tables: Collection[str], rules: str) -> Journal:
        """The journal of a backfill of these days and tables, with what an earlier attempt by the same ``rules``
        wrote. Those of others go: their days are done anew."""
        which = hashlib.sha256("\n".join(sorted(tables)).encode()).hexdigest()[:8]
        path = directory / f"{first}..{last}.{which}.{rules[:8]}.done"
        for other in directory.glob(f"{first}..{last}.{which}.*.done"):
            if other != path:
                other.unlink(missing_ok=True)
        text = path.read_text() if path.exists() else ""
        whole, _, _ = text.rpartition("\n")  # a line that was cut off by a crash counts for nothing
        return cls(path, set(whole.splitlines()))

    def add(self, piece: Piece) -> None:
        """Name a piece as done."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            # A new line first: it ends what a crash may have cut off.
            file.write(f"\n{piece}\n")
        self.done.add(str(piece))

    def close(self) -> None:
        """All is done: the next backfill of the same days begins anew."""
        self.path.unlink(missing_ok=True)


@contextmanager
def journalled(journal: Journal, pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """The pieces that are left; the journal goes when the block ends without an error."""
    yield [piece for piece in pieces if str(piece) not in journal.done]
    journal.close()


def work_off(
    pieces: Sequence[Piece], submit: Callable[[Piece], Future], at_once: int, done: Callable[[Piece, Any], None]
) -> None:
    """Run all ``pieces``, ``at_once`` of them at a time, and call ``done`` with each and its result, in this
    thread.

    No two pieces of the same table run at once: a day is one commit to its table, and the second of two commits
    would be refused and computed anew.

    Raises:
        Exception: the first that a piece raised; those that were running are waited for, and no more are begun.
    """
    waiting, running, ended = list(pieces), dict[Future, Piece](), queue.SimpleQueue[Future]()
    error: BaseException | None = None
    while running or (waiting and error is None):
        if error is None:
            for piece in _startable(waiting, running.values(), at_once):
                waiting.remove(piece)
                future = submit(piece)
                running[future] = piece
                future.add_done_callback(ended.put)
        try:
            future = ended.get(timeout=POLL_S)
        except queue.Empty:
            continue
        piece = running.pop(future)
        try:
            result = future.result()
        except Exception as raised:  # noqa: BLE001 - raised below, once nothing runs any more
            error = error or raised
        else:
            done(piece, result)
    if error is not None:
        raise error


def _startable(waiting: Sequence[Piece], running: Collection[Piece], at_once: int) -> list[Piece]:
    stage = min((piece.stage for piece in (*waiting, *running)), default=0)
    busy = {table for piece in running for table in piece.tables}
    found: list[Piece] = []
    for piece in waiting:
        if len(running) + len(found) < at_once and piece.stage == stage and not busy & set(piece.tables):
            found.append(piece)
            busy |= set(piece.tables)
    return found
