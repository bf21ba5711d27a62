"""Trades from silver.trades, newest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from api.errors import ApiError
from api.queries.paging import Page, Row, checked_first, decode_cursor, from_us, make_page, to_us
from api.queries.ranges import TimeRange
from lakehouse.query import Hints, Lake

MAX_SYMBOLS = 100
_LAST = datetime.max.replace(tzinfo=UTC)

_COLUMNS = """trade_id, symbol, price, quantity, buy_order_id, sell_order_id, buyer_agent_id, seller_agent_id,
    is_aggressive_buy, timestamp, company_name, sector"""


@dataclass(frozen=True, slots=True)
class TradeFilter:
    """Conditions that all have to hold; None asks for nothing. Bounds are inclusive."""

    symbol: str | None = None
    symbols: Sequence[str] | None = None
    is_aggressive_buy: bool | None = None
    min_price: float | None = None
    max_price: float | None = None
    min_quantity: float | None = None
    max_quantity: float | None = None
    within: TimeRange = field(default_factory=TimeRange)

    def conditions(self) -> tuple[list[str], list[Any]]:
        """SQL conditions and their parameters.

        Raises:
            ApiError: BAD_USER_INPUT, more than MAX_SYMBOLS symbols.
        """
        found: list[tuple[str, Any]] = []
        if self.symbol is not None:
            found.append(("symbol = ?", self.symbol))
        if self.symbols is not None:
            if len(self.symbols) > MAX_SYMBOLS:
                raise ApiError(400, "BAD_USER_INPUT", f"symbols: at most {MAX_SYMBOLS}")
            found.append(("list_contains(?::varchar[], symbol)", list(self.symbols)))
        if self.is_aggressive_buy is not None:
            found.append(("is_aggressive_buy = ?", self.is_aggressive_buy))
        for condition, bound in (
            ("price >= ?", self.min_price),
            ("price <= ?", self.max_price),
            ("quantity >= ?", self.min_quantity),
            ("quantity <= ?", self.max_quantity),
        ):
            if bound is not None:
                found.append((condition, _decimal(bound)))
        if self.within.first is not None:
            found.append(("timestamp >= ?", self.within.first))
        if self.within.last is not None:
            found.append(("timestamp <= ?", self.within.last))
        return [condition for condition, _ in found], [value for _, value in found]

    def hints(self, last: datetime | None = None) -> Hints:
        """Times of the trades that pass, none of them after ``last``."""
        last = min((moment for moment in (self.within.last, last) if moment is not None), default=_LAST)
        return Hints((self.within.first, None if last >= _LAST else last + timedelta(microseconds=1)))


def trade_page(lake: Lake, wanted: TradeFilter, first: int, after: str | None) -> Page:
    """Trades that pass the filter, newest first; trades of one instant by id, downwards.

    Raises:
        ApiError: BAD_USER_INPUT for a wrong ``first`` or filter; BAD_CURSOR.
    """
    checked_first(first)
    conditions, parameters = wanted.conditions()
    cursor = decode_cursor(after, int, str)
    page_conditions, page_parameters, at = list(conditions), list(parameters), None
    if cursor is not None:
        at = from_us(cursor[0])
        page_conditions.append("timestamp <= ? and (timestamp < ? or trade_id < ?)")
        page_parameters += [at, at, cursor[1]]
    rows = lake.rows(
        f"select {_COLUMNS} from silver.trades where {_all(page_conditions)} "
        "order by timestamp desc, trade_id desc limit ?",
        [*page_parameters, first + 1],
        hints=wanted.hints(at),
    )

    def count() -> int:
        sql = f"select count(*) as n from silver.trades where {_all(conditions)}"
        counted = lake.rows(sql, parameters, hints=wanted.hints())
        return int(counted[0]["n"])

    return make_page(rows, first, after, lambda row: [to_us(row["timestamp"]), row["trade_id"]], count)


def trade_by_id(lake: Lake, trade_id: str) -> Row | None:
    """One trade, None when there is none of that id."""
    sql = f"select {_COLUMNS} from silver.trades where trade_id = ? limit 1"
    rows = lake.rows(sql, [trade_id], hints=Hints(key=trade_id))
    return rows[0] if rows else None


def _all(conditions: Sequence[str]) -> str:
    return " and ".join(f"({condition})" for condition in conditions) or "true"


def _decimal(bound: float) -> Decimal:
    """The decimal a client wrote: 185.1 is meant as 185.1, not as the nearest binary fraction."""
    value = Decimal(repr(bound))
    if not value.is_finite() or abs(value) >= 10**10:
        raise ApiError(400, "BAD_USER_INPUT", f"{bound} is out of range")
    return value
