"""The flows ``maintenance-hourly`` (compaction, expiry), ``-daily`` (orphans) and ``-weekly`` (statistics).

In: every table. Out: fewer and sorted files, no snapshot kept beyond need, no file that nothing names, and what
each table is made of, as metrics and in the run's report. Safe beside writers and readers, and to be run at any
time; on a crash see :mod:`lakehouse.maintenance`. A table that fails does not keep the others from their turn.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from flows.asset import Outcome, asset, report
from flows.batch_flow import batch_flow
from flows.session import lake_session
from lakehouse.maintenance.compaction import compact
from lakehouse.maintenance.expiry import expire
from lakehouse.maintenance.orphans import remove_orphans
from lakehouse.maintenance.statistics import table_statistics
from lakehouse.tables import TABLES

log = logging.getLogger("flows.maintenance")

EVERY = tuple(TABLES)


def each_table(work: Callable[[str], Outcome]) -> list[Outcome]:
    """Outcome of ``work`` for every table.

    Raises:
        ExceptionGroup: what went wrong with some; the others are done.
    """
    outcomes, errors = [], list[Exception]()
    for name in TABLES:
        try:
            outcomes.append(work(name))
        except Exception as error:  # noqa: BLE001 - raised below, when every table had its turn
            log.error("%s: %s: %s", name, type(error).__name__, error)
            errors.append(error)
    if errors:
        raise ExceptionGroup(f"{len(errors)} of {len(TABLES)} tables failed", errors)
    return outcomes


@asset("maintenance.compaction", layer="maintenance", writes=EVERY)
def compaction() -> list[Outcome]:
    """Rewrite small files into sorted ones."""
    session = lake_session()

    def work(name: str) -> Outcome:
        done = compact(session, name)
        note = f"{done.files_before} files → {done.files_after}" if done.groups else ""
        return Outcome(name, done.rows, done.rows, note=note)

    return each_table(work)


@asset("maintenance.expiry", layer="maintenance", writes=EVERY)
def expiry() -> list[Outcome]:
    """Forget old snapshots and delete what only they need."""
    session = lake_session()

    def work(name: str) -> Outcome:
        done = expire(session.catalog, name, keep=session.settings.snapshots_kept, known=session.known[name])
        return Outcome(name, note=f"{done.snapshots} snapshots forgotten, {done.data_files} data files deleted")

    return each_table(work)


@asset("maintenance.orphans", layer="maintenance", writes=EVERY)
def orphans() -> list[Outcome]:
    """Delete old files that nothing names."""
    session = lake_session()

    def work(name: str) -> Outcome:
        done = remove_orphans(session.catalog, name, now=session.clock())
        return Outcome(name, note=f"{len(done.paths)} orphans deleted, {done.size} bytes")

    return each_table(work)


@asset("maintenance.statistics", layer="maintenance", reads=EVERY)
def statistics() -> list[Outcome]:
    """Measure what each table is made of."""
    session = lake_session()

    def work(name: str) -> Outcome:
        found = table_statistics(session.catalog, name)
        return Outcome(
            name,
            rows_in=found.rows,
            note=f"{found.files} files ({found.small} small), {found.size} bytes, {found.manifests} manifests",
        )

    return each_table(work)


HOURLY = (compaction, expiry)
DAILY = (orphans,)
WEEKLY = (statistics,)


@batch_flow("maintenance-hourly", timeout_s=3600)
def maintenance_hourly() -> object:
    """Compact and expire; many commits to a table set it going, whatever the hour."""
    return report([step.run() for step in HOURLY])


@batch_flow("maintenance-daily", timeout_s=6 * 3600)
def maintenance_daily() -> object:
    """Sweep orphans."""
    return report([step.run() for step in DAILY])


@batch_flow("maintenance-weekly", timeout_s=3600)
def maintenance_weekly() -> object:
    """Measure the tables."""
    return report([step.run() for step in WEEKLY])
