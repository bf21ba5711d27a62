# mypy: disable-error-code="misc"
# graphene carries no types, so the class below has a base of type Any.
"""The root query: arguments in, rows of ``api.queries`` out."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Any

import graphene
from graphql import GraphQLSchema

from api.queries import candles, daily, orderbook, symbols, trades
from api.queries.paging import Row
from api.schema import types
from api.schema.context import RequestContext
from api.schema.inputs import (
    DateRangeInput,
    SymbolFilterInput,
    TradeFilterInput,
    symbol_filter,
    time_range,
    trade_filter,
)
from api.schema.lookahead import selects


class Query(graphene.ObjectType):
    """What can be asked."""

    trades = graphene.Field(
        types.TradeConnection,
        required=True,
        description="Trades, newest first.",
        filter=TradeFilterInput(),
        first=graphene.Int(default_value=20, required=True),
        after=graphene.String(),
    )
    trade_by_id = graphene.Field(types.Trade, id=graphene.ID(required=True))
    minute_candles = graphene.Field(
        types.MinuteCandleConnection,
        required=True,
        description=f"Candles that start in the range, oldest first; intervals {', '.join(candles.INTERVALS_US)}.",
        symbol=graphene.String(required=True),
        date_range=DateRangeInput(),
        interval=graphene.String(default_value="1m", required=True),
        first=graphene.Int(default_value=500, required=True),
        after=graphene.String(),
    )
    daily_summary = graphene.Field(
        types.DailySummaryConnection,
        required=True,
        description="Days of one symbol, newest first.",
        symbol=graphene.String(required=True),
        date_range=DateRangeInput(),
        first=graphene.Int(default_value=30, required=True),
        after=graphene.String(),
    )
    market_overview = graphene.Field(
        types.MarketOverview,
        description="The market on a day; without one, on the newest day with trades.",
        target_date=graphene.Date(),
    )
    symbols = graphene.Field(
        types.SymbolConnection,
        required=True,
        description="Symbols by name.",
        filter=SymbolFilterInput(),
        first=graphene.Int(default_value=50, required=True),
        after=graphene.String(),
    )
    order_book = graphene.Field(
        types.OrderBookSnapshot,
        description="The newest book of a symbol, live where the stream runs.",
        symbol=graphene.String(required=True),
    )

    @staticmethod
    def resolve_trades(
        _root: Any, info: Any, first: int, filter: Row | None = None, after: str | None = None
    ) -> Row:  # fmt: skip
        page = trades.trade_page(info.context.lake, trade_filter(filter), first, after)
        if selects(info, "edges", "node", "symbolDetails"):
            _add_symbol_details(info.context, page.rows)
        return types.connection_value(page)

    @staticmethod
    def resolve_trade_by_id(_root: Any, info: Any, id: str) -> Row | None:
        row = trades.trade_by_id(info.context.lake, id)
        if row is not None and selects(info, "symbolDetails"):
            _add_symbol_details(info.context, [row])
        return row

    @staticmethod
    def resolve_minute_candles(
        _root: Any,
        info: Any,
        symbol: str,
        interval: str,
        first: int,
        date_range: Row | None = None,
        after: str | None = None,
    ) -> Row:
        page = candles.candle_page(info.context.lake, symbol, interval, time_range(date_range), first, after)
        return types.connection_value(page)

    @staticmethod
    def resolve_daily_summary(
        _root: Any, info: Any, symbol: str, first: int, date_range: Row | None = None, after: str | None = None
    ) -> Row:
        page = daily.daily_page(info.context.lake, symbol, time_range(date_range), first, after)
        return types.connection_value(page)

    @staticmethod
    def resolve_market_overview(_root: Any, info: Any, target_date: date | None = None) -> Row | None:
        return daily.market_overview(info.context.lake, target_date)

    @staticmethod
    def resolve_symbols(
        _root: Any, info: Any, first: int, filter: Row | None = None, after: str | None = None
    ) -> Row:  # fmt: skip
        wanted = symbol_filter(filter)
        return types.connection_value(symbols.symbol_page(info.context.lake, wanted, first, after))

    @staticmethod
    def resolve_order_book(_root: Any, info: Any, symbol: str) -> Row | None:
        return orderbook.order_book(info.context.lake, info.context.hub, symbol)


def _add_symbol_details(context: RequestContext, rows: Iterable[Row]) -> None:
    known = symbols.current_symbols(context.lake, (row["symbol"] for row in rows))
    for row in rows:
        row["symbol_details"] = known.get(row["symbol"])


def build_schema() -> GraphQLSchema:
    """The whole schema, for graphql-core."""
    schema: GraphQLSchema = graphene.Schema(query=Query).graphql_schema
    return schema
