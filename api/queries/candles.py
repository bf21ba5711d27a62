"""Candles of any interval, from gold.minute_bars.

An interval's candle exists where the symbol traded. Candles start at multiples of the interval since the epoch,
UTC; weeks start on Monday. Volume and value are exact sums; vwap is value / volume, rounded half-even to 8
decimals as everywhere.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

from api.errors import ApiError
from api.queries.paging import Page, Row, checked_first, decode_cursor, from_us, make_page, to_us
from api.queries.ranges import TimeRange
from lakehouse.query import Hints, Lake

_MINUTE = 60_000_000
_DAY = 1440 * _MINUTE
INTERVALS_US = {
    "1m": _MINUTE,
    "5m": 5 * _MINUTE,
    "15m": 15 * _MINUTE,
    "30m": 30 * _MINUTE,
    "1h": 60 * _MINUTE,
    "4h": 240 * _MINUTE,
    "1d": _DAY,
    "1w": 7 * _DAY,
}
MAX_CANDLES = 1500
"""One day of minutes and a little: what a chart asks for at once."""
_MONDAY = 4 * _DAY
"""1970-01-05, the first Monday."""

_EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)

_CANDLES = """
with bars as (
    select *, (epoch_us(bar_start) - ?) // ? as number
    from gold.minute_bars
    where symbol = ? and bar_start >= ? and bar_start <= ?
)
select
    number,
    arg_min(open_price, bar_start) as open_price,
    max(high_price) as high_price,
    min(low_price) as low_price,
    arg_max(close_price, bar_start) as close_price,
    sum(total_volume) as total_volume,
    sum(total_value) as total_value,
    sum(trade_count)::bigint as trade_count,
    sum(buy_volume) as buy_volume,
    sum(sell_volume) as sell_volume
from bars
group by number
"""


def candle_page(lake: Lake, symbol: str, interval: str, within: TimeRange, first: int, after: str | None) -> Page:
    """Candles that start within the range, oldest first.

    Raises:
        ApiError: BAD_USER_INPUT for an unknown interval or a wrong ``first``; BAD_CURSOR.
    """
    checked_first(first, MAX_CANDLES)
    width, offset = _width(interval), _offset(interval)
    cursor = decode_cursor(after, int)
    bounds = _bar_bounds(within, width, offset)
    page_bounds = bounds if cursor is None else (max(bounds[0], cursor[0] + width), bounds[1])
    rows = _rows(lake, symbol, width, offset, page_bounds, f"{_CANDLES} order by number limit ?", [first + 1])

    def count() -> int:
        first_bar, last_bar = from_us(bounds[0]), from_us(bounds[1])
        arguments = [offset, width, symbol, first_bar, last_bar]
        sql = f"select count(*) as n from ({_CANDLES})"
        counted = lake.rows(sql, arguments, hints=Hints((first_bar, last_bar)))
        return int(counted[0]["n"])

    return make_page(rows, first, after, lambda row: [to_us(row["timestamp"])], count)


def latest_candles(lake: Lake, symbol: str, interval: str, within: TimeRange, limit: int) -> list[Row]:
    """The newest ``limit`` candles that start within the range, oldest first.

    Raises:
        ApiError: BAD_USER_INPUT for an unknown interval or a limit not within 1 and MAX_CANDLES.
    """
    if not 1 <= limit <= MAX_CANDLES:
        raise ApiError(400, "BAD_USER_INPUT", f"limit is {limit}; it must be from 1 to {MAX_CANDLES}")
    width, offset = _width(interval), _offset(interval)
    bounds = _bar_bounds(within, width, offset)
    rows = _rows(lake, symbol, width, offset, bounds, f"{_CANDLES} order by number desc limit ?", [limit])
    return rows[::-1]


def _width(interval: str) -> int:
    if interval not in INTERVALS_US:
        raise ApiError(400, "BAD_USER_INPUT", f"interval {interval[:20]!r}: choose from {', '.join(INTERVALS_US)}")
    return INTERVALS_US[interval]


def _offset(interval: str) -> int:
    return _MONDAY if interval == "1w" else 0


def _bar_bounds(within: TimeRange, width: int, offset: int) -> tuple[int, int]:
    """First and last microsecond of minute bars: no candle at the edge is built from part of its minutes."""
    low, high = 0, to_us(from_us(253_402_300_799_999_999))
    if within.first is not None:
        low = max(low, -(-(to_us(within.first) - offset) // width) * width + offset)
    if within.last is not None:
        high = min(high, (to_us(within.last) - offset) // width * width + offset + width - 1)
    return low, max(high, 0)


def _rows(
    lake: Lake, symbol: str, width: int, offset: int, bounds: tuple[int, int], sql: str, tail: list[Any]
) -> list[Row]:
    first_bar, last_bar = from_us(bounds[0]), from_us(bounds[1])
    # The last microsecond of an interval starts no bar, so that it does as the open end of a window.
    rows = lake.rows(sql, [offset, width, symbol, first_bar, last_bar, *tail], hints=Hints((first_bar, last_bar)))
    for row in rows:
        row["symbol"] = symbol
        row["timestamp"] = from_us(row.pop("number") * width + offset)
        row["vwap"] = vwap(row["total_value"], row["total_volume"])
    return rows


def vwap(value: Decimal, volume: Decimal) -> Decimal | None:
    """Volume-weighted average price, half-even to 8 decimals; None without volume."""
    if not volume:
        return None
    return _EXACT.divide(value, volume).quantize(Decimal("1e-8"), rounding=ROUND_HALF_EVEN)
