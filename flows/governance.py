"""The flows ``retention`` and ``masked``: what is no longer kept, and what others may read.

In: the tables' tags and personal columns. Out: rows past their time deleted by whole days; the masked tables of
``governance``. On a crash: see :mod:`lakehouse.governance`; running them again is always right.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from flows.asset import Outcome, asset, report
from flows.batch_flow import batch_flow
from flows.session import lake_session
from lakehouse.governance.masking import publish_masked
from lakehouse.governance.retention import purge, retention_of
from lakehouse.layers.governance import MASKED
from lakehouse.tables import TABLES

LIMITED = tuple(name for name in TABLES if retention_of(name) is not None)


@asset("governance.retention", layer="governance", reads=LIMITED, writes=LIMITED)
def enforce_retention(keep_days: int | None = None, dry_run: bool = False) -> list[Outcome]:
    """Delete what is past its time."""
    session = lake_session()
    outcomes = []
    for name in LIMITED:
        done = purge(session, name, session.clock(), keep_days=keep_days, dry_run=dry_run)
        if done is not None:
            would_be = "would be " if dry_run else ""
            note = f"{len(done.days)} days {would_be}deleted, {done.keep_days} are kept"
            outcomes.append(Outcome(name, done.rows, 0, done.snapshot_id, note))
    return outcomes


@asset(
    "governance.masked",
    layer="governance",
    reads=sorted({table.source.name for table in MASKED}),
    writes=[table.spec.name for table in MASKED],
)
def masked_tables() -> list[Outcome]:
    """Bring the masked tables up to date."""
    return [
        Outcome(name, None, done.rows, done.snapshot_id, f"{len(done.days)} days written anew")
        for name, done in publish_masked(lake_session()).items()
    ]


RETENTION = (enforce_retention,)
MASKING = (masked_tables,)


@batch_flow("retention", timeout_s=3600)
def retention(keep_days: Annotated[int, Field(ge=1)] | None = None, dry_run: bool = False) -> object:
    """Delete what is past its time; ``keep_days`` in place of what the tables' tags say."""
    return report([enforce_retention.run(keep_days=keep_days, dry_run=dry_run)])


@batch_flow("masked", timeout_s=3600)
def masked() -> object:
    """Publish the masked tables."""
    return report([masked_tables.run()])
