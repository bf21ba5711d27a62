"""Enriched trades, and the dimension they are enriched from."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from dataflows.enrichment import SymbolReference, Symbols, enrich, process
from dataflows.kafka import Frames
from dataflows.sink import DeadLetter, Output

APPLE = {"AAPL": ("Apple Inc.", "Technology", "Mega")}
TIME = 1_723_075_200_000_001


def test_a_trade_gets_its_company_and_an_exact_notional(trade_frame: Callable[..., bytes]) -> None:
    frame = trade_frame("AAPL", TIME, 61800.21, 0.006, 4)
    symbol, value, time_us = enrich(frame, APPLE)
    assert (symbol, time_us) == ("AAPL", TIME)
    assert json.loads(value, parse_float=Decimal) == {
        **json.loads(frame, parse_float=Decimal)["data"],
        "company_name": "Apple Inc.",
        "sector": "Technology",
        "market_cap_category": "Mega",
        "notional": Decimal("370.80126"),
    }


def test_a_symbol_that_the_dimension_lacks_is_unknown(trade_frame: Callable[..., bytes]) -> None:
    row = json.loads(enrich(trade_frame("BTCUSDT", TIME), APPLE)[1])
    assert [row[name] for name in ("company_name", "sector", "market_cap_category")] == ["Unknown"] * 3


def test_garbage_becomes_a_dead_letter_between_two_outputs(trade_frame: Callable[..., bytes]) -> None:
    values = [trade_frame("AAPL", TIME), b"\x00", trade_frame("AAPL", TIME, price=1e-9), trade_frame("AAPL", TIME)]
    items = [item for _, item in process(Frames("raw.trades", 1, range(4), values, [b"AAPL"] * 4, [0] * 4), APPLE)]
    assert [type(item) for item in items] == [Output, DeadLetter, DeadLetter, Output]
    assert items[2].output.headers[0] == ("error", b"1E-9 is not between 1e-8 and 1e10")


def test_the_reference_follows_the_dimension_and_outlives_a_catalog_that_is_away(
    until: Callable[..., Any],
) -> None:
    answers: list[Symbols | Exception] = [{}, APPLE, OSError("away"), {"AAPL": ("Apple", "Tech", "Mega")}]

    def read() -> Symbols:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    stop = threading.Event()
    reference = SymbolReference(read, 0.01, stop)
    reference.start()
    reference.wait_until_loaded(10)
    assert reference.symbols
    until("the newer version is read", lambda: reference.symbols["AAPL"][0] == "Apple")
    stop.set()
    reference.join(5)
    assert not reference.is_alive()
