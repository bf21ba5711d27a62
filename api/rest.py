"""Flat JSON for charts and tables: ``/api/v1/ohlcv`` and ``/api/v1/market``.

Numbers are written exactly as the decimals they are, never through a binary fraction.
"""

from __future__ import annotations

import msgspec
from flask import Blueprint, Response, request

from api.errors import ApiError
from api.live.hub import Hub
from api.queries import candles
from api.queries.daily import day_opens
from api.queries.paging import from_us, to_us
from api.queries.ranges import Moment, TimeRange, parse_moment
from lakehouse.query import Lake
from lakehouse.running import QueryTimeoutError

_JSON = msgspec.json.Encoder(decimal_format="number")
DEFAULT_LIMIT = 500


def rest_routes(lake: Lake, hub: Hub) -> Blueprint:
    """The REST part, over the lakehouse and the live state."""
    routes = Blueprint("rest", __name__, url_prefix="/api/v1")

    @routes.get("/ohlcv")
    def ohlcv() -> Response:
        """Candles, oldest first: the newest ``limit`` that start within ``from`` and ``to`` (inclusive)."""
        symbol = request.args.get("symbol", "")
        if not symbol:
            raise ApiError(400, "BAD_USER_INPUT", "symbol is missing")
        within = TimeRange(_moment("from"), _moment("to"))
        try:
            rows = candles.latest_candles(lake, symbol, request.args.get("interval", "1m"), within, _limit())
        except QueryTimeoutError:
            raise ApiError(504, "QUERY_TIMEOUT", "the query took too long and was stopped; ask for less") from None
        return _flat(
            [
                {
                    "symbol": symbol,
                    "time": row["timestamp"],
                    "epoch_seconds": to_us(row["timestamp"]) // 1_000_000,
                    "open": row["open_price"],
                    "high": row["high_price"],
                    "low": row["low_price"],
                    "close": row["close_price"],
                    "volume": row["total_volume"],
                    "value": row["total_value"],
                    "vwap": row["vwap"],
                    "trade_count": row["trade_count"],
                    "buy_volume": row["buy_volume"],
                    "sell_volume": row["sell_volume"],
                }
                for row in rows
            ]
        )

    @routes.get("/market")
    def market() -> Response:
        """Last price, best quotes and the day's opening price of every symbol seen live."""
        rows = hub.market()
        newest = max((us for row in rows if isinstance(us := row["event_us"], int)), default=None)
        opens = day_opens(lake, from_us(newest).date()) if newest is not None else {}
        return _flat([row | {"day_open": opens.get(str(row["symbol"]))} for row in rows])

    return routes


def _moment(name: str) -> Moment | None:
    text = request.args.get(name)
    return parse_moment(text) if text else None


def _limit() -> int:
    text = request.args.get("limit", str(DEFAULT_LIMIT))
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ApiError(400, "BAD_USER_INPUT", f"limit is {text[:20]!r}, not a number")
    return int(text)


def _flat(rows: list[dict[str, object]]) -> Response:
    response = Response(_JSON.encode(rows), mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response
