"""``silver.trades``: valid trades, once each, with the company their symbol stood for.

In: ``bronze.trades`` since the last run, ``dimensions.dim_symbol``. Out: ``silver.trades``,
``silver.rejected_records``. What it promises on a crash: see :mod:`lakehouse.silver.step`.
"""

from __future__ import annotations

from lakehouse.batch import BatchSession
from lakehouse.silver.step import SilverStep, StepResult, refine

TRADES = SilverStep(
    source="bronze.trades",
    target="silver.trades",
    key="trade_id",
    judged="trades_judged.sql",
    rows="trades_rows.sql",
    contract="silver.trades",
)


def refine_trades(session: BatchSession) -> StepResult:
    """Bring ``silver.trades`` up to date with bronze. Raises: see :func:`lakehouse.silver.step.refine`."""
    return refine(session, TRADES)
