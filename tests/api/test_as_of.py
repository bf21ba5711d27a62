"""``asOf``: a query shows what was known at a moment, whatever came later."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog

from api.app import create_app
from api.live.service import Live
from api.settings import ApiSettings
from lakehouse.catalog import open_catalog
from lakehouse.query import Lake
from lakehouse.settings import LakehouseSettings
from lakehouse.snapshots import EPOCH
from lakehouse.tables import arrow_schema, create_tables
from tests.api.conftest import DAY, Served, bar_row, book_row, day_row, market_row, symbol_row, trade_row

CHANGING = ("silver.trades", "silver.orderbook", "gold.minute_bars", "gold.daily_trading_summary",
            "gold.market_overview", "dimensions.dim_symbol")  # fmt: skip


@dataclass(frozen=True)
class Corrected:
    """An application over tables that were committed twice, and the moment between."""

    served: Served
    catalog: Catalog
    between: str

    def both(self, field: str, selection: str, arguments: str = "", as_of: str | None = None) -> tuple[Any, Any]:
        """The field's answer now, and as of the first commit."""
        now, then = f"({arguments})" if arguments else "", f'({arguments} asOf: "{as_of or self.between}")'
        data = self.served.data(f"{{ now: {field}{now} {selection} then: {field}{then} {selection} }}")
        return data["now"], data["then"]

    def first_snapshot(self, table: str) -> str:
        return str(self.catalog.load_table(table).history()[0].snapshot_id)


def commit(catalog: Catalog, name: str, *rows: dict[str, Any]) -> None:
    catalog.load_table(name).overwrite(pa.Table.from_pylist(list(rows), schema=arrow_schema(name)))


@pytest.fixture(scope="module")
def corrected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corrected]:
    settings = LakehouseSettings(data_dir=tmp_path_factory.mktemp("as-of"), query_refresh_seconds=0)
    catalog = open_catalog(settings)
    create_tables(catalog)
    early = trade_row(1, "AAPL", DAY, "185.10", "10", True)
    commit(catalog, "silver.trades", early)
    commit(catalog, "silver.orderbook", book_row("AAPL", DAY, "184.10", "184.30"))
    commit(catalog, "gold.minute_bars", bar_row("AAPL", 0, ("10", "12", "9", "11"), "3", "31"))
    commit(catalog, "gold.daily_trading_summary", day_row("AAPL", 0, "100", "110"))
    commit(catalog, "gold.market_overview", market_row(0))
    commit(catalog, "dimensions.dim_symbol", symbol_row(1, "AAPL", "Apple Computer", "Technology"))
    last = max(catalog.load_table(name).history()[-1].timestamp_ms for name in CHANGING)
    between = EPOCH + timedelta(milliseconds=last)
    commit(catalog, "silver.trades", early, trade_row(2, "AAPL", DAY, "186.10", "5", True))
    commit(catalog, "silver.orderbook", book_row("AAPL", DAY + timedelta(seconds=1), "185.10", "185.30"))
    commit(catalog, "gold.minute_bars", bar_row("AAPL", 0, ("10", "15", "9", "14"), "7", "80"))
    commit(catalog, "gold.daily_trading_summary", day_row("AAPL", 0, "100", "120"))
    commit(catalog, "gold.market_overview", market_row(0) | {"total_trades": 16})
    commit(catalog, "dimensions.dim_symbol", symbol_row(1, "AAPL", "Apple Inc.", "Technology"))
    lake = Lake(settings, catalog)
    live = Live(ApiSettings())
    yield Corrected(
        Served(create_app(ApiSettings(), lake, live).test_client(), live, lake), catalog, _text(between)
    )
    lake.close()


def _text(moment: datetime) -> str:
    return moment.isoformat()


def test_trades_that_came_later_are_not_there_yet(corrected: Corrected) -> None:
    now, then = corrected.both("trades", "{ totalCount edges { node { tradeId } } }")
    assert (now["totalCount"], then["totalCount"]) == (2, 1)
    assert then["edges"] == [{"node": {"tradeId": "t0001"}}]
    now, then = corrected.both("tradeById", "{ tradeId symbolDetails { companyName } }", 'id: "t0002"')
    assert (now["tradeId"], then) == ("t0002", None)


def test_bars_and_days_show_the_values_before_the_correction(corrected: Corrected) -> None:
    now, then = corrected.both("minuteCandles", "{ edges { node { closePrice } } }", 'symbol: "AAPL"')
    assert [page["edges"][0]["node"]["closePrice"] for page in (now, then)] == [14.0, 11.0]
    now, then = corrected.both("dailySummary", "{ edges { node { closePrice } } }", 'symbol: "AAPL"')
    assert [page["edges"][0]["node"]["closePrice"] for page in (now, then)] == [120.0, 110.0]


@pytest.mark.parametrize("by_snapshot", [False, True])
def test_the_overview_and_the_lists_in_it_are_of_the_same_moment(corrected: Corrected, by_snapshot: bool) -> None:
    # A snapshot of the overview shows the daily summaries as of its commit, which came after theirs.
    as_of = corrected.first_snapshot("gold.market_overview") if by_snapshot else None
    now, then = corrected.both("marketOverview", "{ totalTrades topGainers { closePrice } }", as_of=as_of)
    assert now == {"totalTrades": 16, "topGainers": [{"closePrice": 120.0}]}
    assert then == {"totalTrades": 15, "topGainers": [{"closePrice": 110.0}]}


def test_books_and_symbols_are_those_of_then(corrected: Corrected) -> None:
    now, then = corrected.both("orderBook", "{ bestBidPrice }", 'symbol: "AAPL"')
    assert (now["bestBidPrice"], then["bestBidPrice"]) == (185.1, 184.1)
    now, then = corrected.both("symbols", "{ edges { node { companyName } } }")
    assert [page["edges"][0]["node"]["companyName"] for page in (now, then)] == ["Apple Inc.", "Apple Computer"]


def test_a_snapshot_is_named_by_its_id(corrected: Corrected) -> None:
    snapshot = corrected.first_snapshot("silver.trades")
    _, then = corrected.both("trades", "{ totalCount }", as_of=snapshot)
    assert then == {"totalCount": 1}
    variable = "query($t: AsOf) { trades(asOf: $t) { totalCount } }"
    assert corrected.served.data(variable, {"t": snapshot})["trades"] == {"totalCount": 1}
    assert corrected.served.data(variable, {"t": None})["trades"] == {"totalCount": 2}


def test_before_the_first_commit_there_was_nothing(corrected: Corrected) -> None:
    _, then = corrected.both("trades", "{ totalCount }", as_of="2001-01-01")
    assert then == {"totalCount": 0}


@pytest.mark.parametrize(
    ("as_of", "said"), [("12345678", "12345678 is no snapshot of silver.trades"), ("lately", "no snapshot's id")]
)
def test_a_moment_that_is_none_is_the_clients_error(corrected: Corrected, as_of: str, said: str) -> None:
    body = corrected.served.graphql(f'{{ trades(asOf: "{as_of}") {{ totalCount }} }}')
    assert said in body["errors"][0]["message"]
    code = body["errors"][0]["extensions"]["code"]
    assert code in ("BAD_USER_INPUT", "GRAPHQL_VALIDATION_FAILED")
