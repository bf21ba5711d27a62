"""Gold equals what a naive program in exact arithmetic computes from the same trades."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakehouse.gold.step import compute
from lakehouse.tables import arrow_schema

NOON = datetime(2026, 3, 13, 12, tzinfo=UTC)
UNIT = Decimal("0.00000001")

trade = st.fixed_dictionaries(
    {
        "symbol": st.sampled_from(["AAPL", "KO"]),
        "second": st.integers(0, 150),
        "sequence": st.one_of(st.none(), st.integers(0, 3)),
        "price": st.integers(1, 10**15).map(lambda n: Decimal(n) * UNIT),
        "quantity": st.integers(1, 10**15).map(lambda n: Decimal(n) * UNIT),
        "is_aggressive_buy": st.booleans(),
    }
)


def rounded(value: Decimal) -> Decimal:
    return value.quantize(UNIT, ROUND_HALF_EVEN)


def table(trades: list[dict[str, Any]]) -> pa.Table:
    rows = [
        {
            "event_id": str(i),
            "timestamp": NOON + timedelta(seconds=t["second"]),
            "trade_id": f"{i:04}",
            "buy_order_id": "b",
            "sell_order_id": "s",
            "buyer_agent_id": "x",
            "seller_agent_id": "y",
            "company_name": t["symbol"],
            "sector": None if t["symbol"] == "KO" else "Technology",
            "_processed_at": NOON,
            **{name: t[name] for name in ("symbol", "sequence", "price", "quantity", "is_aggressive_buy")},
        }
        for i, t in enumerate(trades)
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema("silver.trades"))


def naive(trades: Iterable[dict[str, Any]]) -> dict[str, Any]:
    ordered = sorted(
        trades, key=lambda t: (t["timestamp"], -1 if t["sequence"] is None else t["sequence"], t["trade_id"])
    )
    with localcontext(prec=60):
        volume = sum((t["quantity"] for t in ordered), Decimal(0))
        value = sum((t["price"] * t["quantity"] for t in ordered), Decimal(0))
        return {
            "open_price": ordered[0]["price"],
            "high_price": max(t["price"] for t in ordered),
            "low_price": min(t["price"] for t in ordered),
            "close_price": ordered[-1]["price"],
            "vwap": rounded(value / volume),
            "total_volume": volume,
            "total_value": rounded(value),
            "trade_count": len(ordered),
            "buy_volume": sum((t["quantity"] for t in ordered if t["is_aggressive_buy"]), Decimal(0)),
            "sell_volume": sum((t["quantity"] for t in ordered if not t["is_aggressive_buy"]), Decimal(0)),
        }


def grouped(trades: pa.Table, minutes: bool) -> dict[Any, list[dict[str, Any]]]:
    groups: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for row in trades.to_pylist():
        start = row["timestamp"].replace(second=0)
        groups[(row["symbol"], start) if minutes else row["symbol"]].append(row)
    return groups


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trades=st.lists(trade, min_size=1, max_size=25))
def test_bars_and_days_equal_a_naive_exact_computation(
    database: duckdb.DuckDBPyConnection, trades: list[dict[str, Any]]
) -> None:
    silver = table(trades)
    with database.cursor() as cursor:
        cursor.register("given_trades", silver)
        gold = compute(cursor, ["select * from given_trades"], NOON)
        cursor.unregister("given_trades")
    bars = {(row["symbol"], row["bar_start"]): row for row in gold["gold.minute_bars"].to_pylist()}
    expected_bars = {key: naive(group) for key, group in grouped(silver, minutes=True).items()}
    assert {key: {name: bar[name] for name in expected_bars[key]} for key, bar in bars.items()} == expected_bars
    days = {row["symbol"]: row for row in gold["gold.daily_trading_summary"].to_pylist()}
    expected_days = {key: naive(group) for key, group in grouped(silver, minutes=False).items()}
    assert {key: {name: day[name] for name in expected_days[key]} for key, day in days.items()} == expected_days
    (market,) = gold["gold.market_overview"].to_pylist()
    assert market["total_trades"] == len(trades)
    assert market["total_volume"] == sum(day["total_volume"] for day in expected_days.values())
    assert market["total_value"] == sum(day["total_value"] for day in expected_days.values())
    assert market["unique_symbols"] == len(expected_days)
    assert market["advancing"] == sum(d["close_price"] > d["open_price"] for d in expected_days.values())
    assert market["unchanged"] == sum(d["close_price"] == d["open_price"] for d in expected_days.values())
    sectors = {row["sector"]: row for row in gold["gold.sector_daily"].to_pylist()}
    assert set(sectors) == {"Unknown" if symbol == "KO" else "Technology" for symbol in expected_days}
    assert sum(row["total_value"] for row in sectors.values()) == market["total_value"]


@pytest.mark.parametrize(
    ("prices", "vwap"),
    [
        (["1.00000001", "1.00000002"], "1.00000002"),  # 1.000000015: to the even 2
        (["1.00000002", "1.00000003"], "1.00000002"),  # 1.000000025: to the even 2
        (["1.00000000", "1.00000001", "1.00000001"], "1.00000001"),
    ],
)
def test_vwap_is_rounded_half_to_even(database: duckdb.DuckDBPyConnection, prices: list[str], vwap: str) -> None:
    trades = [
        {
            "symbol": "AAPL",
            "second": i,
            "sequence": i,
            "price": Decimal(price),
            "quantity": Decimal(1),
            "is_aggressive_buy": True,
        }
        for i, price in enumerate(prices)
    ]
    with database.cursor() as cursor:
        cursor.register("given_trades", table(trades))
        gold = compute(cursor, ["select * from given_trades"], NOON)
        cursor.unregister("given_trades")
    assert gold["gold.minute_bars"]["vwap"].to_pylist() == [Decimal(vwap)]
    assert gold["gold.daily_trading_summary"]["vwap"].to_pylist() == [Decimal(vwap)]


def test_volatility_is_the_sample_deviation_of_one_minute_log_returns(database: duckdb.DuckDBPyConnection) -> None:
    closes = [100.0, 101.0, 99.5, 102.25]
    trades = [
        {
            "symbol": "AAPL",
            "second": 60 * minute,
            "sequence": minute,
            "price": Decimal(str(price)),
            "quantity": Decimal(1),
            "is_aggressive_buy": True,
        }
        for minute, price in enumerate(closes)
    ]
    with database.cursor() as cursor:
        cursor.register("given_trades", table(trades))
        (day,) = compute(cursor, ["select * from given_trades"], NOON)["gold.daily_trading_summary"].to_pylist()
        cursor.unregister("given_trades")
    returns = [math.log(after / before) for before, after in itertools.pairwise(closes)]
    assert day["volatility"] == pytest.approx(statistics.stdev(returns), rel=1e-9)
    assert day["price_change_pct"] == pytest.approx(2.25)
