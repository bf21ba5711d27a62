"""The flow ``silver``: what bronze received since the last run, judged, enriched and appended to silver.

In: the tables of bronze. Out: ``silver.trades``, ``silver.trader_activity``, ``silver.orderbook``,
``silver.quotes``, ``silver.orders``; after the trades, a run of the flow ``gold``. When the data contract of
silver.trades is broken, nothing is committed, the run fails and gold does not run. Another table's failure fails
the run, but not the trades.

On a crash: see :mod:`lakehouse.silver.step`; the next run goes on where the last commit stands.
"""

from __future__ import annotations

from prefect import flow, runtime, task
from prefect.deployments import run_deployment

from flows.session import lake_session
from lakehouse.silver.activity import ActivityResult, refine_activity
from lakehouse.silver.events import refine_orderbook, refine_orders, refine_quotes, refine_trades
from lakehouse.silver.step import StepResult


@task(name="silver.trades")
def silver_trades() -> StepResult:
    """Bring silver.trades up to date."""
    return refine_trades(lake_session())


@task(name="silver.trader_activity")
def silver_activity() -> ActivityResult:
    """Bring silver.trader_activity up to date."""
    return refine_activity(lake_session())


@task(name="silver.orderbook")
def silver_orderbook() -> StepResult:
    """Bring silver.orderbook up to date."""
    return refine_orderbook(lake_session())


@task(name="silver.quotes")
def silver_quotes() -> StepResult:
    """Bring silver.quotes up to date."""
    return refine_quotes(lake_session())


@task(name="silver.orders")
def silver_orders() -> StepResult:
    """Bring silver.orders up to date."""
    return refine_orders(lake_session())


@flow(name="silver")
def silver() -> dict[str, StepResult | ActivityResult]:
    """Trades, then gold is set going, then the other tables."""
    trades = silver_trades()
    if runtime.deployment.id is not None:  # gold has a deployment to run only where silver is one
        run_deployment("gold/gold", timeout=0, as_subflow=False)
    return {
        "silver.trades": trades,
        "silver.trader_activity": silver_activity(),
        "silver.orderbook": silver_orderbook(),
        "silver.quotes": silver_quotes(),
        "silver.orders": silver_orders(),
    }
