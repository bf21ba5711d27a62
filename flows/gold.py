"""The flow ``gold``: bars, daily summaries, sectors, the market and the traders of every day that silver
touched, computed anew.

In: ``silver.trades``. Out: the gold tables. It is set going by every successful run of ``silver``, and does
nothing when silver has nothing new. On a crash: see :mod:`lakehouse.gold.step`; running it again is always
right.
"""

from __future__ import annotations

from prefect import flow, task

from flows.session import lake_session
from lakehouse.gold.step import GoldResult, publish
from lakehouse.gold.traders import TradersResult, publish_traders


@task(name="gold.publish")
def gold_tables() -> GoldResult:
    """Bring every gold table up to date with silver."""
    return publish(lake_session())


@task(name="gold.traders")
def gold_traders() -> TradersResult:
    """Bring the traders' tables up to date with silver."""
    return publish_traders(lake_session())


@flow(name="gold")
def gold() -> dict[str, GoldResult | TradersResult]:
    """Compute and publish the days that changed."""
    return {"daily": gold_tables(), "traders": gold_traders()}
