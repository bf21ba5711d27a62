"""``silver.orderbook``: valid books, once each, with best prices, spread, mid and depth.

In: ``bronze.orderbook_snapshots`` since the last run, ``dimensions.dim_symbol``. Out: ``silver.orderbook``,
``silver.rejected_records``. What it promises on a crash: see :mod:`lakehouse.silver.step`.
"""

from __future__ import annotations

from lakehouse.batch import BatchSession
from lakehouse.silver.step import SilverStep, StepResult, refine

ORDERBOOK = SilverStep(
    source="bronze.orderbook_snapshots",
    target="silver.orderbook",
    key="event_id",
    judged="orderbook_judged.sql",
    rows="orderbook_rows.sql",
    contract="silver.orderbook",
)


def refine_orderbook(session: BatchSession) -> StepResult:
    """Bring ``silver.orderbook`` up to date with bronze. Raises: see :func:`lakehouse.silver.step.refine`."""
    return refine(session, ORDERBOOK)
