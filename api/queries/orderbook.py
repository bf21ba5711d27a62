"""The newest order book of a symbol: the live one where it is fresher than the lakehouse's."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from api.live.events import Book, Level
from api.live.hub import Hub
from api.queries.paging import Row
from api.queries.symbols import current_symbols
from lakehouse.query import Lake

_LATEST = """select symbol, timestamp, sequence_number, best_bid_price, best_bid_qty, best_ask_price, best_ask_qty,
    bid_depth, ask_depth, spread, mid_price, bids, asks, company_name, sector
from silver.orderbook
where symbol = ?
order by timestamp desc, sequence_number desc
limit 1"""


def order_book(lake: Lake, hub: Hub | None, symbol: str) -> Row | None:
    """Best prices, depth (quantity over all levels), spread, mid and levels; None for a symbol without a book.

    Without ``hub`` only what the lakehouse has.
    """
    stored = lake.rows(_LATEST, [symbol])
    live = None if hub is None else hub.book(symbol)
    if live is None or (stored and stored[0]["timestamp"] >= live.timestamp):
        return stored[0] if stored else None
    return book_row(live, current_symbols(lake, [symbol]).get(symbol))


def book_row(book: Book, company: Row | None) -> Row:
    """The row that silver.orderbook would have of this book."""
    bid = book.bids[0] if book.bids else None
    ask = book.asks[0] if book.asks else None
    return {
        "symbol": book.symbol,
        "timestamp": book.timestamp,
        "sequence_number": book.sequence_number,
        "best_bid_price": bid.price if bid else None,
        "best_bid_qty": bid.quantity if bid else None,
        "best_ask_price": ask.price if ask else None,
        "best_ask_qty": ask.quantity if ask else None,
        "bid_depth": _depth(book.bids),
        "ask_depth": _depth(book.asks),
        "spread": ask.price - bid.price if bid and ask else None,
        "mid_price": (ask.price + bid.price) / 2 if bid and ask else None,
        "bids": [_level(level) for level in book.bids],
        "asks": [_level(level) for level in book.asks],
        "company_name": company["company_name"] if company else None,
        "sector": company["sector"] if company else None,
    }


def _depth(levels: list[Level]) -> Decimal:
    return sum((level.quantity for level in levels), Decimal(0))


def _level(level: Level) -> dict[str, Any]:
    return {"price": level.price, "quantity": level.quantity, "order_count": level.order_count}
