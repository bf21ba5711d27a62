# mypy: disable-error-code="misc"
# graphene carries no types, so every class below has a base of type Any.
"""Output types of the GraphQL schema. Resolvers without a method read the row of the same name in snake case.

Prices and quantities are exact decimals in the lakehouse; GraphQL's Float is their nearest binary fraction.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import graphene

from api.queries import daily, quality
from api.queries.paging import Page, Row
from lakehouse.query import Lake


class Symbol(graphene.ObjectType):
    """A listed company."""

    symbol = graphene.String(required=True)
    company_name = graphene.String(required=True)
    sector = graphene.String(required=True)
    market_cap_category = graphene.String(required=True, description="large, mid or small.")
    is_current = graphene.Boolean(required=True, description="False for a former version of the company's data.")


class Trade(graphene.ObjectType):
    """One executed trade."""

    trade_id = graphene.ID(required=True)
    symbol = graphene.String(required=True)
    price = graphene.Float(required=True)
    quantity = graphene.Float(required=True, description="Shares; fractions in markets that trade them.")
    buy_order_id = graphene.String(required=True)
    sell_order_id = graphene.String(required=True)
    buyer_agent_id = graphene.String(required=True)
    seller_agent_id = graphene.String(required=True)
    is_aggressive_buy = graphene.Boolean(required=True, description="True when the buyer took liquidity.")
    timestamp = graphene.DateTime(required=True, description="Event time, UTC.")
    company_name = graphene.String()
    sector = graphene.String()
    symbol_details = graphene.Field(Symbol, description="The company as it is now; null for an unknown symbol.")


class _OpenToClose(graphene.ObjectType):
    """Open, high, low and close, and the change between the first and the last."""

    open_price = graphene.Float(required=True)
    close_price = graphene.Float(required=True)
    high_price = graphene.Float(required=True)
    low_price = graphene.Float(required=True)
    vwap = graphene.Float(description="Volume-weighted average price.")
    total_volume = graphene.Float(required=True)
    total_value = graphene.Float(required=True, description="Sum of price times quantity.")
    trade_count = graphene.Int(required=True)
    buy_volume = graphene.Float(required=True, description="Volume of trades that buyers took.")
    sell_volume = graphene.Float(required=True, description="Volume of trades that sellers took.")
    price_change = graphene.Float(required=True, description="Close minus open.")
    price_change_pct = graphene.Float(required=True, description="Change of the open price, percent.")

    @staticmethod
    def resolve_price_change(row: Row, _info: Any) -> Decimal:
        change: Decimal = row["close_price"] - row["open_price"]
        return change

    @staticmethod
    def resolve_price_change_pct(row: Row, _info: Any) -> float:
        return float((row["close_price"] - row["open_price"]) * 100 / row["open_price"])


class MinuteCandle(_OpenToClose):
    """One candle; `timestamp` is its start."""

    symbol = graphene.String(required=True)
    timestamp = graphene.DateTime(required=True)


class DailySummary(_OpenToClose):
    """One symbol on one UTC day."""

    symbol = graphene.String(required=True)
    trading_date = graphene.Date(required=True)
    company_name = graphene.String()
    sector = graphene.String()
    volatility = graphene.Float(description="Sample deviation of one-minute log returns.")
    price_range = graphene.Float(required=True, description="High minus low.")

    @staticmethod
    def resolve_price_range(row: Row, _info: Any) -> Decimal:
        spread: Decimal = row["high_price"] - row["low_price"]
        return spread


class QualityCheck(graphene.ObjectType):
    """One check of a data contract."""

    table_name = graphene.String(required=True)
    check_name = graphene.String(required=True, description="Path of the check in the contract.")
    column_name = graphene.String()
    severity = graphene.String(required=True, description="critical stops the next layer, warning does not.")
    outcome = graphene.String(required=True, description="passed, failed or error.")
    observed = graphene.Float()
    failing_rows = graphene.Float()
    checked_rows = graphene.Float()
    message = graphene.String(description="What was found, with an example.")


class DataQuality(graphene.ObjectType):
    """How good a table was on a day, or a layer as the mean of its tables."""

    layer = graphene.String(required=True)
    table_name = graphene.String(required=True, description="The layer's name for the mean of its tables.")
    day = graphene.Date(description="UTC date whose rows were checked; null: all rows.")
    checked_rows = graphene.Float(required=True)
    completeness = graphene.Float(required=True)
    accuracy = graphene.Float(required=True)
    freshness = graphene.Float(required=True)
    uniqueness = graphene.Float(required=True)
    score = graphene.Float(
        required=True, description="0.3 completeness + 0.3 accuracy + 0.2 freshness + 0.2 uniqueness."
    )
    grade = graphene.String(
        required=True, description="A from 0.95, B from 0.85, C from 0.70, D from 0.50, else F."
    )
    failing_checks = graphene.List(graphene.NonNull(graphene.String), required=True)
    age_seconds = graphene.Float(description="Of the newest event.")
    volume_deviation_percent = graphene.Float(description="Of the rows, from the mean of the days before.")
    checked_at = graphene.DateTime(required=True)
    checks = graphene.List(
        graphene.NonNull(QualityCheck),
        required=True,
        failed_only=graphene.Boolean(default_value=True, required=True),
    )

    @staticmethod
    def resolve_checks(row: Row, info: Any, failed_only: bool) -> list[Row]:
        return quality.checks(info.context.lake, row, failed_only)


def _lake(overview: Row, info: Any) -> Lake:
    """The lake that the overview was read from."""
    lake: Lake = info.context.lake_at(overview["as_of"], "gold.market_overview")
    return lake


class MarketOverview(graphene.ObjectType):
    """All symbols on one UTC day."""

    trading_date = graphene.Date(required=True)
    total_trades = graphene.Int(required=True)
    total_volume = graphene.Float(required=True)
    total_value = graphene.Float(required=True)
    unique_symbols = graphene.Int(required=True)
    active_traders = graphene.Int(description="Agents that bought or sold; null for days computed before it was.")
    advancing = graphene.Int(required=True)
    declining = graphene.Int(required=True)
    unchanged = graphene.Int(required=True)
    avg_spread_bps = graphene.Float(description="Mean of the symbols' mean quoted spread, basis points.")
    volatility_index = graphene.Float(description="Mean of the symbols' volatility, weighted by value traded.")
    top_gainers = graphene.List(graphene.NonNull(DailySummary), required=True)
    top_losers = graphene.List(graphene.NonNull(DailySummary), required=True)
    most_active = graphene.List(graphene.NonNull(DailySummary), required=True, description="By value traded.")

    @staticmethod
    def resolve_top_gainers(row: Row, info: Any) -> list[Row]:
        return daily.top_gainers(_lake(row, info), row["trading_date"])

    @staticmethod
    def resolve_top_losers(row: Row, info: Any) -> list[Row]:
        return daily.top_losers(_lake(row, info), row["trading_date"])

    @staticmethod
    def resolve_most_active(row: Row, info: Any) -> list[Row]:
        return daily.most_active(_lake(row, info), row["trading_date"])


class OrderBookLevel(graphene.ObjectType):
    """One price of one side."""

    price = graphene.Float(required=True)
    quantity = graphene.Float(required=True)
    order_count = graphene.Int(required=True)


class OrderBookSnapshot(graphene.ObjectType):
    """The newest book of a symbol; the fields of an empty side are null."""

    symbol = graphene.String(required=True)
    timestamp = graphene.DateTime(required=True)
    sequence_number = graphene.Float(description="The book's own number; a Float, as it outgrows Int.")
    best_bid_price = graphene.Float()
    best_bid_qty = graphene.Float()
    best_ask_price = graphene.Float()
    best_ask_qty = graphene.Float()
    bid_depth = graphene.Float(required=True, description="Quantity over all bid levels.")
    ask_depth = graphene.Float(required=True, description="Quantity over all ask levels.")
    spread = graphene.Float()
    mid_price = graphene.Float()
    company_name = graphene.String()
    sector = graphene.String()
    bids = graphene.List(graphene.NonNull(OrderBookLevel), required=True, description="Highest price first.")
    asks = graphene.List(graphene.NonNull(OrderBookLevel), required=True, description="Lowest price first.")


class PageInfo(graphene.ObjectType):
    """Where a page stands in its list."""

    has_next_page = graphene.Boolean(required=True)
    has_previous_page = graphene.Boolean(required=True)
    start_cursor = graphene.String()
    end_cursor = graphene.String()


def _connection(node: Any) -> Any:
    """The connection type of a node type: edges, pageInfo, totalCount."""
    name = node._meta.name
    edge = type(
        f"{name}Edge",
        (graphene.ObjectType,),
        {
            "__doc__": f"One {name} and its place in the list.",
            "node": graphene.Field(node, required=True),
            "cursor": graphene.String(required=True),
        },
    )

    def resolve_total_count(root: Row, info: Any) -> int:
        page: Page = root["page"]
        assert info.context.lake is not None  # noqa: S101 (asks whether there is time left)
        return page.count()

    return type(
        f"{name}Connection",
        (graphene.ObjectType,),
        {
            "__doc__": f"A page of {name}s.",
            "edges": graphene.List(graphene.NonNull(edge), required=True),
            "page_info": graphene.Field(PageInfo, required=True),
            "total_count": graphene.Int(required=True, description="All that match, on whatever page."),
            "resolve_total_count": staticmethod(resolve_total_count),
        },
    )


TradeConnection = _connection(Trade)
MinuteCandleConnection = _connection(MinuteCandle)
DailySummaryConnection = _connection(DailySummary)
SymbolConnection = _connection(Symbol)


def connection_value(page: Page) -> Row:
    """A page of rows as the value of a connection type."""
    return {
        "edges": [{"node": row, "cursor": cursor} for row, cursor in zip(page.rows, page.cursors, strict=True)],
        "page_info": {
            "has_next_page": page.has_next,
            "has_previous_page": page.has_previous,
            "start_cursor": page.cursors[0] if page.cursors else None,
            "end_cursor": page.cursors[-1] if page.cursors else None,
        },
        "page": page,
    }
