"""The HTTP surface: limits, errors with codes, keys, headers, REST, service routes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from graphql import build_schema, get_introspection_query
from pydantic import ValidationError

from api.live.events import decode
from api.settings import ApiSettings

KEY = "a-key-of-sufficient-length"
PING = {"query": "{ __typename }"}


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("{", "GRAPHQL_PARSE_FAILED"),
        ("", "GRAPHQL_PARSE_FAILED"),
        ("{ nope }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ trades(first: 1.5) { totalCount } }", "GRAPHQL_VALIDATION_FAILED"),
        ("query a { __typename } query b { __typename }", "BAD_USER_INPUT"),
        ("query ($n: Int!) { trades(first: $n) { totalCount } }", "BAD_USER_INPUT"),
        ("{ " + " ".join(f"a{n}: __typename" for n in range(21)) + " }", "QUERY_TOO_COMPLEX"),
        ("{ " + "a " * 3000 + "}", "GRAPHQL_PARSE_FAILED"),
        ("{" * 3000, "GRAPHQL_PARSE_FAILED"),
        ("query { ...A } fragment A on Query { ...B } fragment B on Query { ...A }", "GRAPHQL_VALIDATION_FAILED"),
    ],
)
def test_a_query_that_cannot_run_is_a_400_with_a_code(served: Any, query: str, code: str) -> None:
    answer = served.client.post("/graphql", json={"query": query})
    assert answer.status_code == 400
    assert answer.get_json()["errors"][0]["extensions"]["code"] == code


def test_the_depth_limit_counts_fields_also_through_fragments(serve: Callable[..., Any]) -> None:
    query = (
        "{ trades { ...P } } fragment P on TradeConnection { edges { ...E } }"
        " fragment E on TradeEdge { node { symbolDetails { symbol } } }"
    )
    assert serve(api_query_depth=5).data(query)["trades"]["edges"]
    body = serve(api_query_depth=4).graphql(query)
    assert body["errors"][0]["extensions"]["code"] == "QUERY_TOO_DEEP"
    assert "5 fields deep; at most 4" in body["errors"][0]["message"]


def test_the_standard_introspection_query_is_answered(served: Any) -> None:
    types = served.data(get_introspection_query())["__schema"]["types"]
    assert {"Trade", "MinuteCandle", "DailySummary", "MarketOverview", "OrderBookSnapshot"} <= {
        t["name"] for t in types
    }


def test_the_schema_is_served_as_sdl(served: Any) -> None:
    schema = build_schema(served.client.get("/graphql/schema.graphql").get_data(as_text=True))
    assert schema.query_type is not None
    assert set(schema.query_type.fields) == {
        "trades", "tradeById", "minuteCandles", "dailySummary", "marketOverview", "symbols", "orderBook",
        "dataQuality",
    }  # fmt: skip


def test_a_document_seen_before_is_not_parsed_again(served: Any) -> None:
    from api.metrics import DOCUMENT_CACHE

    hits = DOCUMENT_CACHE.labels("hit")._value.get()
    served.data("{ symbols { totalCount } }")
    assert DOCUMENT_CACHE.labels("hit")._value.get() == hits
    served.data("{ symbols { totalCount } }")
    assert DOCUMENT_CACHE.labels("hit")._value.get() == hits + 1


def test_one_failing_field_leaves_the_others_and_hides_what_went_wrong(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve()

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("api.schema.query.orderbook.order_book", broken)
    body = served.graphql('{ orderBook(symbol: "AAPL") { symbol } symbols { totalCount } }')
    assert body["data"] == {"orderBook": None, "symbols": {"totalCount": 3}}
    (error,) = body["errors"]
    assert (error["extensions"]["code"], error["path"]) == ("INTERNAL", ["orderBook"])
    assert "secret" not in error["message"]


def test_a_request_that_is_out_of_time_starts_no_further_query(serve: Callable[..., Any]) -> None:
    assert serve(api_query_seconds=1e-9).error_code("{ symbols { totalCount } }") == "QUERY_TIMEOUT"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ({"data": "{}", "content_type": "text/plain"}, 415),
        ({"data": "query={__typename}", "content_type": "application/x-www-form-urlencoded"}, 415),
        ({"data": "{", "content_type": "application/json"}, 400),
        ({"data": "\xff".encode("latin-1"), "content_type": "application/json"}, 400),
        ({"json": []}, 400),
        ({"json": [PING, PING]}, 400),
        ({"json": {"query": 1}}, 400),
        ({"json": PING | {"variables": "x"}}, 400),
        ({"json": PING | {"operationName": 1}}, 400),
        ({"json": PING | {"padding": "x" * 70_000}}, 413),
    ],
)
def test_a_body_that_is_no_graphql_request_is_refused(served: Any, arguments: dict[str, Any], status: int) -> None:
    answer = served.client.post("/graphql", **arguments)
    assert answer.status_code == status
    assert answer.get_json()["errors"][0]["extensions"]["code"]


def test_get_on_graphql_is_told_to_post(served: Any) -> None:
    answer = served.client.get("/graphql?query={__typename}")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "OPTIONS, POST")


def test_keys_are_asked_for_and_compared(serve: Callable[..., Any]) -> None:
    client = serve(api_keys=f"another-key-0123456789,{KEY}").client
    assert client.post("/graphql", json=PING).status_code == 401
    assert client.post("/graphql", json=PING, headers={"X-API-Key": "wrong"}).status_code == 401
    assert client.post("/graphql", json=PING, headers={"X-API-Key": KEY + "x"}).status_code == 401
    assert client.post("/graphql", json=PING, headers={"X-API-Key": KEY}).status_code == 200
    assert client.post("/graphql", json=PING, headers={"Authorization": f"Bearer {KEY}"}).status_code == 200


@pytest.mark.parametrize(
    "path", ["/metrics", "/api/v1/live", "/api/v1/ohlcv?symbol=A", "/api/v1/market", "/nowhere"]
)
def test_everything_with_data_needs_the_key(serve: Callable[..., Any], path: str) -> None:
    assert serve(api_keys=KEY).client.get(path).status_code == 401


@pytest.mark.parametrize("path", ["/", "/web/app.js", "/health"])
def test_the_page_and_the_health_need_none(serve: Callable[..., Any], path: str) -> None:
    assert serve(api_keys=KEY).client.get(path).status_code in (200, 503)


def test_an_open_address_without_keys_does_not_start() -> None:
    with pytest.raises(ValidationError, match="TICKHOUSE_API_KEYS is empty"):
        ApiSettings(api_host="0.0.0.0")  # noqa: S104
    with pytest.raises(ValidationError, match="fewer than 16"):
        ApiSettings(api_keys=("short",))
    assert ApiSettings(api_host="0.0.0.0", api_keys=(KEY,)).api_host == "0.0.0.0"  # noqa: S104


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", ""])
def test_a_foreign_host_name_is_refused_on_loopback(served: Any, host: str) -> None:
    answer = served.client.get("/health", headers={"Host": host})
    assert answer.status_code == 403


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:9", "[::1]:8000", "box.lan"])
def test_loopback_names_and_allowed_hosts_are_answered(serve: Callable[..., Any], host: str) -> None:
    assert serve(api_allowed_hosts="box.lan").client.get("/", headers={"Host": host}).status_code == 200


def test_every_answer_carries_the_security_headers(served: Any) -> None:
    for path in ("/", "/health", "/nowhere", "/api/v1/ohlcv"):
        headers = served.client.get(path).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_candles_are_flat_json_with_exact_numbers(served: Any) -> None:
    answer = served.client.get("/api/v1/ohlcv?symbol=BTCUSDT&interval=1m")
    assert answer.get_data(as_text=True) == (
        '[{"symbol":"BTCUSDT","time":"2024-08-08T00:00:00Z","epoch_seconds":1723075200,"open":61800.20000000,'
        '"high":61800.20000000,"low":61800.10000000,"close":61800.10000000,"volume":0.01200000,"value":741.60180000,'
        '"vwap":61800.15000000,"trade_count":2,"buy_volume":0.00600000,"sell_volume":0.00600000}]'
    )


def test_candles_are_the_newest_within_the_range(served: Any) -> None:
    def starts(query: str) -> list[str]:
        rows = served.client.get(f"/api/v1/ohlcv?symbol=AAPL&{query}").get_json()
        return [row["time"][8:16] for row in rows]

    assert starts("limit=2") == ["08T00:05", "09T00:00"]
    assert starts("from=2024-08-08T00:01:00Z&to=2024-08-08T00:04:00Z") == ["08T00:01", "08T00:04"]
    assert starts("to=2024-08-08&interval=5m") == ["08T00:00", "08T00:05"]


@pytest.mark.parametrize(
    "query",
    ["", "symbol=A&interval=7m", "symbol=A&limit=0", "symbol=A&limit=1501", "symbol=A&limit=x", "symbol=A&from=x"],
)
def test_a_wrong_candle_request_says_what_is_wrong(served: Any, query: str) -> None:
    answer = served.client.get(f"/api/v1/ohlcv?{query}")
    assert answer.status_code == 400
    assert answer.get_json()["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"


def test_a_fresher_live_book_comes_before_the_stored_one(served: Any) -> None:
    frame = (
        b'{"event_type":"OrderBookSnapshot","data":{"symbol":"AAPL","timestamp":"2024-08-08T00:00:%s.000000Z",'
        b'"bids":[{"price":190.01,"quantity":5,"order_count":2},{"price":190.00,"quantity":7,"order_count":1}],"asks":'
        b"[]}}"
    )
    fields = "bestBidPrice bidDepth bestAskPrice spread midPrice asks { price } sector"
    query = f'{{ orderBook(symbol: "AAPL") {{ {fields} }} }}'
    for second, price in ((b"04", 185.1), (b"06", 190.01)):
        event = decode("raw.orderbook-snapshots", frame % second)
        assert event is not None
        served.live.hub.publish([event])
        assert served.data(query)["orderBook"]["bestBidPrice"] == price
    assert served.data(query)["orderBook"] == {
        "bestBidPrice": 190.01,
        "bidDepth": 12.0,
        "bestAskPrice": None,
        "spread": None,
        "midPrice": None,
        "asks": [],
        "sector": "Technology",
    }


def test_the_market_lists_what_was_seen_live_with_the_days_open(served: Any) -> None:
    body = (
        b'{"trade_id":"t","symbol":"AAPL","timestamp":"2024-08-09T10:00:00Z","price":123.40,"quantity":1,'
        b'"is_aggressive_buy":true}'
    )
    event = decode("processed.trades", body)
    assert event is not None
    served.live.hub.publish([event])
    assert served.client.get("/api/v1/market").get_json() == [
        {
            "symbol": "AAPL",
            "last_price": 123.4,
            "best_bid": None,
            "best_ask": None,
            "event_us": 1723197600000000,
            "day_open": 110.0,
        }
    ]


def test_health_says_what_is_not_ready(served: Any) -> None:
    answer = served.client.get("/health")
    assert answer.status_code == 503
    body = answer.get_json()
    assert body["checks"]["lakehouse"]["ready"] is True
    assert body["checks"]["live"] == {"ready": False, "detail": "waiting for Kafka at 127.0.0.1:9092"}


def test_metrics_have_the_agreed_names(served: Any) -> None:
    served.data("{ symbols { totalCount } }")
    text = served.client.get("/metrics").get_data(as_text=True)
    for name in (
        "tickhouse_service_ready 0.0",
        "tickhouse_service_last_event_timestamp_seconds",
        'graphql_requests_total{operation_type="query",status="success"}',
        'graphql_request_duration_seconds_bucket{le="0.001",operation_type="query"}',
        "graphql_active_requests 0.0",
        "tickhouse_api_live_clients 0.0",
        'tickhouse_api_live_latency_seconds_bucket{le="60.0"}',
    ):
        assert name in text


def test_the_page_fetches_nothing_from_outside(served: Any) -> None:
    names = ["index.html", "app.js", "server.js", "candles.js", "panels.js", "format.js", "theme.js", "style.css"]
    for name in names:
        text = served.client.get(f"/web/{name}").get_data(as_text=True)
        addresses = {word for word in text.replace('"', " ").split() if "://" in word}
        assert addresses <= {"https://www.tradingview.com/"}, name
        assert "innerHTML" not in text
    assert served.client.get("/web/vendor/lightweight-charts.LICENSE").status_code == 200


@pytest.mark.parametrize("path", ["/web/../settings.py", "/web/%2e%2e/settings.py", "/web//etc/passwd"])
def test_files_outside_the_page_are_not_served(served: Any, path: str) -> None:
    assert served.client.get(path).status_code in (308, 404)


@pytest.mark.parametrize("query", ["kinds=orders", "symbol=" + ",".join(str(n) for n in range(101))])
def test_a_wrong_stream_request_is_refused(served: Any, query: str) -> None:
    assert served.client.get(f"/api/v1/live?{query}").status_code == 400


def test_streams_over_the_limit_are_refused_and_a_closed_one_makes_room(serve: Callable[..., Any]) -> None:
    client = serve(api_live_streams=1).client
    first = client.get("/api/v1/live", buffered=False)
    assert first.status_code == 200
    assert client.get("/api/v1/live").status_code == 503
    first.close()
    last = client.get("/api/v1/live", buffered=False)
    assert last.status_code == 200
    last.close()
