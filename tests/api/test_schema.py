"""Every query against real Iceberg tables: values, filters, pages."""

from __future__ import annotations

from typing import Any

import pytest

ALL_TRADES = "query($f: TradeFilterInput, $n: Int!, $a: String) {\
 trades(filter: $f, first: $n, after: $a) {\
 edges { cursor node { tradeId symbol price quantity timestamp } }\
 pageInfo { hasNextPage hasPreviousPage startCursor endCursor } totalCount } }"


def ids(data: dict[str, Any]) -> list[str]:
    return [edge["node"]["tradeId"] for edge in data["trades"]["edges"]]


def test_a_trade_has_every_field(served: Any) -> None:
    trade = served.data(
        '{ tradeById(id: "t0003") { tradeId symbol price quantity buyOrderId sellOrderId buyerAgentId'
        " sellerAgentId isAggressiveBuy timestamp companyName sector symbolDetails { symbol companyName sector"
        " marketCapCategory isCurrent } } }"
    )["tradeById"]
    assert trade == {
        "tradeId": "t0003",
        "symbol": "AAPL",
        "price": 188.1,
        "quantity": 10.0,
        "buyOrderId": "b3",
        "sellOrderId": "s3",
        "buyerAgentId": "retail-0001",
        "sellerAgentId": "mm-001",
        "isAggressiveBuy": False,
        "timestamp": "2024-08-08T00:00:03+00:00",
        "companyName": "Apple Inc.",
        "sector": "Technology",
        "symbolDetails": {
            "symbol": "AAPL",
            "companyName": "Apple Inc.",
            "sector": "Technology",
            "marketCapCategory": "large",
            "isCurrent": True,
        },
    }


def test_a_trade_that_does_not_exist_is_null(served: Any) -> None:
    assert served.data('{ tradeById(id: "nope") { price } }') == {"tradeById": None}


def test_symbol_details_come_through_fragments_and_are_null_for_an_unknown_symbol(served: Any) -> None:
    data = served.data(
        "query { trades(first: 3) { ...Page } } fragment Page on TradeConnection { edges { node { ... on Trade {"
        " symbol symbolDetails { companyName } } } } }"
    )
    nodes = [edge["node"] for edge in data["trades"]["edges"]]
    assert [node["symbol"] for node in nodes] == ["BTCUSDT", "BTCUSDT", "AAPL"]
    assert [node["symbolDetails"] for node in nodes] == [None, None, {"companyName": "Apple Inc."}]


def test_trades_come_newest_first_and_pages_neither_repeat_nor_skip(served: Any) -> None:
    seen: list[str] = []
    after, pages = None, 0
    while True:
        page = served.data(ALL_TRADES, {"n": 5, "a": after})["trades"]
        assert page["totalCount"] == 12
        assert page["pageInfo"]["hasPreviousPage"] is (pages > 0)
        assert page["pageInfo"]["startCursor"] == page["edges"][0]["cursor"]
        seen += [edge["node"]["tradeId"] for edge in page["edges"]]
        pages += 1
        if not page["pageInfo"]["hasNextPage"]:
            break
        after = page["pageInfo"]["endCursor"]
    # t0010 and t0009 are of the same instant.
    assert seen == ["t0011", "t0010", *(f"t{n:04}" for n in range(9, -1, -1))]
    assert pages == 3


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"symbol": "BTCUSDT"}, ["t0011", "t0010"]),
        ({"symbols": ["BTCUSDT", "NONE"]}, ["t0011", "t0010"]),
        ({"symbols": []}, []),
        ({"symbol": "AAPL", "isAggressiveBuy": True}, ["t0008", "t0006", "t0004", "t0002", "t0000"]),
        ({"minPrice": 193.1, "maxPrice": 194.1}, ["t0009", "t0008"]),
        ({"maxQuantity": 0.006}, ["t0011", "t0010"]),
        ({"minQuantity": 0.006, "maxQuantity": 0.006}, ["t0010"]),
        ({"dateRange": {"start": "2024-08-09"}}, ["t0011"]),
        ({"symbol": "BTCUSDT", "dateRange": {"start": "2024-08-08", "end": "2024-08-08"}}, ["t0010"]),
        ({"dateRange": {"start": "2024-08-08T00:00:07Z", "end": "2024-08-08T02:00:08+02:00"}}, ["t0008", "t0007"]),
        ({"symbol": "' or 1=1 --"}, []),
    ],
)
def test_trades_pass_every_filter(served: Any, wanted: dict[str, Any], found: list[str]) -> None:
    data = served.data(ALL_TRADES, {"f": wanted, "n": 20})
    assert ids(data) == found
    assert data["trades"]["totalCount"] == len(found)


def test_quantities_below_one_share_stay_exact(served: Any) -> None:
    data = served.data(ALL_TRADES, {"f": {"symbol": "BTCUSDT"}, "n": 2})
    assert [edge["node"]["quantity"] for edge in data["trades"]["edges"]] == [1e-08, 0.006]


@pytest.mark.parametrize("first", [0, -1, 1001, 100000])
def test_a_page_size_out_of_range_is_refused(served: Any, first: int) -> None:
    body = served.graphql(ALL_TRADES, {"n": first})
    assert body["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
    assert "1 to 1000" in body["errors"][0]["message"]


@pytest.mark.parametrize(
    "cursor", ["x", "", "W10=", "WzEsMl0=", "eyJhIjoxfQ==", "[" * 400, "WzFlMzAsICJhIl0=", "é"]
)
def test_a_cursor_from_elsewhere_is_refused(served: Any, cursor: str) -> None:
    assert served.error_code(ALL_TRADES, {"n": 5, "a": cursor}) == "BAD_CURSOR"


CANDLES = "query($s: String!, $r: DateRangeInput, $i: String!, $n: Int!, $a: String) {\
 minuteCandles(symbol: $s, dateRange: $r, interval: $i, first: $n, after: $a) { totalCount\
 edges { node { timestamp openPrice highPrice lowPrice closePrice totalVolume totalValue tradeCount vwap\
 priceChange priceChangePct } } pageInfo { hasNextPage endCursor } } }"


def candles(served: Any, interval: str, within: dict[str, str] | None = None) -> list[dict[str, Any]]:
    data = served.data(CANDLES, {"s": "AAPL", "i": interval, "r": within, "n": 100})["minuteCandles"]
    nodes = [edge["node"] for edge in data["edges"]]
    assert data["totalCount"] == len(nodes)
    return nodes


def test_five_minute_candles_are_made_of_their_minutes(served: Any) -> None:
    first, second, _ = candles(served, "5m")
    assert first == {
        "timestamp": "2024-08-08T00:00:00+00:00",
        "openPrice": 10.0,
        "highPrice": 15.0,
        "lowPrice": 8.0,
        "closePrice": 9.0,
        "totalVolume": 11.0,
        "totalValue": 134.0,
        "tradeCount": 6,
        "vwap": 12.18181818,
        "priceChange": -1.0,
        "priceChangePct": -10.0,
    }
    assert second["timestamp"] == "2024-08-08T00:05:00+00:00"


@pytest.mark.parametrize(
    ("interval", "starts"),
    [
        ("1m", ["08T00:00", "08T00:01", "08T00:04", "08T00:05", "09T00:00"]),
        ("15m", ["08T00:00", "09T00:00"]),
        ("30m", ["08T00:00", "09T00:00"]),
        ("1h", ["08T00:00", "09T00:00"]),
        ("4h", ["08T00:00", "09T00:00"]),
        ("1d", ["08T00:00", "09T00:00"]),
        ("1w", ["05T00:00"]),
    ],
)
def test_candles_start_at_multiples_of_the_interval_and_weeks_on_monday(
    served: Any, interval: str, starts: list[str]
) -> None:
    assert [node["timestamp"] for node in candles(served, interval)] == [f"2024-08-{at}:00+00:00" for at in starts]


def test_a_range_never_yields_a_candle_of_only_some_of_its_minutes(served: Any) -> None:
    within = {"start": "2024-08-08T00:01:00Z", "end": "2024-08-08T00:05:00Z"}
    (only,) = candles(served, "5m", within)
    assert (only["timestamp"], only["totalVolume"]) == ("2024-08-08T00:05:00+00:00", 2.0)
    (whole,) = candles(served, "5m", {"end": "2024-08-08T00:01:00Z"})
    assert whole["totalVolume"] == 11.0


def test_candles_page_forward(served: Any) -> None:
    page = served.data(CANDLES, {"s": "AAPL", "i": "1m", "n": 3})["minuteCandles"]
    assert page["pageInfo"]["hasNextPage"] is True
    rest = served.data(CANDLES, {"s": "AAPL", "i": "1m", "n": 3, "a": page["pageInfo"]["endCursor"]})[
        "minuteCandles"
    ]
    starts = [edge["node"]["timestamp"][8:16] for edge in page["edges"] + rest["edges"]]
    assert starts == ["08T00:00", "08T00:01", "08T00:04", "08T00:05", "09T00:00"]
    assert rest["pageInfo"]["hasNextPage"] is False
    assert rest["totalCount"] == 5


def test_an_unknown_interval_is_refused(served: Any) -> None:
    assert (
        served.error_code('{ minuteCandles(symbol: "AAPL", interval: "2m") { totalCount } }') == "BAD_USER_INPUT"
    )


def test_a_range_that_ends_before_it_starts_is_refused(served: Any) -> None:
    query = '{ dailySummary(symbol: "A", dateRange: {start: "2024-08-09", end: "2024-08-08"}) { totalCount } }'
    assert served.error_code(query) == "BAD_USER_INPUT"


@pytest.mark.parametrize("text", ["yesterday", "2024-13-01", "2024-08-08T25:00:00Z", ""])
def test_a_text_that_is_no_date_is_refused(served: Any, text: str) -> None:
    body = served.graphql(f'{{ dailySummary(symbol: "A", dateRange: {{start: "{text}"}}) {{ totalCount }} }}')
    assert "neither a date" in body["errors"][0]["message"]


def test_daily_summaries_come_newest_first(served: Any) -> None:
    query = 'query($a: String) { dailySummary(symbol: "AAPL", first: 1, after: $a) { totalCount edges { node {\
 tradingDate openPrice closePrice highPrice lowPrice vwap totalVolume tradeCount totalValue companyName sector\
 priceRange priceChange priceChangePct } } pageInfo { hasNextPage endCursor } } }'
    page = served.data(query)["dailySummary"]
    assert page["totalCount"] == 2
    assert page["edges"][0]["node"] == {
        "tradingDate": "2024-08-09",
        "openPrice": 110.0,
        "closePrice": 121.0,
        "highPrice": 122.0,
        "lowPrice": 109.0,
        "vwap": 115.5,
        "totalVolume": 10.0,
        "tradeCount": 5,
        "totalValue": 1210.0,
        "companyName": "Apple Inc.",
        "sector": "Technology",
        "priceRange": 13.0,
        "priceChange": 11.0,
        "priceChangePct": 10.0,
    }
    rest = served.data(query, {"a": page["pageInfo"]["endCursor"]})["dailySummary"]
    assert [edge["node"]["tradingDate"] for edge in rest["edges"]] == ["2024-08-08"]
    assert rest["pageInfo"]["hasNextPage"] is False


def test_daily_summaries_of_a_range(served: Any) -> None:
    query = '{ dailySummary(symbol: "AAPL", dateRange: {end: "2024-08-08"}) { edges { node { tradingDate } } } }'
    assert served.data(query)["dailySummary"]["edges"] == [{"node": {"tradingDate": "2024-08-08"}}]


def test_the_market_overview_is_of_the_newest_day_unless_asked_otherwise(served: Any) -> None:
    fields = "{ tradingDate totalTrades totalVolume totalValue uniqueSymbols activeTraders advancing\
 declining unchanged avgSpreadBps volatilityIndex\
 topGainers { symbol priceChangePct } topLosers { symbol } mostActive { symbol } }"
    newest = served.data(f"{{ marketOverview {fields} }}")["marketOverview"]
    assert newest == {
        "tradingDate": "2024-08-09",
        "totalTrades": 15,
        "totalVolume": 30.0,
        "totalValue": 3000.0,
        "uniqueSymbols": 3,
        "activeTraders": 7,
        "advancing": 1,
        "declining": 1,
        "unchanged": 1,
        "avgSpreadBps": 1.5,
        "volatilityIndex": 0.25,
        "topGainers": [{"symbol": "AAPL", "priceChangePct": 10.0}],
        "topLosers": [{"symbol": "TSLA"}],
        "mostActive": [{"symbol": "BTCUSDT"}, {"symbol": "TSLA"}, {"symbol": "AAPL"}],
    }
    earlier = served.data(f'{{ marketOverview(targetDate: "2024-08-08") {fields} }}')["marketOverview"]
    assert (earlier["tradingDate"], earlier["topLosers"]) == ("2024-08-08", [])
    assert served.data('{ marketOverview(targetDate: "2020-01-01") { totalTrades } }') == {"marketOverview": None}


SYMBOLS = (
    "query($f: SymbolFilterInput) { symbols(filter: $f) { totalCount edges { node { symbol companyName } } } }"
)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (None, ["Apple Inc.", "JPMorgan Chase & Co.", "Tesla Inc."]),
        ({"isCurrent": False}, ["Apple Computer"]),
        ({"isCurrent": None}, ["Apple Computer", "Apple Inc.", "JPMorgan Chase & Co.", "Tesla Inc."]),
        ({"sector": "Finance"}, ["JPMorgan Chase & Co."]),
        ({"marketCapCategory": "small"}, []),
        ({"search": "aPPle"}, ["Apple Inc."]),
        ({"search": "tsl"}, ["Tesla Inc."]),
        ({"search": "%"}, []),
    ],
)
def test_symbols_pass_every_filter(served: Any, wanted: dict[str, Any] | None, found: list[str]) -> None:
    page = served.data(SYMBOLS, {"f": wanted})["symbols"]
    assert [edge["node"]["companyName"] for edge in page["edges"]] == found
    assert page["totalCount"] == len(found)


def test_symbols_page_by_name(served: Any) -> None:
    query = (
        "query($a: String) { symbols(first: 2, after: $a) { edges { node { symbol } } pageInfo { endCursor } } }"
    )
    page = served.data(query)["symbols"]
    rest = served.data(query, {"a": page["pageInfo"]["endCursor"]})["symbols"]
    assert [edge["node"]["symbol"] for edge in page["edges"] + rest["edges"]] == ["AAPL", "JPM", "TSLA"]


def test_the_order_book_is_the_newest_stored_one(served: Any) -> None:
    query = (
        '{ orderBook(symbol: "AAPL") { symbol timestamp bestBidPrice bestBidQty bestAskPrice bestAskQty bidDepth\
 askDepth spread midPrice companyName sector bids { price quantity orderCount } asks { price } } }'
    )
    assert served.data(query)["orderBook"] == {
        "symbol": "AAPL",
        "timestamp": "2024-08-08T00:00:05+00:00",
        "bestBidPrice": 185.1,
        "bestBidQty": 3.0,
        "bestAskPrice": 185.3,
        "bestAskQty": 4.0,
        "bidDepth": 3.0,
        "askDepth": 4.0,
        "spread": 0.2,
        "midPrice": 185.2,
        "companyName": "Apple Inc.",
        "sector": "Technology",
        "bids": [{"price": 185.1, "quantity": 3.0, "orderCount": 2}],
        "asks": [{"price": 185.3}],
    }
    assert served.data('{ orderBook(symbol: "NONE") { symbol } }') == {"orderBook": None}
