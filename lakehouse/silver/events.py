"""The silver tables of events: valid rows, once each, with the company their symbol stood for at the time.

In: the bronze table since the last run, ``dimensions.dim_symbol``. Out: the silver table,
``silver.rejected_records``. What it promises on a crash: see :mod:`lakehouse.silver.step`.
"""

from __future__ import annotations

from lakehouse.batch import BatchSession
from lakehouse.quality.partition import MISSTATED
from lakehouse.silver.books import misstated, spread, summed_up
from lakehouse.silver.judging import SilverStep, StepResult
from lakehouse.silver.step import refine

TRADES = SilverStep(
    source="bronze.trades",
    target="silver.trades",
    key="trade_id",
    content=(
        "timestamp",
        "symbol",
        "price",
        "quantity",
        "buy_order_id",
        "sell_order_id",
        "buyer_agent_id",
        "seller_agent_id",
        "is_aggressive_buy",
    ),
    rules="trades_rules.sql",
)
ORDERBOOK = SilverStep(
    source="bronze.orderbook_snapshots",
    target="silver.orderbook",
    key="event_id",
    content=("timestamp", "symbol", "bids", "asks"),
    rules="orderbook_rules.sql",
    derive=summed_up,
    batch_rows=20_480,
    observe={MISSTATED: misstated},
)
QUOTES = SilverStep(
    source="bronze.quotes",
    target="silver.quotes",
    key="event_id",
    content=("timestamp", "symbol", "best_bid", "best_bid_size", "best_ask", "best_ask_size"),
    rules="quotes_rules.sql",
    derive=spread,
)
ORDERS = SilverStep(
    source="bronze.orders",
    target="silver.orders",
    key="event_id",
    content=(
        "event_type",
        "timestamp",
        "order_id",
        "symbol",
        "side",
        "order_type",
        "price",
        "quantity",
        "remaining_quantity",
        "agent_id",
        "reason",
    ),
    rules="orders_rules.sql",
)
STEPS = {step.target: step for step in (TRADES, ORDERBOOK, QUOTES, ORDERS)}
"""Silver table → the step that fills it."""


def refine_trades(session: BatchSession) -> StepResult:
    """Bring ``silver.trades`` up to date with bronze. Raises: see :func:`lakehouse.silver.step.refine`."""
    return refine(session, TRADES)


def refine_orderbook(session: BatchSession) -> StepResult:
    """Bring ``silver.orderbook`` up to date with bronze. Raises: see :func:`lakehouse.silver.step.refine`."""
    return refine(session, ORDERBOOK)


def refine_quotes(session: BatchSession) -> StepResult:
    """Bring ``silver.quotes`` up to date with bronze. Raises: see :func:`lakehouse.silver.step.refine`."""
    return refine(session, QUOTES)


def refine_orders(session: BatchSession) -> StepResult:
    """Bring ``silver.orders`` up to date with bronze. Raises: see :func:`lakehouse.silver.step.refine`."""
    return refine(session, ORDERS)
