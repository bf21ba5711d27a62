"""Computing past days anew, from bronze up: after a rule or a formula changed, or to see that nothing would.

In: UTC days, and which tables. Out: the same tables, each day replaced in one commit; what follows from them is
brought up to date with it. On a crash: the days done are done; running it again for all of them gives the same
rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial

from lakehouse.batch import BatchSession
from lakehouse.days import all_days
from lakehouse.gold.step import TABLES as DAILY_TABLES
from lakehouse.gold.step import publish
from lakehouse.gold.traders import PERFORMANCE, POSITIONS, publish_traders
from lakehouse.silver.activity import TARGET as ACTIVITY
from lakehouse.silver.activity import refine_activity
from lakehouse.silver.events import STEPS, TRADES
from lakehouse.silver.step import SilverStep, rebuild_day

REBUILDABLE = (*STEPS, ACTIVITY, *DAILY_TABLES, PERFORMANCE, POSITIONS)
"""Tables that can be computed anew, in the order it is done."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A piece of the work is done."""

    done: int
    total: int
    tables: tuple[str, ...]
    day: date


def days_between(first: date, last: date) -> tuple[date, ...]:
    """All days from ``first`` to ``last``, both counted in."""
    return tuple(first + timedelta(days=number) for number in range((last - first).days + 1))


def rebuild(
    session: BatchSession,
    days: Sequence[date],
    tables: Collection[str] = REBUILDABLE,
    progress: Callable[[Progress], None] | None = None,
) -> dict[str, int]:
    """Compute ``days`` of ``tables`` anew; table → rows written. Days without rows in bronze are skipped.

    Tables that are computed together are rebuilt together: the four daily ones of gold, and the traders' two. Of
    these every later day follows, because a day goes on from the lots of the day before.

    Args:
        tables: full names, of :data:`REBUILDABLE`.
        progress: called after each piece of work.

    Raises:
        ValueError: a table that cannot be rebuilt; nothing was done.
        ContractViolationError: a day's rows break their contract; this day is as before, earlier ones are done.
    """
    if unknown := sorted(set(tables) - set(REBUILDABLE)):
        raise ValueError(f"cannot rebuild {', '.join(unknown)}; what can be rebuilt: {', '.join(REBUILDABLE)}")
    daily = _with_rows(session, TRADES.source, days)
    pieces: list[tuple[tuple[str, ...], date, Callable[[], dict[str, int]]]] = [
        ((name,), day, partial(_events, session, step, day))
        for name, step in STEPS.items()
        if name in tables
        for day in _with_rows(session, step.source, days)
    ]
    if ACTIVITY in tables:
        pieces += [((ACTIVITY,), day, partial(_activity, session, day)) for day in daily]
    if set(DAILY_TABLES) & set(tables):
        pieces += [(DAILY_TABLES, day, partial(_daily, session, day)) for day in daily]
    if daily and {PERFORMANCE, POSITIONS} & set(tables):
        pieces.append(((PERFORMANCE, POSITIONS), daily[-1], partial(_traders, session, daily)))
    written: dict[str, int] = {}
    for number, (names, day, work) in enumerate(pieces, 1):
        for name, rows in work().items():
            written[name] = written.get(name, 0) + rows
        if progress is not None:
            progress(Progress(number, len(pieces), names, day))
    return written


def _events(session: BatchSession, step: SilverStep, day: date) -> dict[str, int]:
    return {step.target: rebuild_day(session, step, day).new}


def _activity(session: BatchSession, day: date) -> dict[str, int]:
    return {ACTIVITY: refine_activity(session, [day]).rows}


def _daily(session: BatchSession, day: date) -> dict[str, int]:
    return publish(session, [day]).rows or {}


def _traders(session: BatchSession, days: Sequence[date]) -> dict[str, int]:
    return publish_traders(session, days).rows or {}


def _with_rows(session: BatchSession, source: str, days: Sequence[date]) -> list[date]:
    there = set(all_days(session.manifests.files(source, session.catalog.load_table(source))))
    return sorted(there & set(days))
