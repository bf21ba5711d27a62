"""Every table of the lakehouse, declared once: columns with their meaning, partitions, key, owner, tags.

In: nothing but this file. Out: :data:`TABLES`, :func:`arrow_schema`, and :func:`create_tables`, which creates what
is missing and evolves what was declared anew (:mod:`lakehouse.evolution` says what may change). Safe to run at any
time, by several processes at once; a crash between two tables is mended by running it again.
"""

from __future__ import annotations

import logging

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NamespaceAlreadyExistsError, NoSuchTableError, TableAlreadyExistsError
from pyiceberg.io.pyarrow import schema_to_pyarrow
from sqlalchemy.exc import IntegrityError

from lakehouse.columns import (
    AGGREGATED,
    BOOL,
    BREADTH,
    CAP,
    COMPANY,
    DOUBLE,
    EVENT,
    FLOW,
    INT,
    KAFKA,
    KAFKA_KEY,
    LEVEL,
    LEVELS,
    LONG,
    OHLC,
    PRICE,
    PROCESSED,
    QUOTE,
    SIDE,
    SYMBOL,
    TEXT,
    TEXTS,
    TIME,
    TRADE,
    TRADERS,
    TRADING_DATE,
    VOLUME,
    optional,
)
from lakehouse.evolution import EvolutionRefusedError, evolve
from lakehouse.spec import Column, TableSpec

log = logging.getLogger(__name__)

NAMESPACES = ("bronze", "silver", "gold", "dimensions", "quality", "governance")


def _bronze(name: str, doc: str, columns: tuple[Column, ...], personal: tuple[str, ...] = ()) -> TableSpec:
    return TableSpec(
        f"bronze.{name}",
        doc,
        columns + KAFKA,
        key=KAFKA_KEY,
        partition_by="timestamp",
        sort_by=("symbol", "timestamp"),
        event_time="timestamp",
        tags=("Bronze", "Confidential") if personal else ("Bronze",),
        personal=personal,
    )


def _silver(
    name: str,
    doc: str,
    columns: tuple[Column, ...],
    key: tuple[str, ...],
    tags: tuple[str, ...],
    follows: str,
    personal: tuple[str, ...] = (),
) -> TableSpec:
    return TableSpec(
        f"silver.{name}",
        doc,
        columns,
        key=key,
        partition_by="timestamp",
        sort_by=("symbol", "timestamp"),
        event_time="timestamp",
        follows=(follows,),
        owner="analytics",
        tags=("Silver", *tags),
        personal=personal,
    )


def _gold(name: str, doc: str, columns: tuple[Column, ...], key: tuple[str, ...]) -> TableSpec:
    return TableSpec(
        f"gold.{name}",
        doc,
        columns,
        key=key,
        partition_by="trading_date",
        sort_by=key,
        event_time="bar_start" if "bar_start" in key else "trading_date",
        follows=("silver.trades",),
        owner="analytics",
        tags=("Gold", "Analytics", "Public"),
    )


_SPECS = (
    _bronze("trades", "Executed trades, one row per message of raw.trades", TRADE, TRADERS),
    _bronze(
        "orders",
        "Orders placed and cancelled, one row per message of raw.orders",
        (
            Column("event_type", TEXT, "OrderPlaced or OrderCancelled"),
            *EVENT,
            Column("order_id", TEXT, "Id of the order"),
            SYMBOL,
            SIDE,
            *optional(
                Column("order_type", TEXT, "Market or Limit; null on a cancellation"),
                Column("price", PRICE, "Limit price; null for a market order"),
                Column("quantity", PRICE, "Quantity ordered; null on a cancellation"),
                Column("remaining_quantity", PRICE, "Quantity cancelled; null on a placement"),
            ),
            Column("agent_id", TEXT, "Agent whose order it is"),
            *optional(
                Column("agent_type", TEXT, "Kind of agent; null on a cancellation"),
                Column("reason", TEXT, "Why it was cancelled; null on a placement"),
                Column("time_in_force", TEXT, "How long it stands; null: until cancelled, and on a cancellation"),
                Column("replaces", TEXT, "Order, just cancelled as Replaced, whose place it takes; mostly null"),
            ),
        ),
        ("agent_id",),
    ),
    _bronze("quotes", "Changes of the top of book, one row per message of raw.quotes", QUOTE),
    _bronze(
        "orderbook_snapshots",
        "Whole books, one row per message of raw.orderbook-snapshots",
        (
            *EVENT,
            SYMBOL,
            Column("bids", LEVELS, "Bid levels, best first"),
            Column("asks", LEVELS, "Ask levels, best first"),
            Column("sequence_number", LONG, "Book's own sequence; null where not told", required=False),
        ),
    ),
    _bronze(
        "market_stats",
        "Session statistics of a symbol, one row per message of raw.market-stats",
        (
            *EVENT,
            SYMBOL,
            Column("open", PRICE, "First price of the session"),
            Column("high", PRICE, "Highest price of the session"),
            Column("low", PRICE, "Lowest price of the session"),
            Column("close", PRICE, "Last price"),
            Column("volume", VOLUME, "Quantity traded in the session"),
            Column("trade_count", LONG, "Trades of the session"),
            Column("vwap", PRICE, "Volume-weighted average price of the session, rounded half-even"),
        ),
    ),
    _bronze(
        "trading_halts",
        "Trading halts and resumptions, one row per message of raw.trading-halts",
        (
            Column("event_type", TEXT, "TradingHalt or TradingResume"),
            *optional(*EVENT),
            SYMBOL,
            LEVEL,
            Column("halt_duration_secs", LONG, "Length of the halt, seconds"),
            *optional(
                Column("reason", TEXT, "Why trading halted; null on a resumption"),
                Column("trigger_price", PRICE, "Price that tripped it; null on a resumption"),
                Column("reference_price", PRICE, "Price it was compared with; null on a resumption"),
                Column("decline_pct", PRICE, "Decline, percent; null on a resumption"),
                Column("halted_at", TIME, "When the halt began; null on a halt"),
            ),
        ),
    ),
    _bronze(
        "agent_actions",
        "Why agents acted, one row per message of raw.agent-actions",
        (
            *EVENT,
            Column("agent_id", TEXT, "Agent"),
            Column("agent_type", TEXT, "Kind of agent"),
            SYMBOL,
            Column("action", TEXT, "What it did"),
            Column("decision_factors", TEXTS, "What it was decided on"),
        ),
        ("agent_id",),
    ),
    _silver(
        "trades",
        "Valid trades, once each, with their company",
        (*TRADE, *COMPANY, CAP, PROCESSED),
        ("trade_id",),
        ("Trade", "Restricted"),
        "bronze.trades",
        TRADERS,
    ),
    _silver(
        "orderbook",
        "Valid books, once each, with best prices and depth",
        (
            *EVENT,
            SYMBOL,
            *optional(
                Column("sequence_number", LONG, "Book's own sequence; null where not told"),
                Column("best_bid_price", PRICE, "Highest bid; null on an empty side"),
                Column("best_bid_qty", PRICE, "Quantity at the best bid"),
                Column("best_ask_price", PRICE, "Lowest ask; null on an empty side"),
                Column("best_ask_qty", PRICE, "Quantity at the best ask"),
                Column("spread", PRICE, "Best ask minus best bid"),
                Column("mid_price", PRICE, "Mean of best bid and best ask"),
            ),
            Column("bid_depth", VOLUME, "Quantity over all bid levels"),
            Column("ask_depth", VOLUME, "Quantity over all ask levels"),
            Column("bid_levels", INT, "Number of bid levels"),
            Column("ask_levels", INT, "Number of ask levels"),
            Column("bids", LEVELS, "Bid levels, best first"),
            Column("asks", LEVELS, "Ask levels, best first"),
            *COMPANY,
            PROCESSED,
        ),
        ("event_id",),
        ("Order",),
        "bronze.orderbook_snapshots",
    ),
    _silver(
        "quotes",
        "Valid quotes, once each",
        (*QUOTE, *COMPANY, PROCESSED),
        ("event_id",),
        ("Order",),
        "bronze.quotes",
    ),
    TableSpec(
        "silver.rejected_records",
        "Rows of bronze that broke a rule, with the rule",
        (
            Column("source_table", TEXT, "Table of bronze the row stands in"),
            Column("rule", TEXT, "Rule it broke"),
            Column("reason", TEXT, "What was wrong with it"),
            Column("record", TEXT, "The row as JSON"),
            Column("timestamp", TIME, "Event time", required=False),
            *KAFKA[:3],
            Column("_rejected_at", TIME, "When it was rejected"),
        ),
        key=(*KAFKA_KEY, "rule"),
        partition_by="_rejected_at",
        sort_by=("source_table", "_rejected_at"),
        event_time="_rejected_at",
        owner="analytics",
        tags=("Silver", "Confidential"),
        personal=("record",),
    ),
    _gold(
        "minute_bars",
        "One bar per symbol and minute with trades",
        (SYMBOL, Column("bar_start", TIME, "Start of the minute"), TRADING_DATE, *OHLC, *FLOW, AGGREGATED),
        ("symbol", "bar_start"),
    ),
    _gold(
        "daily_trading_summary",
        "One row per symbol and day with trades",
        (
            SYMBOL,
            TRADING_DATE,
            *OHLC,
            *FLOW,
            Column("price_change_pct", DOUBLE, "(close - open) / open, percent"),
            Column("volatility", DOUBLE, "Sample deviation of one-minute log returns", required=False),
            *COMPANY,
            AGGREGATED,
        ),
        ("symbol", "trading_date"),
    ),
    _gold(
        "market_overview",
        "The whole market, one row per day",
        (
            TRADING_DATE,
            Column("total_trades", LONG, "Number of trades"),
            *FLOW[:2],
            Column("unique_symbols", LONG, "Symbols that traded"),
            *BREADTH,
            AGGREGATED,
        ),
        ("trading_date",),
    ),
    _gold(
        "sector_daily",
        "One row per sector and day with trades",
        (
            Column("sector", TEXT, "Sector; Unknown where the symbol has none"),
            TRADING_DATE,
            Column("unique_symbols", LONG, "Symbols that traded"),
            *FLOW,
            *BREADTH,
            Column("avg_price_change_pct", DOUBLE, "Mean of the symbols' change from open to close, percent"),
            AGGREGATED,
        ),
        ("sector", "trading_date"),
    ),
    TableSpec(
        "dimensions.dim_symbol",
        "Symbols and their companies; a change closes one row and opens the next (SCD type 2)",
        (
            Column("symbol_key", LONG, "Surrogate key of the version"),
            SYMBOL,
            Column("company_name", TEXT, "Company"),
            Column("sector", TEXT, "Sector"),
            Column("market_cap_category", TEXT, "large, mid or small"),
            Column("valid_from", TIME, "First moment the version holds"),
            Column("valid_to", TIME, "First moment it no longer holds; null: still holds", required=False),
            Column("is_current", BOOL, "True for the version that holds now"),
            Column("row_hash", TEXT, "SHA-256 of the attributes"),
        ),
        key=("symbol", "valid_from"),
        sort_by=("symbol", "valid_from"),
        owner="reference-data",
        tags=("Dimension", "Instrument", "Public"),
    ),
    TableSpec(
        "quality.check_results",
        "Every data-quality check that ran, with its outcome",
        (
            Column("run_id", TEXT, "Run of the contract"),
            Column("contract", TEXT, "Contract the check belongs to"),
            Column("table_name", TEXT, "Table checked"),
            Column("check_name", TEXT, "Check"),
            Column("column_name", TEXT, "Column checked; null for the whole table", required=False),
            Column("severity", TEXT, "critical (stops the next layer) or warning"),
            Column("outcome", TEXT, "passed, failed or error"),
            Column("observed", DOUBLE, "Value measured", required=False),
            Column("failing_rows", LONG, "Rows that broke it", required=False),
            Column("checked_rows", LONG, "Rows looked at", required=False),
            Column("message", TEXT, "What was found", required=False),
            Column("snapshot_id", LONG, "Snapshot of the table that was checked", required=False),
            Column("checked_at", TIME, "When it ran"),
        ),
        key=("run_id", "contract", "check_name"),
        partition_by="checked_at",
        sort_by=("table_name", "checked_at"),
        event_time="checked_at",
        owner="data-quality",
        tags=("Quality",),
    ),
)

TABLES: dict[str, TableSpec] = {spec.name: spec for spec in _SPECS}
"""Every table, by its full name: ``"bronze.trades"``."""


def arrow_schema(name: str) -> pa.Schema:
    """Arrow schema for rows to append to the table: types, nullability and order of its columns.

    Raises:
        KeyError: no such table.
    """
    return schema_to_pyarrow(TABLES[name].schema, include_field_ids=False)


def create_tables(catalog: Catalog) -> dict[str, tuple[str, ...]]:
    """Create the tables that do not exist yet, and bring the others in line with their declaration.

    Returns: table → what was done to it, in words; empty when all tables were as declared.

    Raises:
        EvolutionRefusedError: declarations ask for what cannot be done. These tables are as they were, the others
            are as declared.
    """
    for namespace in NAMESPACES:
        if not catalog.namespace_exists(namespace):
            _create_namespace(catalog, namespace)
    done: dict[str, tuple[str, ...]] = {}
    refused = []
    for spec in TABLES.values():
        try:
            changes = _create_or_evolve(catalog, spec)
        except EvolutionRefusedError as error:
            refused.append(str(error))
            continue
        if changes:
            done[spec.name] = changes
            log.info("%s: %s", spec.name, "; ".join(changes))
    if refused:
        raise EvolutionRefusedError("\n".join(refused))
    return done


def _create_or_evolve(catalog: Catalog, spec: TableSpec) -> tuple[str, ...]:
    try:
        return evolve(catalog.load_table(spec.name), spec)
    except NoSuchTableError:
        pass
    try:
        catalog.create_table(
            spec.name,
            spec.schema,
            partition_spec=spec.partition_spec,
            sort_order=spec.sort_order,
            properties=spec.properties,
        )
    except TableAlreadyExistsError:
        return ()  # another process was faster
    return ("created",)


def _create_namespace(catalog: Catalog, namespace: str) -> None:
    try:
        catalog.create_namespace(namespace)
    except NamespaceAlreadyExistsError:
        return  # another process was faster
    except IntegrityError:
        # The SQL catalog's own check and insert are two steps; the database refuses the second of two inserts.
        if not catalog.namespace_exists(namespace):
            raise
