"""Tables of bronze: what the topics held, row by row, one table for each raw topic."""

from __future__ import annotations

from lakehouse.columns import (
    AGENT,
    EVENT,
    KAFKA,
    KAFKA_KEY,
    LEVEL,
    LEVELS,
    LONG,
    ORDER,
    PRICE,
    QUOTE,
    SYMBOL,
    TEXT,
    TEXTS,
    TIME,
    TRADE,
    TRADERS,
    VOLUME,
    optional,
)
from lakehouse.spec import Column, TableSpec


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


TABLES = (
    _bronze("trades", "Executed trades, one row per message of raw.trades", TRADE, TRADERS),
    _bronze(
        "orders",
        "Orders placed and cancelled, one row per message of raw.orders",
        ORDER,
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
            AGENT,
            Column("agent_type", TEXT, "Kind of agent"),
            SYMBOL,
            Column("action", TEXT, "What it did"),
            Column("decision_factors", TEXTS, "What it was decided on"),
        ),
        ("agent_id",),
    ),
)
