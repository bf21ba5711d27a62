"""The flows ``gold`` and ``daily``: bars, summaries, sectors, the market and the traders.

In: ``silver.trades``, ``silver.quotes``. Out: the gold tables. ``gold`` computes every day that silver touched;
each new snapshot of silver.trades sets it going, and every quarter of an hour it looks by itself. The traders,
whose day costs most, wait until it has grown by an eighth, or for the quarter of an hour. ``daily`` runs after the
close: it computes the day's gold anew, judges it, publishes the masked tables and exports the summary.

On a crash: see :mod:`lakehouse.gold.step`; running them again is always right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

from flows.asset import Outcome, asset, report
from flows.batch_flow import batch_flow, due_date
from flows.export import export_summary
from flows.governance import masked_tables
from flows.quality import quality_checks
from flows.session import lake_session
from lakehouse.batch import BatchSession
from lakehouse.gold.step import QUOTES, SOURCE, publish
from lakehouse.gold.step import TABLES as DAILY_TABLES
from lakehouse.gold.traders import PERFORMANCE, POSITIONS, publish_traders

LEAST_GROWTH = 0.125
"""Of a day, for the traders to be computed anew: eight times the cost of each trade, however long the day."""


def _outcomes(
    session: BatchSession, tables: Sequence[str], rows: Mapping[str, int] | None, days: Sequence[date]
) -> list[Outcome]:
    written = rows or {}
    note = f"{len(days)} days computed anew, up to {days[-1]}" if days else ""
    return [
        Outcome(
            name,
            None,
            written.get(name, 0),
            session.catalog.load_table(name).metadata.current_snapshot_id,
            note,
        )
        for name in tables
    ]


@asset("gold.publish", layer="gold", reads=(SOURCE, QUOTES), writes=DAILY_TABLES)
def gold_tables(days: Sequence[date] = ()) -> list[Outcome]:
    """Bring bars, summaries, sectors and the market up to date with silver; ``days`` are computed anew in any
    case."""
    session = lake_session()
    done = publish(session, days)
    return _outcomes(session, DAILY_TABLES, done.rows, done.days)


@asset("gold.traders", layer="gold", reads=(SOURCE,), writes=(PERFORMANCE, POSITIONS))
def gold_traders(days: Sequence[date] = (), least_growth: float = 0.0) -> list[Outcome]:
    """Bring the traders' performance and positions up to date with silver; not before a day has grown by
    ``least_growth``."""
    session = lake_session()
    done = publish_traders(session, days, least_growth=least_growth)
    return _outcomes(session, (PERFORMANCE, POSITIONS), done.rows, done.days)


GOLD = (gold_tables, gold_traders)
DAILY = (*GOLD, quality_checks, masked_tables, export_summary)


@batch_flow("gold", timeout_s=300)
def gold(patient: bool = False) -> object:
    """Compute and publish the days that changed; ``patient``: the traders' when they have grown enough."""
    return report([gold_tables.run(), gold_traders.run(least_growth=LEAST_GROWTH if patient else 0.0)])


@batch_flow("daily", timeout_s=3600)
def daily(day: date | None = None) -> object:
    """After the close: gold of ``day`` anew, its quality, the masked tables, the export. None: the day it was
    due, and of the export a week."""
    due = due_date() if day is None else day
    states = [gold_tables.run(days=[due]), gold_traders.run(days=[due])]
    if all(state.is_completed() for state in states):
        states.append(quality_checks.run(layer="gold", day=due))
    if all(state.is_completed() for state in states):
        states += [masked_tables.run(), export_summary.run(day=day)]
    return report(states)
