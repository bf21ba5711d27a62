"""Tables of gold: aggregates of whole days, computed anew when a day changes."""

from __future__ import annotations

from lakehouse.columns import (
    AGENT,
    AGGREGATED,
    BREADTH,
    COMPANY,
    DOUBLE,
    FLOW,
    LONG,
    LOTS,
    OHLC,
    PRICE,
    SIDES,
    SYMBOL,
    TEXT,
    TIME,
    TRADING_DATE,
    VALUE,
    VOLUME,
)
from lakehouse.spec import Column, TableSpec


def _gold(
    name: str,
    doc: str,
    columns: tuple[Column, ...],
    key: tuple[str, ...],
    personal: tuple[str, ...] = (),
    follows: tuple[str, ...] = ("silver.trades",),
) -> TableSpec:
    return TableSpec(
        f"gold.{name}",
        doc,
        columns,
        key=key,
        partition_by="trading_date",
        sort_by=key,
        event_time="bar_start" if "bar_start" in key else "trading_date",
        follows=follows,
        owner="analytics",
        tags=("Gold", "Analytics", "Restricted" if personal else "Public"),
        personal=personal,
    )


TABLES = (
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
            Column("active_traders", LONG, "Agents that bought or sold", required=False),
            *BREADTH,
            Column(
                "avg_spread_bps",
                DOUBLE,
                "Mean of the symbols' mean quoted spread, basis points of the mid",
                required=False,
            ),
            Column(
                "volatility_index",
                DOUBLE,
                "Mean of the symbols' volatility, weighted by value traded",
                required=False,
            ),
            AGGREGATED,
        ),
        ("trading_date",),
        follows=("silver.trades", "silver.quotes"),
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
    _gold(
        "trader_performance",
        "What an agent did on a day and earned by it: realised profit by first in, first out",
        (
            AGENT,
            TRADING_DATE,
            *SIDES,
            Column("symbol_count", LONG, "Symbols traded"),
            Column("realized_pnl", VALUE, "Profit of what was closed on the day, half-even"),
            Column("closing_fills", LONG, "Fills that closed something"),
            Column("winning_fills", LONG, "Closing fills with a profit above 0"),
            Column("win_rate", DOUBLE, "winning_fills / closing_fills; null without any", required=False),
            Column("max_drawdown", VALUE, "Deepest fall of the day's realised profit from its peak so far"),
            Column(
                "sharpe_ratio", DOUBLE, "Mean / sample deviation of the closing fills' profits", required=False
            ),
            Column("average_holding_seconds", DOUBLE, "Held before closing, weighted by quantity", required=False),
            AGGREGATED,
        ),
        ("agent_id", "trading_date"),
        ("agent_id",),
    ),
    _gold(
        "portfolio_positions",
        "What an agent held at the end of a day: each symbol that is open, or was traded that day",
        (
            AGENT,
            SYMBOL,
            TRADING_DATE,
            Column("quantity", VOLUME, "Held at the end of the day; below 0 when short"),
            Column(
                "average_cost", PRICE, "Mean price of the open lots, half-even; null when flat", required=False
            ),
            Column("last_price", PRICE, "Last price traded, on the day or before"),
            Column("market_value", VALUE, "quantity * last_price, half-even"),
            Column("unrealized_pnl", VALUE, "market_value minus what the open lots cost, half-even"),
            Column("unrealized_pnl_pct", DOUBLE, "Of the lots' cost, percent; null when flat", required=False),
            Column("weight_pct", DOUBLE, "|market_value|, percent of all the agent's", required=False),
            Column("realized_pnl", VALUE, "Profit of what was closed on the day, half-even"),
            Column("lots", LOTS, "Open lots, oldest first: what the next day goes on from"),
            AGGREGATED,
        ),
        ("agent_id", "symbol", "trading_date"),
        ("agent_id",),
    ),
)
