"""The flow ``gold``: bars, daily summaries, sectors and the market of every day that silver touched, computed
anew.

In: ``silver.trades``. Out: the gold tables. It is set going by every successful run of ``silver``, and does
nothing when silver has nothing new. On a crash: see :mod:`lakehouse.gold.step`; running it again is always
right.
"""

from __future__ import annotations

from prefect import flow, task

from flows.session import lake_session
from lakehouse.gold.step import GoldResult, publish


@task(name="gold.publish")
def gold_tables() -> GoldResult:
    """Bring every gold table up to date with silver."""
    return publish(lake_session())


@flow(name="gold")
def gold() -> GoldResult:
    """Compute and publish the days that changed."""
    return gold_tables()
