"""The flow ``silver``: what bronze received since the last run, judged, enriched and appended to silver.

In: ``bronze.trades``, ``bronze.orderbook_snapshots``. Out: ``silver.trades``, ``silver.orderbook``; then a
run of the flow ``gold``. When the data contract of silver.trades is broken, nothing is committed, the run
fails and gold does not run. A failed order book fails the run, but not the trades.

On a crash: see :mod:`lakehouse.silver.step`; the next run goes on where the last commit stands.
"""

from __future__ import annotations

from prefect import flow, runtime, task
from prefect.deployments import run_deployment

from flows.session import lake_session
from lakehouse.silver.events import refine_orderbook, refine_trades
from lakehouse.silver.step import StepResult


@task(name="silver.trades")
def silver_trades() -> StepResult:
    """Bring silver.trades up to date."""
    return refine_trades(lake_session())


@task(name="silver.orderbook")
def silver_orderbook() -> StepResult:
    """Bring silver.orderbook up to date."""
    return refine_orderbook(lake_session())


@flow(name="silver")
def silver() -> dict[str, StepResult]:
    """Trades, then gold is set going, then order books."""
    trades = silver_trades()
    if runtime.deployment.id is not None:  # gold has a deployment to run only where silver is one
        run_deployment("gold/gold", timeout=0, as_subflow=False)
    return {"silver.trades": trades, "silver.orderbook": silver_orderbook()}
