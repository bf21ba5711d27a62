"""simulator.continuation: the last prices of the newest simulated session in a journal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simulator.continuation import last_prices
from simulator.exchange import Exchange
from simulator.journal import Journal
from simulator.market import load_market

START_US = 1_767_623_400_000_000


def market(start_us: int = START_US, seed: int = 1, seconds: int = 3) -> Exchange:
    return Exchange(load_market(), seed=seed, start_us=start_us, duration_us=seconds * 1_000_000)


def journal(root: Path, *exchanges: Exchange, segment_bytes: int = 4 << 20) -> dict[str, int]:
    """Journal these sessions; the last prices of the last one, read by JSON."""
    kept = Journal(root, max_bytes=1 << 30, segment_bytes=segment_bytes)
    prices: dict[str, int] = {}
    for exchange in exchanges:
        kept.open_session(exchange)
        block: list[bytes] = []
        for _, frame in exchange.events():
            block.append(frame)
            if len(block) == 100:
                kept.append(block)
                block.clear()
            event = json.loads(frame)
            price = {"MarketStats": "close", "TradeExecuted": "price"}.get(event["event_type"])
            if price:
                prices[event["data"]["symbol"]] = round(event["data"][price] * 100)
        kept.append(block)
    kept.close()
    return prices


def test_the_last_price_of_every_symbol_is_found(tmp_path: Path) -> None:
    prices = journal(tmp_path, market())
    assert last_prices(tmp_path) == prices
    assert len(prices) == 24
    assert prices != {symbol.ticker: symbol.initial_ticks for symbol in load_market().symbols}


def test_only_the_end_of_a_long_session_is_read(tmp_path: Path) -> None:
    prices = journal(tmp_path, market(seconds=8), segment_bytes=300_000)
    segments = sorted(next(tmp_path.glob("tickhouse-*")).glob("*.jsonl"))
    assert len(segments) > 3
    segments[0].unlink()
    segments[0].mkdir()  # would fail if it were opened
    assert last_prices(tmp_path) == prices


def test_the_newest_session_of_the_simulated_market_counts(tmp_path: Path) -> None:
    class Other:
        exchange, symbols, session_id = "BINANCE-USDM", ("BTCUSDT",), "replay-1"

        def events(self):  # type: ignore[no-untyped-def]
            yield START_US, b'{"event_type":"TradeExecuted","data":{"symbol":"AAPL","price":1.00}}'

    class Empty(Other):
        exchange, session_id = "TICKHOUSE", "tickhouse-9-9"

        def events(self):  # type: ignore[no-untyped-def]
            yield from ()

    journal(tmp_path, market(seed=1))
    prices = journal(tmp_path, market(START_US + 10_000_000, seed=2))
    journal(tmp_path, Other(), Empty())  # type: ignore[arg-type]
    assert last_prices(tmp_path) == prices


def test_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    prices = journal(tmp_path, market())
    segment = max(next(tmp_path.glob("tickhouse-*")).glob("*.jsonl"))
    with segment.open("ab") as file:
        file.write(b'{"event_type":"TradeExecuted","data":{"symbol":"AAPL","price":1.00')
    assert last_prices(tmp_path) == prices


@pytest.mark.parametrize(
    "facts", [b"", b"[]", b'{"exchange":"TICKHOUSE"}', b'{"exchange":"TICKHOUSE","number":"x"}']
)
def test_where_nothing_can_be_read_there_are_no_prices(tmp_path: Path, facts: bytes) -> None:
    assert last_prices(tmp_path / "nothing") == {}
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "session.json").write_bytes(facts)
    (tmp_path / "s" / f"{1:020d}.jsonl").write_bytes(
        b'{"event_type":"TradeExecuted","data":{"symbol":"A","price":1.00}}\n'
    )
    assert last_prices(tmp_path) == {}


def test_a_session_opens_at_the_prices_it_is_given_and_halts_from_them() -> None:
    exchange = Exchange(
        load_market(), seed=1, start_us=START_US, duration_us=1_000_000, initial_ticks={"AAPL": 12_345}
    )
    first = {}
    for _, frame in exchange.events():
        event = json.loads(frame)
        if event["event_type"] == "MarketStats":
            first.setdefault(event["data"]["symbol"], event["data"]["open"])
    assert (first["AAPL"], first["GOOGL"]) == (123.45, 142.0)
    [listing] = [listing for listing in exchange.listings if listing.symbol == "AAPL"]
    assert listing.breaker.reference_price == 12_345
