"""What traders earned and held equals what a naive program finds that keeps a queue of lots for each."""

from __future__ import annotations

import itertools
import statistics
from collections import defaultdict, deque
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Any
from unittest.mock import ANY

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakehouse.batch import BatchSession
from lakehouse.gold import traders
from lakehouse.gold.traders import (
    PERFORMANCE,
    POSITIONS,
    compute_day,
    publish_traders,
)
from lakehouse.silver.events import refine_trades
from lakehouse.tables import arrow_schema

MONDAY = datetime(2026, 3, 9, tzinfo=UTC)
UNIT = Decimal("0.00000001")

trade = st.fixed_dictionaries(
    {
        "timestamp": st.tuples(st.integers(0, 3), st.integers(0, 5)).map(
            lambda at: MONDAY + timedelta(days=at[0], hours=at[1])
        ),
        "symbol": st.sampled_from(["AAPL", "KO"]),
        "price": st.integers(1, 10**12).map(lambda n: n * UNIT),
        "quantity": st.one_of(st.integers(1, 5).map(Decimal), st.integers(1, 10**12).map(lambda n: n * UNIT)),
        "buyer_agent_id": st.sampled_from(["a", "b", "c"]),
        "seller_agent_id": st.sampled_from(["a", "b", "c"]),
    }
)


def rounded(value: Decimal) -> Decimal:
    return value.quantize(UNIT, ROUND_HALF_EVEN)


@dataclass
class Lot:
    quantity: Decimal
    """Below 0: sold short."""
    price: Decimal
    opened_at: datetime


@dataclass
class Day:
    """What an agent did on a day."""

    fills: list[tuple[bool, dict[str, Any]]] = field(default_factory=list)
    gains: dict[int, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    """Trade → profit of what it closed."""
    gains_of: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    held: Decimal = Decimal(0)
    closed: Decimal = Decimal(0)


def naive(trades: list[dict[str, Any]]) -> tuple[dict[Any, dict[str, Any]], dict[Any, dict[str, Any]]]:
    """Rows of both tables by their keys, from all trades."""
    lots: dict[tuple[str, str], deque[Lot]] = defaultdict(deque)
    last: dict[str, Decimal] = {}
    performance, positions = {}, {}
    in_order = sorted(trades, key=lambda t: (t["timestamp"], t["sequence"], t["trade_id"]))
    for day, of_the_day in itertools.groupby(in_order, key=lambda t: t["timestamp"].date()):
        agents: dict[str, Day] = defaultdict(Day)
        touched = {key for key, open_lots in lots.items() if open_lots}
        for number, one in enumerate(of_the_day):
            last[one["symbol"]] = one["price"]
            for agent, sign in ((one["buyer_agent_id"], 1), (one["seller_agent_id"], -1)):
                touched.add((agent, one["symbol"]))
                agents[agent].fills.append((sign > 0, one))
                fill(agents[agent], number, lots[agent, one["symbol"]], sign, one)
        for agent, done in agents.items():
            performance[agent, day] = summed_up(done)
        for agent, symbol in touched:
            positions[agent, symbol, day] = position(
                lots[agent, symbol], last[symbol], agents[agent].gains_of[symbol]
            )
    return performance, positions


def fill(done: Day, number: int, queue: deque[Lot], sign: int, one: dict[str, Any]) -> None:
    left = one["quantity"]
    while left and queue and queue[0].quantity * sign < 0:
        lot = queue[0]
        quantity = min(left, abs(lot.quantity))
        gain = quantity * (one["price"] - lot.price) * -sign
        done.gains[number] += gain
        done.gains_of[one["symbol"]] += gain
        done.closed += quantity
        done.held += quantity * int((one["timestamp"] - lot.opened_at).total_seconds())
        lot.quantity += sign * quantity
        left -= quantity
        if not lot.quantity:
            queue.popleft()
    if left:
        queue.append(Lot(sign * left, one["price"], one["timestamp"]))


def sharpe_ratio(gains: list[Decimal]) -> Any:
    """Of profits that hardly differ the deviation is what rounding makes of it: any ratio is right then."""
    if len(set(gains)) < 2:
        return None
    mean, deviation = statistics.fmean(map(float, gains)), statistics.stdev(map(float, gains))
    return ANY if deviation * 1e8 < abs(mean) else pytest.approx(mean / deviation, rel=1e-6)


def summed_up(done: Day) -> dict[str, Any]:
    running = list(itertools.accumulate(done.gains.values(), initial=Decimal(0)))
    peaks = itertools.accumulate(running, max)
    gains = list(done.gains.values())
    bought = [one for is_buy, one in done.fills if is_buy]
    sold = [one for is_buy, one in done.fills if not is_buy]
    return {
        "buy_count": len(bought),
        "sell_count": len(sold),
        "buy_volume": sum((one["quantity"] for one in bought), Decimal(0)),
        "sell_volume": sum((one["quantity"] for one in sold), Decimal(0)),
        "buy_value": rounded(sum((one["quantity"] * one["price"] for one in bought), Decimal(0))),
        "sell_value": rounded(sum((one["quantity"] * one["price"] for one in sold), Decimal(0))),
        "symbol_count": len({one["symbol"] for _, one in done.fills}),
        "realized_pnl": rounded(running[-1]),
        "closing_fills": len(gains),
        "winning_fills": sum(gain > 0 for gain in gains),
        "win_rate": sum(gain > 0 for gain in gains) / len(gains) if gains else None,
        "max_drawdown": rounded(max(peak - value for peak, value in zip(peaks, running, strict=True))),
        "sharpe_ratio": sharpe_ratio(gains),
        "average_holding_seconds": pytest.approx(float(done.held / done.closed)) if done.closed else None,
    }


def position(queue: deque[Lot], last: Decimal, gain: Decimal) -> dict[str, Any]:
    quantity = sum((lot.quantity for lot in queue), Decimal(0))
    cost = sum((lot.quantity * lot.price for lot in queue), Decimal(0))
    return {
        "quantity": quantity,
        "average_cost": rounded(cost / quantity) if quantity else None,
        "last_price": last,
        "market_value": rounded(quantity * last),
        "unrealized_pnl": rounded(quantity * last - cost),
        "realized_pnl": rounded(gain),
        "lots": [{"quantity": lot.quantity, "price": lot.price, "opened_at": lot.opened_at} for lot in queue],
    }


def keyed(table: str, in_table: list[dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    key = ("agent_id", "symbol", "trading_date") if table == POSITIONS else ("agent_id", "trading_date")
    by_key = {tuple(row[name] for name in key): row for row in in_table}
    assert len(by_key) == len(in_table)
    return by_key


def check(found: dict[str, list[dict[str, Any]]], trades: list[dict[str, Any]]) -> None:
    """Rows of both tables against the naive program."""
    with localcontext(prec=80):
        expected = dict(zip((PERFORMANCE, POSITIONS), naive(trades), strict=True))
    for table, wanted in expected.items():
        have = keyed(table, found[table])
        assert have.keys() == wanted.keys()
        assert {key: {name: have[key][name] for name in row} for key, row in wanted.items()} == wanted


def numbered(trades: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Trades of which some agree on time and sequence, so that the id decides."""
    return [one | {"trade_id": f"t{n:03}", "sequence": n % 3} for n, one in enumerate(trades)]


def silver(trades: list[dict[str, Any]]) -> pa.Table:
    filled = {
        "event_id": "e",
        "buy_order_id": "b",
        "sell_order_id": "s",
        "is_aggressive_buy": True,
        "_processed_at": MONDAY,
    }
    return pa.Table.from_pylist([filled | one for one in trades], schema=arrow_schema("silver.trades"))


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_trades=st.lists(trade, min_size=1, max_size=30).map(numbered), parts=st.integers(1, 3))
def test_profits_and_positions_equal_a_naive_queue_of_lots(
    database: duckdb.DuckDBPyConnection, given_trades: list[dict[str, Any]], parts: int
) -> None:
    before = arrow_schema(POSITIONS).empty_table()
    found: dict[str, list[dict[str, Any]]] = {PERFORMANCE: [], POSITIONS: []}
    with database.cursor() as cursor:
        cursor.register("given_trades", silver(given_trades))
        for day in sorted({one["timestamp"].date() for one in given_trades}):
            of_the_day = f"select * from given_trades where epoch_us(timestamp) // 86400000000 = {days(day)}"
            cursor.register("before", before)
            computed = list(compute_day(cursor, of_the_day, day, "from before", MONDAY, parts))
            assert len(computed) == parts
            before = pa.concat_tables(part[POSITIONS] for part in computed)
            for name, rows_found in found.items():
                rows_found += [row for part in computed for row in part[name].to_pylist()]
        cursor.unregister("given_trades")
        cursor.unregister("before")
    check(found, given_trades)
    weights: dict[Any, float] = defaultdict(float)
    for row in found[POSITIONS]:
        weights[row["agent_id"], row["trading_date"]] += row["weight_pct"] or 0
    assert all(total == pytest.approx(100) or total == 0 for total in weights.values())


def days(day: date) -> int:
    return (day - date(1970, 1, 1)).days


# --- the step


def rows(session: BatchSession, table: str) -> list[dict[str, Any]]:
    return session.catalog.load_table(table).scan().to_arrow().to_pylist()


def at(day: int, hour: int = 12, **given: Any) -> dict[str, Any]:
    """A trade of 10 shares between a and b."""
    return {
        "timestamp": MONDAY + timedelta(days=day, hours=hour),
        "price": Decimal(100),
        "quantity": Decimal(10),
        "buyer_agent_id": "a",
        "seller_agent_id": "b",
    } | given


BACK = {"buyer_agent_id": "b", "seller_agent_id": "a"}


def publish(session: BatchSession) -> list[int]:
    """Which days were computed, counted from Monday."""
    refine_trades(session)
    return [(day - MONDAY.date()).days for day in publish_traders(session).days]


def check_tables(session: BatchSession) -> None:
    check({name: rows(session, name) for name in (PERFORMANCE, POSITIONS)}, rows(session, "silver.trades"))


def test_a_position_is_carried_to_the_next_day_with_trades_and_closed_there(
    session: BatchSession, bronze: Any
) -> None:
    bronze.trades(at(0), at(0, 13, symbol="KO"), at(3, price=Decimal("101.5"), quantity=Decimal(4), **BACK))
    assert publish(session) == [0, 3]
    check_tables(session)
    have = keyed(POSITIONS, rows(session, POSITIONS))
    thursday = (MONDAY + timedelta(days=3)).date()
    assert have["a", "AAPL", thursday]["quantity"] == 6
    assert have["a", "AAPL", thursday]["realized_pnl"] == 6
    assert have["b", "AAPL", thursday]["realized_pnl"] == -6
    assert have["a", "KO", thursday]["last_price"] == 100
    assert publish(session) == []


def test_a_late_trade_has_its_day_and_every_later_one_computed_anew(session: BatchSession, bronze: Any) -> None:
    bronze.trades(*(at(day) for day in range(4)))
    assert publish(session) == [0, 1, 2, 3]
    known = session.catalog.load_table(POSITIONS).metadata.current_snapshot_id
    bronze.trades(at(1, 3, price=Decimal(90)))
    assert publish(session) == [1, 2, 3]
    check_tables(session)
    before = session.catalog.load_table(POSITIONS).scan(snapshot_id=known).to_arrow().to_pylist()
    monday_to_thursday = [row["quantity"] for row in before if row["agent_id"] == "a"]
    assert sorted(monday_to_thursday) == [10, 20, 30, 40]


def test_days_after_one_that_left_the_same_lots_are_left_alone(session: BatchSession, bronze: Any) -> None:
    bronze.trades(*(at(day) for day in range(4)))
    publish(session)
    bronze.trades(at(1, 3), at(1, 4, **BACK, quantity=Decimal(10)), at(1, 2, **BACK))
    assert publish(session) == [1, 2, 3]
    session.catalog.load_table(POSITIONS)
    opened_and_closed = {"buyer_agent_id": "x", "seller_agent_id": "y"}
    closed = {"buyer_agent_id": "y", "seller_agent_id": "x"}
    bronze.trades(at(1, 5, **opened_and_closed), at(1, 6, **closed))
    assert publish(session) == [1]
    check_tables(session)


def test_a_day_is_worked_on_in_parts_by_its_trades_and_what_is_open(
    session: BatchSession, bronze: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = list[int]()

    def spied(*given: Any) -> Any:
        parts.append(given[-1])
        return compute_day(*given)

    monkeypatch.setattr(traders, "compute_day", spied)
    pairs = [{"buyer_agent_id": f"a{number}", "seller_agent_id": f"b{number}"} for number in range(6)]
    bronze.trades(*(at(day, 3, **pair) for day in range(3) for pair in pairs))
    refine_trades(session)
    assert len(publish_traders(session, part_trades=4).days) == 3
    assert parts == [1 + 6 // 4, 1 + (6 + 12) // 4, 1 + (6 + 24) // 4]
    check_tables(session)
    assert len(list(session.catalog.load_table(POSITIONS).scan().plan_files())) == 3, "one file a day"
    opened_and_closed = {"buyer_agent_id": "x", "seller_agent_id": "y"}
    bronze.trades(at(1, 5, **opened_and_closed), at(1, 6, buyer_agent_id="y", seller_agent_id="x"))
    refine_trades(session)
    assert [day.day for day in publish_traders(session, part_trades=4).days] == [10]
    bronze.trades(at(0, 5, **pairs[0]))
    refine_trades(session)
    assert len(publish_traders(session, part_trades=4).days) == 3
    check_tables(session)


def test_a_day_waits_until_it_has_grown_enough(session: BatchSession, bronze: Any) -> None:
    bronze.trades(*(at(0, hour) for hour in range(8)))
    assert publish(session) == [0]
    bronze.trades(at(0, 8))
    refine_trades(session)
    assert publish_traders(session, least_growth=0.2).days == ()
    bronze.trades(at(0, 9))
    refine_trades(session)
    assert [day.day for day in publish_traders(session, least_growth=0.2).days] == [9]
    check_tables(session)
    bronze.trades(at(0, 10), at(1))
    refine_trades(session)
    assert [day.day for day in publish_traders(session, least_growth=0.2).days] == [9, 10]
    check_tables(session)


def test_an_interrupted_run_goes_on_with_the_day_whose_turn_it_was(
    session: BatchSession, bronze: Any, commit_faults: Any
) -> None:
    bronze.trades(*(at(day) for day in range(4)))
    refine_trades(session)

    def interrupted(commit: int) -> None:
        commit_faults.at_commit(POSITIONS, "before", commit)
        with pytest.raises(ProcessLookupError):
            publish_traders(session)

    interrupted(3)
    interrupted(2)  # it has done one day more
    bronze.trades(at(1, 3, buyer_agent_id="x", seller_agent_id="y"))
    assert publish(session) == [1, 2, 3], "the second day changed, and left other lots open"
    check_tables(session)
    assert publish(session) == []
    bronze.trades(*(at(day, 5) for day in range(3)))
    refine_trades(session)
    interrupted(3)
    assert publish(session) == [2, 3]
    check_tables(session)


def test_a_day_that_waits_for_the_one_before_is_not_forgotten_by_a_second_interruption(
    session: BatchSession, bronze: Any, commit_faults: Any
) -> None:
    bronze.trades(*(at(day) for day in range(3)))
    publish(session)
    others = {"buyer_agent_id": "x", "seller_agent_id": "y"}
    for late in (
        [at(1, 3, buyer_agent_id="w", seller_agent_id="z")],
        [at(0, 3, **others), at(1, 4, buyer_agent_id="y", seller_agent_id="x")],
    ):
        bronze.trades(*late)
        refine_trades(session)
        commit_faults.at_commit(POSITIONS, "before", 2)
        with pytest.raises(ProcessLookupError):
            publish_traders(session)
    publish(session)
    check_tables(session)


@pytest.mark.parametrize(
    ("table", "when", "commit"),
    [(PERFORMANCE, "before", 1), (POSITIONS, "after", 1), (PERFORMANCE, "after", 2), (POSITIONS, "before", 2)],
)
def test_a_crash_at_any_commit_is_made_good_by_the_next_run(
    session: BatchSession, bronze: Any, commit_faults: Any, table: str, when: str, commit: int
) -> None:
    bronze.trades(*(at(day) for day in range(3)))
    publish(session)
    bronze.trades(at(0, 3, price=Decimal(90)))
    refine_trades(session)
    commit_faults.at_commit(table, when, commit)
    with pytest.raises(ProcessLookupError):
        publish_traders(session)
    publish(session)
    check_tables(session)
    assert publish(session) == []


def test_the_machines_time_zone_does_not_matter(
    session: BatchSession, bronze: Any, machine_time_zone: str
) -> None:
    bronze.trades(at(0, 0), at(0, 23), at(1, 0, **BACK), at(1, 23))
    publish(session)
    check_tables(session)
