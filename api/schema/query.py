# mypy: disable-error-code="misc"
# graphene carries no types, so the class below has a base of type Any.
"""The root query: arguments in, rows of ``api.queries`` out."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from typing import Any

import graphene
from graphql import GraphQLSchema

from api.queries import candles, daily, orderbook, quality, symbols, trades
from api.queries.paging import Row
from api.schema import types
from api.schema.context import RequestContext
from api.schema.inputs import (
    AsOf,
    DateRangeInput,
    SymbolFilterInput,
    TradeFilterInput,
    symbol_filter,
    time_range,
    trade_filter,
)
from api.schema.lookahead import selects

Moment = datetime | int | None
"""A time, a snapshot's id, or now."""


class Query(graphene.ObjectType):
    """What can be asked."""

    trades = graphene.Field(
        types.TradeConnection,
        required=True,
        description="Trades, newest first.",
        filter=TradeFilterInput(),
        first=graphene.Int(default_value=20, required=True),
        after=graphene.String(),
        as_of=AsOf(),
    )
    trade_by_id = graphene.Field(types.Trade, id=graphene.ID(required=True), as_of=AsOf())
    minute_candles = graphene.Field(
        types.MinuteCandleConnection,
        required=True,
        description=f"Candles that start in the range, oldest first; intervals {', '.join(candles.INTERVALS_US)}.",
        symbol=graphene.String(required=True),
        date_range=DateRangeInput(),
        interval=graphene.String(default_value="1m", required=True),
        first=graphene.Int(default_value=500, required=True),
        after=graphene.String(),
        as_of=AsOf(),
    )
    daily_summary = graphene.Field(
        types.DailySummaryConnection,
        required=True,
        description="Days of one symbol, newest first.",
        symbol=graphene.String(required=True),
        date_range=DateRangeInput(),
        first=graphene.Int(default_value=30, required=True),
        after=graphene.String(),
        as_of=AsOf(),
    )
    market_overview = graphene.Field(
        types.MarketOverview,
        description="The market on a day; without one, on the newest day with trades.",
        target_date=graphene.Date(),
        as_of=AsOf(),
    )
    symbols = graphene.Field(
        types.SymbolConnection,
        required=True,
        description="Symbols by name.",
        filter=SymbolFilterInput(),
        first=graphene.Int(default_value=50, required=True),
        after=graphene.String(),
        as_of=AsOf(),
    )
    order_book = graphene.Field(
        types.OrderBookSnapshot,
        description="The newest book of a symbol, live where the stream runs; with asOf the lakehouse's.",
        symbol=graphene.String(required=True),
        as_of=AsOf(),
    )

    data_quality = graphene.List(
        graphene.NonNull(types.DataQuality),
        required=True,
        description="Scores of tables and layers by their data contracts, newest first.",
        layer=graphene.String(),
        table=graphene.String(description="Full name, as silver.trades; a layer's for the mean of its tables."),
        day=graphene.Date(),
        history=graphene.Boolean(
            default_value=False, required=True, description="Every check; else the newest of each table."
        ),
        first=graphene.Int(default_value=50, required=True),
    )

    @staticmethod
    def resolve_data_quality(
        _root: Any,
        info: Any,
        first: int,
        history: bool,
        layer: str | None = None,
        table: str | None = None,
        day: date | None = None,
    ) -> list[Row]:
        return quality.scores(info.context.lake, layer, table, day, history, first)

    @staticmethod
    def resolve_trades(
        _root: Any,
        info: Any,
        first: int,
        filter: Row | None = None,
        after: str | None = None,
        as_of: Moment = None,
    ) -> Row:
        lake = info.context.lake_at(as_of, "silver.trades")
        page = trades.trade_page(lake, trade_filter(filter), first, after)
        if selects(info, "edges", "node", "symbolDetails"):
            _add_symbol_details(info.context, page.rows)
        return types.connection_value(page)

    @staticmethod
    def resolve_trade_by_id(_root: Any, info: Any, id: str, as_of: Moment = None) -> Row | None:
        row = trades.trade_by_id(info.context.lake_at(as_of, "silver.trades"), id)
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
        as_of: Moment = None,
    ) -> Row:
        lake = info.context.lake_at(as_of, "gold.minute_bars")
        page = candles.candle_page(lake, symbol, interval, time_range(date_range), first, after)
        return types.connection_value(page)

    @staticmethod
    def resolve_daily_summary(
        _root: Any,
        info: Any,
        symbol: str,
        first: int,
        date_range: Row | None = None,
        after: str | None = None,
        as_of: Moment = None,
    ) -> Row:
        lake = info.context.lake_at(as_of, "gold.daily_trading_summary")
        return types.connection_value(daily.daily_page(lake, symbol, time_range(date_range), first, after))

    @staticmethod
    def resolve_market_overview(
        _root: Any, info: Any, target_date: date | None = None, as_of: Moment = None
    ) -> Row | None:
        row = daily.market_overview(info.context.lake_at(as_of, "gold.market_overview"), target_date)
        return None if row is None else row | {"as_of": as_of}

    @staticmethod
    def resolve_symbols(
        _root: Any,
        info: Any,
        first: int,
        filter: Row | None = None,
        after: str | None = None,
        as_of: Moment = None,
    ) -> Row:
        lake = info.context.lake_at(as_of, "dimensions.dim_symbol")
        return types.connection_value(symbols.symbol_page(lake, symbol_filter(filter), first, after))

    @staticmethod
    def resolve_order_book(_root: Any, info: Any, symbol: str, as_of: Moment = None) -> Row | None:
        lake = info.context.lake_at(as_of, "silver.orderbook")
        return orderbook.order_book(lake, info.context.hub if as_of is None else None, symbol)


def _add_symbol_details(context: RequestContext, rows: Iterable[Row]) -> None:
    known = symbols.current_symbols(context.lake, (row["symbol"] for row in rows))
    for row in rows:
        row["symbol_details"] = known.get(row["symbol"])


def build_schema() -> GraphQLSchema:
    """The whole schema, for graphql-core."""
    schema: GraphQLSchema = graphene.Schema(query=Query).graphql_schema
    return schema
