"""The flow ``silver``: what bronze received since the last run, judged, enriched and appended to silver.

In: the tables of bronze. Out: the tables of silver; after new trades, a run of the flow ``gold``. When the data
contract of a table is broken, nothing is committed to it, the run fails, and without trades gold does not run. A
table's failure fails the run, but not the other tables.

On a crash: see :mod:`lakehouse.silver.step`; the next run goes on where the last commit stands.
"""

from __future__ import annotations

from typing import Any

from prefect import runtime
from prefect.client.schemas.objects import State
from prefect.deployments import run_deployment
from prefect.states import Completed

from flows.asset import Outcome, asset, report
from flows.batch_flow import batch_flow
from flows.session import lake_session
from lakehouse.batch import BatchSession
from lakehouse.days import read_until, touched_days
from lakehouse.dimensions.dim_symbol import NAME as DIM_SYMBOL
from lakehouse.incremental import appended_since, read_watermark
from lakehouse.silver.activity import SOURCE as ACTIVITY_SOURCE
from lakehouse.silver.activity import TARGET as ACTIVITY
from lakehouse.silver.activity import refine_activity
from lakehouse.silver.events import ORDERBOOK, ORDERS, QUOTES, STEPS, TRADES
from lakehouse.silver.judging import SilverStep
from lakehouse.silver.step import DIM_READ, refine
from lakehouse.state import read_state

REJECTED = "silver.rejected_records"


def _refine(step: SilverStep) -> list[Outcome]:
    done = refine(lake_session(), step)
    notes = {"duplicates": done.duplicates, "rejected": done.rejected, "of unknown symbols": done.unknown}
    note = ", ".join(f"{count} {what}" for what, count in notes.items() if count)
    return [Outcome(step.target, done.arrived, done.new, done.snapshot_id, note)]


@asset("silver.trades", layer="silver", reads=(TRADES.source, DIM_SYMBOL), writes=(TRADES.target, REJECTED))
def silver_trades() -> list[Outcome]:
    """Bring silver.trades up to date."""
    return _refine(TRADES)


@asset("silver.trader_activity", layer="silver", reads=(ACTIVITY_SOURCE,), writes=(ACTIVITY,))
def silver_activity() -> list[Outcome]:
    """Bring silver.trader_activity up to date."""
    done = refine_activity(lake_session())
    days = ", ".join(map(str, done.days))
    return [Outcome(ACTIVITY, None, done.rows, done.snapshot_id, f"{days} computed anew" if days else "")]


@asset(
    "silver.orderbook", layer="silver", reads=(ORDERBOOK.source, DIM_SYMBOL), writes=(ORDERBOOK.target, REJECTED)
)
def silver_orderbook() -> list[Outcome]:
    """Bring silver.orderbook up to date."""
    return _refine(ORDERBOOK)


@asset("silver.quotes", layer="silver", reads=(QUOTES.source, DIM_SYMBOL), writes=(QUOTES.target, REJECTED))
def silver_quotes() -> list[Outcome]:
    """Bring silver.quotes up to date."""
    return _refine(QUOTES)


@asset("silver.orders", layer="silver", reads=(ORDERS.source, DIM_SYMBOL), writes=(ORDERS.target, REJECTED))
def silver_orders() -> list[Outcome]:
    """Bring silver.orders up to date."""
    return _refine(ORDERS)


SILVER = (silver_trades, silver_activity, silver_orderbook, silver_quotes, silver_orders)


@batch_flow("silver", timeout_s=300)
def silver() -> object:
    """Trades, then gold is set going, then the other tables; nothing at all where bronze has nothing new."""
    session = lake_session()
    if up_to_date(session):
        return Completed(message="Bronze has nothing new.")
    states: list[State[Any]] = []
    for step in SILVER:
        states.append(step.run())
        if step is silver_trades and states[-1].is_completed():
            set_gold_going(session)
    return report(states)


def up_to_date(session: BatchSession) -> bool:
    """Whether silver has read all that bronze and the symbols' dimension hold by now. Reads metadata only."""
    load = session.catalog.load_table
    companies = str(load(DIM_SYMBOL).metadata.current_snapshot_id)
    for step in STEPS.values():
        target = load(step.target)
        if not appended_since(step.source, load(step.source), read_watermark(target), session.manifests).empty:
            return False
        if target.current_snapshot() is not None and read_state(target).get(DIM_READ) != companies:
            return False
    trades = session.manifests.files(ACTIVITY_SOURCE, load(ACTIVITY_SOURCE))
    return not touched_days(trades, read_until(load(ACTIVITY)))


def set_gold_going(session: BatchSession) -> None:
    """Ask for a run of gold, once for each snapshot of silver.trades however often this is called."""
    snapshot = session.catalog.load_table(TRADES.target).metadata.current_snapshot_id
    if runtime.deployment.id is not None:  # gold has a deployment to run only where silver is one
        run_deployment(
            "gold/gold",
            parameters={"patient": True},
            timeout=0,
            as_subflow=False,
            idempotency_key=f"silver.trades@{snapshot}",
        )
