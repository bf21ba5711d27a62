"""Gold equals what a naive program in exact arithmetic computes from the same trades."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lakehouse.gold.bars import COLUMNS, STRINGS, DayBars, Trades, minute_bars
from lakehouse.gold.spreads import SPREADS
from lakehouse.gold.step import compute
from lakehouse.tables import arrow_schema

NOON = datetime(2026, 3, 13, 12, tzinfo=UTC)
UNQUOTED = SPREADS.empty_table()
UNIT = Decimal("0.00000001")

trade = st.fixed_dictionaries(
    {
        "symbol": st.sampled_from(["AAPL", "KO"]),
        "second": st.integers(0, 150) | st.sampled_from([0, 60]),
        "sequence": st.one_of(st.none(), st.integers(0, 3)),
        "price": st.integers(1, 10**15).map(lambda n: Decimal(n) * UNIT),
        "quantity": st.integers(1, 10**15).map(lambda n: Decimal(n) * UNIT),
        "is_aggressive_buy": st.booleans(),
    }
)


def one(**other: Any) -> dict[str, Any]:
    return {
        "symbol": "AAPL",
        "second": 0,
        "sequence": 0,
        "price": Decimal(1),
        "quantity": Decimal(1),
        "is_aggressive_buy": True,
        **other,
    }


def rounded(value: Decimal) -> Decimal:
    return value.quantize(UNIT, ROUND_HALF_EVEN)


def table(trades: list[dict[str, Any]]) -> pa.Table:
    rows = [
        {
            "event_id": str(i),
            "timestamp": NOON + timedelta(seconds=t["second"]),
            "trade_id": f"{t.get('number', i):04}",
            "buy_order_id": "b",
            "sell_order_id": "s",
            "buyer_agent_id": f"agent {i % 3}",
            "seller_agent_id": f"agent {i % 5}",
            "company_name": company(i),
            "sector": None if t["symbol"] == "KO" else "Technology",
            "_processed_at": NOON,
            **{name: t[name] for name in ("symbol", "sequence", "price", "quantity", "is_aggressive_buy")},
        }
        for i, t in enumerate(trades)
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema("silver.trades"))


def company(number: int) -> str | None:
    return f"company {number % 3}" if number % 4 else None


def batched(trades: pa.Table, rows: int = 1000, dictionaries: tuple[bool, bool] = (False, False)) -> Trades:
    """As from files of so many rows, with dictionaries or without: every other one in another way."""

    def batches(names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for number, begin in enumerate(range(0, trades.num_rows, rows)):
            part = trades.select(names)[begin : begin + rows]
            for name in [name for name in STRINGS if name in names and dictionaries[number % 2]]:
                at = part.schema.get_field_index(name)
                part = part.set_column(at, name, part[name].dictionary_encode())
            yield from part.combine_chunks().to_batches()

    return batches


def in_order(trades: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(
        trades, key=lambda t: (t["timestamp"], -1 if t["sequence"] is None else t["sequence"], t["trade_id"])
    )


def naive(trades: Iterable[dict[str, Any]]) -> dict[str, Any]:
    ordered = in_order(trades)
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


@given(
    st.lists(trade, min_size=2, max_size=25).flatmap(
        lambda trades: st.permutations([each | {"number": i} for i, each in enumerate(trades)])
    ),
    st.lists(st.integers(1, 24), max_size=3),
)
def test_trades_that_come_later_are_added_to_the_bars(trades: list[dict[str, Any]], cuts: list[int]) -> None:
    silver = table(trades)
    bars = DayBars(NOON.date())
    ends = [cut for cut in sorted(set(cuts)) if cut < silver.num_rows]
    for begin, end in itertools.pairwise([0, *ends, silver.num_rows]):
        bars.add(batched(silver[begin:end])(COLUMNS))
        bars.settle(batched(silver[:end]))
        assert bars.table().equals(minute_bars(NOON.date(), batched(silver[:end])))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    trades=st.lists(trade, min_size=1, max_size=25).flatmap(
        lambda trades: st.permutations([each | {"number": i} for i, each in enumerate(trades)])
    ),
    batch_rows=st.integers(1, 10),
    dictionaries=st.tuples(st.booleans(), st.booleans()),
)
@example(
    # So small that the value of all of them rounds to nothing.
    trades=[one(number=i, second=60 * i, sequence=None, price=UNIT, quantity=UNIT) for i in range(3)],
    batch_rows=1,
    dictionaries=(False, False),
)
def test_bars_and_days_equal_a_naive_exact_computation(
    database: duckdb.DuckDBPyConnection,
    trades: list[dict[str, Any]],
    batch_rows: int,
    dictionaries: tuple[bool, bool],
) -> None:
    """Of trades in any order, of which many share their time and sequence."""
    silver = table(trades)
    with database.cursor() as cursor:
        gold = compute(cursor, minute_bars(NOON.date(), batched(silver, batch_rows, dictionaries)), UNQUOTED, NOON)
    bars = {(row["symbol"], row["bar_start"]): row for row in gold["gold.minute_bars"].to_pylist()}
    expected_bars = {key: naive(group) for key, group in grouped(silver, minutes=True).items()}
    assert {key: {name: bar[name] for name in expected_bars[key]} for key, bar in bars.items()} == expected_bars
    days = {row["symbol"]: row for row in gold["gold.daily_trading_summary"].to_pylist()}
    assert {symbol: (day["company_name"], day["sector"]) for symbol, day in days.items()} == {
        symbol: (last["company_name"], last["sector"])
        for symbol, group in grouped(silver, minutes=False).items()
        for last in [in_order(group)[-1]]
    }
    expected_days = {key: naive(group) for key, group in grouped(silver, minutes=False).items()}
    assert {key: {name: day[name] for name in expected_days[key]} for key, day in days.items()} == expected_days
    (market,) = gold["gold.market_overview"].to_pylist()
    assert market["total_trades"] == len(trades)
    assert market["total_volume"] == sum(day["total_volume"] for day in expected_days.values())
    assert market["total_value"] == sum(day["total_value"] for day in expected_days.values())
    assert market["unique_symbols"] == len(expected_days)
    assert market["active_traders"] == min(5, len(trades))
    moved = [day for day in days.values() if day["volatility"] is not None]
    weighted = sum(float(day["total_value"]) * day["volatility"] for day in moved)
    weight = sum(float(day["total_value"]) for day in moved)
    index = weighted / weight if weight else None
    assert market["volatility_index"] == pytest.approx(index)
    assert market["advancing"] == sum(d["close_price"] > d["open_price"] for d in expected_days.values())
    assert market["unchanged"] == sum(d["close_price"] == d["open_price"] for d in expected_days.values())
    sectors = {row["sector"]: row for row in gold["gold.sector_daily"].to_pylist()}
    assert set(sectors) == {"Unknown" if symbol == "KO" else "Technology" for symbol in expected_days}
    assert sum(row["total_value"] for row in sectors.values()) == market["total_value"]


def test_sums_beyond_64_bits_are_exact_and_beyond_38_digits_an_error() -> None:
    most = Decimal("9999999999.99999999")
    hundred = table([one(price=most, quantity=most)] * 100)
    (bar,) = minute_bars(NOON.date(), batched(hundred)).to_pylist()
    with localcontext(prec=60):
        assert bar["value_exact"] == 100 * most * most
        assert bar["total_volume"] == bar["buy_volume"] == 100 * most
    too_much = pa.concat_tables([hundred, table([one(price=most, quantity=most)])])
    with pytest.raises(OverflowError, match=r"AAPL's minute of 2026-03-13 12:00:00.* more than 38 digits"):
        minute_bars(NOON.date(), batched(too_much))


@pytest.mark.parametrize("dictionaries", [(False, False), (True, True), (True, False), (False, True)])
def test_trade_ids_decide_across_files_that_keep_strings_differently(
    dictionaries: tuple[bool, bool],
) -> None:
    tied = table([one(price=Decimal(price), number=number) for price, number in ((2, 2), (3, 3), (1, 1))])
    (bar,) = minute_bars(NOON.date(), batched(tied, 1, dictionaries)).to_pylist()
    assert (bar["open_price"], bar["close_price"]) == (1, 3)
    assert bar["company"] == {"name": company(1), "sector": "Technology"}


@pytest.mark.parametrize("second", [-1, 12 * 3600])
def test_a_trade_of_another_day_is_an_error(second: int) -> None:
    day = NOON.date() if second > 0 else (NOON + timedelta(hours=12)).date()
    with pytest.raises(ValueError, match=r"a trade of AAPL at .* is in the file of another day"):
        minute_bars(day, batched(table([one(second=second)])))


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
        gold = compute(cursor, minute_bars(NOON.date(), batched(table(trades))), UNQUOTED, NOON)
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
        gold = compute(cursor, minute_bars(NOON.date(), batched(table(trades))), UNQUOTED, NOON)
    (day,) = gold["gold.daily_trading_summary"].to_pylist()
    returns = [math.log(after / before) for before, after in itertools.pairwise(closes)]
    assert day["volatility"] == pytest.approx(statistics.stdev(returns), rel=1e-9)
    assert day["price_change_pct"] == pytest.approx(2.25)
