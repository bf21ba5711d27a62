"""Computing past days anew, from bronze up: after a rule or a formula changed, or to see that nothing would.

In: UTC days, and which tables. Out: the same tables, each day replaced in one commit; what follows from them is
brought up to date with it. On a crash: the days done are done; running it again for all of them gives the same
rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from lakehouse.batch import BatchSession
from lakehouse.days import all_days
from lakehouse.gold.step import TABLES as DAILY_TABLES
from lakehouse.gold.step import publish
from lakehouse.gold.traders import PERFORMANCE, POSITIONS, publish_traders
from lakehouse.silver.activity import TARGET as ACTIVITY
from lakehouse.silver.activity import refine_activity
from lakehouse.silver.events import STEPS, TRADES
from lakehouse.silver.step import rebuild_day

REBUILDABLE = (*STEPS, ACTIVITY, *DAILY_TABLES, PERFORMANCE, POSITIONS)
"""Tables that can be computed anew, in the order it is done."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the work: tables that are computed together, on some days."""

    stage: int
    """Pieces of a stage need the earlier stages to be done, and nothing of each other."""
    tables: tuple[str, ...]
    days: tuple[date, ...]

    def __str__(self) -> str:
        days = str(self.days[0]) if len(self.days) == 1 else f"{self.days[0]}..{self.days[-1]}"
        return f"{'+'.join(self.tables)} {days}"


def days_between(first: date, last: date) -> tuple[date, ...]:
    """All days from ``first`` to ``last``, both counted in."""
    return tuple(first + timedelta(days=number) for number in range((last - first).days + 1))


def plan(session: BatchSession, days: Sequence[date], tables: Collection[str] = REBUILDABLE) -> list[Piece]:
    """The pieces of computing ``days`` of ``tables`` anew. Days without rows in what a table is computed from are
    skipped: silver's that bronze no longer keeps stay as they are, and gold is then computed from those.

    Tables that are computed together are rebuilt together: the four daily ones of gold, and the traders' two. Of
    these every later day follows, because a day goes on from the lots of the day before.

    Args:
        tables: full names, of :data:`REBUILDABLE`.

    Raises:
        ValueError: a table that cannot be rebuilt.
    """
    if unknown := sorted(set(tables) - set(REBUILDABLE)):
        raise ValueError(f"cannot rebuild {', '.join(unknown)}; what can be rebuilt: {', '.join(REBUILDABLE)}")
    daily = _with_rows(session, TRADES.target, days)
    if TRADES.target in tables:  # which brings those that silver has not got yet
        daily = sorted({*daily, *_with_rows(session, TRADES.source, days)})
    pieces = [
        Piece(0, (name,), (day,))
        for name, step in STEPS.items()
        if name in tables
        for day in _with_rows(session, step.source, days)
    ]
    if ACTIVITY in tables:
        pieces += [Piece(1, (ACTIVITY,), (day,)) for day in daily]
    if set(DAILY_TABLES) & set(tables):
        pieces += [Piece(1, DAILY_TABLES, (day,)) for day in daily]
    if daily and {PERFORMANCE, POSITIONS} & set(tables):
        pieces.append(Piece(1, (PERFORMANCE, POSITIONS), tuple(daily)))
    return pieces


def rules() -> str:
    """Hash of what the tables are computed by: code, SQL and contracts."""
    package = Path(__file__).parent
    files = sorted(path for path in package.rglob("*") if path.suffix in {".py", ".sql", ".yml"})
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)).hexdigest()


def run(session: BatchSession, piece: Piece) -> dict[str, int]:
    """Do a piece of the work; table → rows written. Doing it again gives the same rows.

    Raises:
        ContractViolationError: the rows break their contract; the day is as before.
        CommitFailedException: other writers won every race; nothing is lost, run it again.
    """
    name = piece.tables[0]
    if name in STEPS:
        return {name: sum(rebuild_day(session, STEPS[name], day).new for day in piece.days)}
    if name == ACTIVITY:
        return {ACTIVITY: refine_activity(session, piece.days).rows}
    compute = publish if piece.tables == DAILY_TABLES else publish_traders
    return compute(session, piece.days).rows or {}


def _with_rows(session: BatchSession, source: str, days: Sequence[date]) -> list[date]:
    there = set(all_days(session.manifests.files(source, session.catalog.load_table(source))))
    return sorted(there & set(days))
