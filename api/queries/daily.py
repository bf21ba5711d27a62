"""Daily summaries and the market's overview, from gold."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

from api.errors import ApiError
from api.queries.paging import Page, Row, checked_first, decode_cursor, make_page
from api.queries.ranges import TimeRange
from lakehouse.query import Lake

TOP = 5
"""Symbols in each of the overview's lists."""

_DAY = """select symbol, trading_date, open_price, close_price, high_price, low_price, vwap, total_volume,
    trade_count, total_value, buy_volume, sell_volume, price_change_pct, volatility, company_name, sector
from gold.daily_trading_summary"""


def daily_page(lake: Lake, symbol: str, within: TimeRange, first: int, after: str | None) -> Page:
    """Days on which the symbol traded, newest first.

    Raises:
        ApiError: BAD_USER_INPUT for a wrong ``first``; BAD_CURSOR.
    """
    checked_first(first)
    cursor = decode_cursor(after, str)
    where, parameters = "symbol = ?", [symbol]
    bounds: list[Any] = []
    for condition, day in ((">=", within.first_date), ("<=", within.last_date)):
        if day is not None:
            where += f" and trading_date {condition} ?"
            bounds.append(day)
    matching = [*parameters, *bounds]
    page_where, page_parameters = where, list(matching)
    if cursor is not None:
        page_where += " and trading_date < ?"
        page_parameters.append(_date(cursor[0]))
    rows = lake.rows(
        f"{_DAY} where {page_where} order by trading_date desc limit ?", [*page_parameters, first + 1]
    )

    def count() -> int:
        counted = lake.rows(f"select count(*) as n from gold.daily_trading_summary where {where}", matching)
        return int(counted[0]["n"])

    return make_page(rows, first, after, lambda row: [row["trading_date"].isoformat()], count)


def market_overview(lake: Lake, day: date | None) -> Row | None:
    """The market on a day, the newest one without ``day``; None when nothing traded."""
    where, parameters = ("trading_date = ?", [day]) if day is not None else ("true", [])
    rows = lake.rows(
        # All columns: a table that was made by an earlier version has fewer until the batch side has evolved it.
        f"select * from gold.market_overview where {where} order by trading_date desc limit 1",
        parameters,
    )
    return rows[0] if rows else None


def top_gainers(lake: Lake, day: date) -> list[Row]:
    """Symbols that rose most from open to close."""
    return _top(lake, day, "price_change_pct > 0", "price_change_pct desc")


def top_losers(lake: Lake, day: date) -> list[Row]:
    """Symbols that fell most from open to close."""
    return _top(lake, day, "price_change_pct < 0", "price_change_pct")


def most_active(lake: Lake, day: date) -> list[Row]:
    """Symbols with the most value traded; shares of different prices cannot be compared by number."""
    return _top(lake, day, "true", "total_value desc")


def day_opens(lake: Lake, day: date) -> dict[str, Decimal]:
    """Opening price of every symbol that traded on the day."""
    rows = lake.rows("select symbol, open_price from gold.daily_trading_summary where trading_date = ?", [day])
    return {row["symbol"]: row["open_price"] for row in rows}


def _top(lake: Lake, day: date, condition: str, order: str) -> list[Row]:
    return lake.rows(f"{_DAY} where trading_date = ? and {condition} order by {order}, symbol limit ?", [day, TOP])


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ApiError(
            400, "BAD_CURSOR", "after is not a cursor of this list; take it from an edge or pageInfo"
        ) from None
