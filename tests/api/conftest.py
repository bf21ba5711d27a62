"""A lakehouse of real Iceberg tables with known rows, and the application over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from flask.testing import FlaskClient

from api.app import create_app
from api.live.service import Live
from api.settings import ApiSettings
from lakehouse.catalog import open_catalog
from lakehouse.query import Lake
from lakehouse.settings import LakehouseSettings
from lakehouse.tables import arrow_schema, create_tables

DAY = datetime(2024, 8, 8, tzinfo=UTC)
PROCESSED = datetime(2024, 8, 9, tzinfo=UTC)


def trade_row(number: int, symbol: str, at: datetime, price: str, quantity: str, bought: bool) -> dict[str, Any]:
    known = symbol == "AAPL"
    return {
        "event_id": f"e{number}",
        "timestamp": at,
        "sequence": number,
        "trade_id": f"t{number:04}",
        "symbol": symbol,
        "price": Decimal(price),
        "quantity": Decimal(quantity),
        "buy_order_id": f"b{number}",
        "sell_order_id": f"s{number}",
        "buyer_agent_id": "retail-0001",
        "seller_agent_id": "mm-001",
        "is_aggressive_buy": bought,
        "company_name": "Apple Inc." if known else None,
        "sector": "Technology" if known else None,
        "market_cap_category": "large" if known else None,
        "_processed_at": PROCESSED,
    }


def bar_row(
    symbol: str, minute: int, prices: tuple[str, str, str, str], volume: str, value: str
) -> dict[str, Any]:
    """Prices: open, high, low, close."""
    start = DAY + timedelta(minutes=minute)
    half = Decimal(volume) / 2
    return {
        "symbol": symbol,
        "bar_start": start,
        "trading_date": start.date(),
        "open_price": Decimal(prices[0]),
        "high_price": Decimal(prices[1]),
        "low_price": Decimal(prices[2]),
        "close_price": Decimal(prices[3]),
        "vwap": (Decimal(value) / Decimal(volume)).quantize(Decimal("1e-8")),
        "total_volume": Decimal(volume),
        "total_value": Decimal(value),
        "trade_count": 2,
        "buy_volume": half,
        "sell_volume": half,
        "_aggregated_at": PROCESSED,
    }


def day_row(symbol: str, day: int, open_price: str, close_price: str) -> dict[str, Any]:
    first, last = Decimal(open_price), Decimal(close_price)
    return {
        "symbol": symbol,
        "trading_date": (DAY + timedelta(days=day)).date(),
        "open_price": first,
        "high_price": max(first, last) + 1,
        "low_price": min(first, last) - 1,
        "close_price": last,
        "vwap": (first + last) / 2,
        "total_volume": Decimal(10),
        "total_value": 10 * last,
        "trade_count": 5,
        "buy_volume": Decimal(6),
        "sell_volume": Decimal(4),
        "price_change_pct": float((last - first) * 100 / first),
        "volatility": None,
        "company_name": "Apple Inc." if symbol == "AAPL" else None,
        "sector": "Technology" if symbol == "AAPL" else None,
        "_aggregated_at": PROCESSED,
    }


def symbol_row(key: int, symbol: str, company: str, sector: str, current: bool = True) -> dict[str, Any]:
    return {
        "symbol_key": key,
        "symbol": symbol,
        "company_name": company,
        "sector": sector,
        "market_cap_category": "large",
        "valid_from": DAY - timedelta(days=365 - key),
        "valid_to": None if current else DAY,
        "is_current": current,
        "row_hash": "0" * 64,
    }


def book_row(symbol: str, at: datetime, bid: str, ask: str) -> dict[str, Any]:
    return {
        "event_id": f"book-{symbol}-{at.isoformat()}",
        "timestamp": at,
        "sequence": 1,
        "symbol": symbol,
        "sequence_number": 7,
        "best_bid_price": Decimal(bid),
        "best_bid_qty": Decimal(3),
        "best_ask_price": Decimal(ask),
        "best_ask_qty": Decimal(4),
        "spread": Decimal(ask) - Decimal(bid),
        "mid_price": (Decimal(ask) + Decimal(bid)) / 2,
        "bid_depth": Decimal(3),
        "ask_depth": Decimal(4),
        "bid_levels": 1,
        "ask_levels": 1,
        "bids": [{"price": Decimal(bid), "quantity": Decimal(3), "order_count": 2}],
        "asks": [{"price": Decimal(ask), "quantity": Decimal(4), "order_count": 1}],
        "company_name": "Apple Inc.",
        "sector": "Technology",
        "_processed_at": PROCESSED,
    }


def market_row(day: int) -> dict[str, Any]:
    return {
        "trading_date": (DAY + timedelta(days=day)).date(),
        "total_trades": 15,
        "total_volume": Decimal(30),
        "total_value": Decimal(3000),
        "unique_symbols": 3,
        "active_traders": 7,
        "advancing": 1,
        "declining": 1,
        "unchanged": 1,
        "avg_spread_bps": 1.5,
        "volatility_index": 0.25,
        "_aggregated_at": PROCESSED,
    }


TRADES = [
    *(trade_row(n, "AAPL", DAY + timedelta(seconds=n), f"{185 + n}.10", "10", n % 2 == 0) for n in range(10)),
    # Two trades of one instant, and a market that trades fractions.
    trade_row(10, "BTCUSDT", DAY + timedelta(seconds=9), "61800.20", "0.006", True),
    trade_row(11, "BTCUSDT", DAY + timedelta(days=1), "61800.30", "0.00000001", False),
]
BARS = [
    bar_row("AAPL", 0, ("10", "12", "9", "11"), "3", "31"),
    bar_row("AAPL", 1, ("11", "15", "11", "14"), "7", "94"),
    bar_row("AAPL", 4, ("14", "14", "8", "9"), "1", "9"),
    bar_row("AAPL", 5, ("9", "10", "9", "10"), "2", "19"),
    bar_row("AAPL", 1440, ("20", "20", "20", "20"), "1", "20"),
    bar_row("BTCUSDT", 0, ("61800.20", "61800.20", "61800.10", "61800.10"), "0.012", "741.6018"),
]
DAYS = [
    day_row("AAPL", 0, "100", "110"),
    day_row("AAPL", 1, "110", "121"),
    day_row("TSLA", 1, "200", "150"),
    day_row("BTCUSDT", 1, "61800", "61800"),
]
SYMBOLS = [
    symbol_row(1, "AAPL", "Apple Computer", "Technology", current=False),
    symbol_row(2, "AAPL", "Apple Inc.", "Technology"),
    symbol_row(3, "JPM", "JPMorgan Chase & Co.", "Finance"),
    symbol_row(4, "TSLA", "Tesla Inc.", "Technology"),
]
BOOKS = [
    book_row("AAPL", DAY, "184.10", "184.30"),
    book_row("AAPL", DAY + timedelta(seconds=5), "185.10", "185.30"),
]


@dataclass(frozen=True)
class Served:
    """The application in this process, without a broker."""

    client: FlaskClient
    live: Live
    lake: Lake

    def graphql(self, query: str, variables: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = self.client.post("/graphql", json={"query": query, "variables": variables})
        body = answer.get_json()
        assert isinstance(body, dict)
        return body

    def data(self, query: str, variables: dict[str, Any] | None = None) -> dict[str, Any]:
        body = self.graphql(query, variables)
        assert "errors" not in body, body["errors"]
        data = body["data"]
        assert isinstance(data, dict)
        return data

    def error_code(self, query: str, variables: dict[str, Any] | None = None) -> str:
        body = self.graphql(query, variables)
        return str(body["errors"][0]["extensions"]["code"])


@pytest.fixture(scope="session")
def lakehouse_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data directory with the rows above, read-only by agreement."""
    path = tmp_path_factory.mktemp("lake")
    catalog = open_catalog(LakehouseSettings(data_dir=path))
    create_tables(catalog)
    for name, rows in {
        "silver.trades": TRADES,
        "silver.orderbook": BOOKS,
        "gold.minute_bars": BARS,
        "gold.daily_trading_summary": DAYS,
        "gold.market_overview": [market_row(0), market_row(1)],
        "dimensions.dim_symbol": SYMBOLS,
    }.items():
        catalog.load_table(name).append(pa.Table.from_pylist(rows, schema=arrow_schema(name)))
    return path


@pytest.fixture(scope="session")
def lake(lakehouse_dir: Path) -> Iterator[Lake]:
    lake = Lake(LakehouseSettings(data_dir=lakehouse_dir))
    yield lake
    lake.close()


@pytest.fixture
def serve(lake: Lake) -> Callable[..., Served]:
    """Make an application with some settings changed."""

    def make(**changed: Any) -> Served:
        settings = ApiSettings(**changed)
        live = Live(settings)
        return Served(create_app(settings, lake, live).test_client(), live, lake)

    return make


@pytest.fixture
def served(serve: Callable[..., Served]) -> Served:
    return serve()
