# mypy: disable-error-code="misc"
# graphene carries no types, so every class below has a base of type Any.
"""Arguments of the GraphQL queries, and how they become the filters of ``api.queries``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import graphene
from graphql import GraphQLError, Undefined
from graphql.language.ast import StringValueNode, ValueNode

from api.errors import ApiError
from api.queries.ranges import Moment, TimeRange, parse_moment
from api.queries.symbols import SymbolFilter
from api.queries.trades import TradeFilter
from lakehouse.as_of import parse_as_of


class DateOrTime(graphene.Scalar):
    """A date such as 2024-08-08 (that whole day, UTC) or a time such as 2024-08-08T12:00:00Z."""

    @staticmethod
    def serialize(value: Moment) -> str:
        return value.instant.date().isoformat() if value.is_date else value.instant.isoformat()

    @staticmethod
    def parse_value(value: Any) -> Moment:
        if not isinstance(value, str):
            raise GraphQLError("a date or time is a text")
        try:
            return parse_moment(value)
        except ApiError as error:
            raise GraphQLError(error.message, original_error=error) from None

    @staticmethod
    def parse_literal(node: ValueNode, _variables: Any = None) -> Any:
        return DateOrTime.parse_value(node.value) if isinstance(node, StringValueNode) else Undefined


class AsOf(graphene.Scalar):
    """A snapshot's id, a date (its last moment, UTC) or a time: tables as they were then, not yet corrected."""

    @staticmethod
    def serialize(value: datetime | int) -> str:
        return str(value) if isinstance(value, int) else value.isoformat()

    @staticmethod
    def parse_value(value: Any) -> datetime | int:
        if not isinstance(value, str):
            raise GraphQLError("a snapshot's id, a date or a time is a text")
        try:
            return parse_as_of(value)
        except ValueError as error:
            raise GraphQLError(str(error)) from None

    @staticmethod
    def parse_literal(node: ValueNode, _variables: Any = None) -> Any:
        return AsOf.parse_value(node.value) if isinstance(node, StringValueNode) else Undefined


class DateRangeInput(graphene.InputObjectType):
    """From start to end, both included; leave one out for an open range."""

    start = DateOrTime()
    end = DateOrTime()


class TradeFilterInput(graphene.InputObjectType):
    """All given conditions have to hold; bounds are included."""

    symbol = graphene.String()
    symbols = graphene.List(graphene.NonNull(graphene.String))
    is_aggressive_buy = graphene.Boolean()
    min_price = graphene.Float()
    max_price = graphene.Float()
    min_quantity = graphene.Float()
    max_quantity = graphene.Float()
    date_range = DateRangeInput()


class SymbolFilterInput(graphene.InputObjectType):
    """All given conditions have to hold; `search` finds part of a symbol or company name."""

    sector = graphene.String()
    market_cap_category = graphene.String()
    is_current = graphene.Boolean(default_value=True)
    search = graphene.String()


def time_range(given: dict[str, Any] | None) -> TimeRange:
    """DateRangeInput → range."""
    return TimeRange(**given) if given else TimeRange()


def trade_filter(given: dict[str, Any] | None) -> TradeFilter:
    """TradeFilterInput → filter."""
    fields = dict(given or {})
    return TradeFilter(within=time_range(fields.pop("date_range", None)), **fields)


def symbol_filter(given: dict[str, Any] | None) -> SymbolFilter:
    """SymbolFilterInput → filter."""
    return SymbolFilter(**(given or {}))
