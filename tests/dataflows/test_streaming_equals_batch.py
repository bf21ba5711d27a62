"""The windows a reader of processed.vwap ends with are those of a batch query over the same trades.

Any order within the lateness, any batching, copies, a crash anywhere, any number of shards and workers.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any
from zlib import crc32

import bytewax.operators as op
import duckdb
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, cluster_main, run_main
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflows.kafka import Frames
from dataflows.settings import StreamSettings
from dataflows.sink import DeadLetter, Output
from dataflows.vwap import op_windows
from dataflows.windows import LATENESS_US, MINUTE_US, WINDOWS
from simulator.events import format_timestamp

BASE = 1_700_000_000_000_000 // (15 * MINUTE_US) * (15 * MINUTE_US)
CLOSER = "~"
"""A symbol of one trade per shard that comes last, a day later, and closes what is open."""

Trade = tuple[str, int, int, Decimal, Decimal, bool]
"""symbol, event time µs, sequence, price, quantity, aggressive buy"""
Window = tuple[str, str, int]
"""symbol, name, start µs"""

BATCH_SQL = """
    with placed as (
        select *, unnest(range(time_us // $every * $every - $length + $every, time_us + 1, $every)) as start
        from trades
    )
    select symbol, start, arg_min(price, (time_us, sequence)), max(price), min(price),
           arg_max(price, (time_us, sequence)), sum(quantity),
           sum(price::decimal(19, 8) * quantity::decimal(19, 8)), count(*),
           coalesce(sum(quantity) filter (where buy), 0)
    from placed where start > time_us - $length and start <= time_us and start % $every = 0
    group by all
"""


def batch_windows(trades: list[Trade]) -> dict[Window, tuple[Any, ...]]:
    """DuckDB's, exactly."""
    found: dict[Window, tuple[Any, ...]] = {}
    with duckdb.connect() as connection:
        connection.execute(
            "create table trades (symbol varchar, time_us bigint, sequence bigint, price decimal(18, 8),"
            " quantity decimal(18, 8), buy boolean)"
        )
        connection.execute(
            f"insert into trades values {', '.join(['(?, ?, ?, ?, ?, ?)'] * len(trades))}", [*chain(*trades)]
        )
        for window in WINDOWS:
            lengths = {"every": window.every * MINUTE_US, "length": window.minutes * MINUTE_US}
            for symbol, start, *figures in connection.execute(BATCH_SQL, lengths).fetchall():
                found[symbol, window.name, start] = tuple(figures)
    return found


def stream_windows(out: list[tuple[str, Output | DeadLetter]]) -> dict[Window, tuple[Any, ...]]:
    """Those of the highest revision. A revision that is written twice must say the same both times."""
    revisions: dict[tuple[str, int], dict[str, Any]] = {}
    newest: dict[str, dict[str, Any]] = {}
    for key, item in out:
        assert isinstance(item, Output), item
        row = json.loads(item.value, parse_float=Decimal)
        del row["computed_at"]
        assert revisions.setdefault((key, item.version), row) == row
        if key not in newest or row["revision"] >= newest[key]["revision"]:
            newest[key] = row
    names = ("open", "high", "low", "close", "volume", "notional", "trade_count", "buy_volume")
    windows = {}
    for row in newest.values():
        if row["symbol"] != CLOSER:
            start = next(time for time in STARTS if format_timestamp(time) == row["window_start"])
            windows[row["symbol"], row["window"], start] = tuple(row[name] for name in names)
    return windows


STARTS = range(BASE - 5 * MINUTE_US, BASE + 40 * MINUTE_US, MINUTE_US)


def frame(trade: Trade) -> bytes:
    symbol, time_us, sequence, price, quantity, buy = trade
    ids = dict.fromkeys(("buy_order_id", "sell_order_id", "buyer_agent_id", "seller_agent_id"), "x")
    data = {"event_id": f"e{sequence}", "trade_id": f"t{sequence}", "symbol": symbol, "sequence": sequence}
    data |= {"timestamp": format_timestamp(time_us), "is_aggressive_buy": buy, **ids}
    exact = f'"price":{price:f},"quantity":{quantity:f}'
    return f'{{"event_type":"TradeExecuted","data":{{{json.dumps(data)[1:-1]},{exact}}}}}'.encode()


@st.composite
def trades_in_order(draw: st.DrawFn) -> list[Trade]:
    """Up to 80 trades within some twenty minutes; several in one microsecond are common."""
    count, seed = draw(st.integers(1, 80)), draw(st.integers(0, 10**6))
    dice, time_us = Random(seed), BASE + draw(st.integers(0, 5 * MINUTE_US))
    trades = []
    for sequence in range(1, count + 1):
        time_us += dice.choice([0, 0, 1, 999, 10**6, 3 * 10**6, 15 * 10**6])
        price = Decimal(dice.choice([dice.randrange(1, 10**6), dice.randrange(1, 10**18)])).scaleb(-8)
        quantity = Decimal(dice.choice([dice.randrange(1, 900) * 10**8, dice.randrange(1, 10**18)])).scaleb(-8)
        trades.append((dice.choice("ABCD"), time_us, sequence, price, quantity, dice.random() < 0.5))
    return trades


def shard_of(symbol: str, shards: int) -> int:
    return crc32(symbol.encode()) % shards


def run_stream(
    flow_of: Callable[[list[tuple[str, Any]]], Dataflow], crash: bool, workers: int
) -> list[tuple[str, Output | DeadLetter]]:
    out: list[tuple[str, Output | DeadLetter]] = []
    flow = flow_of(out)
    with tempfile.TemporaryDirectory() as store:
        init_db_dir(Path(store), 1)
        recovery = RecoveryConfig(store)
        if crash:
            run_main(flow, epoch_interval=timedelta(0), recovery_config=recovery)
        if workers == 1:
            run_main(flow, epoch_interval=timedelta(0), recovery_config=recovery)
        else:  # it goes on with another number of workers than it crashed with
            cluster_main(
                flow, [], 0, epoch_interval=timedelta(0), recovery_config=recovery, worker_count_per_proc=workers
            )
    return out


@settings(max_examples=12)
@given(
    trades_in_order(),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(4, 40),
    st.none() | st.floats(0, 1),
    st.integers(0, 20),
    st.randoms(use_true_random=False),
)
def test_the_final_windows_are_duckdb_s(
    trades: list[Trade],
    shards: int,
    workers: int,
    batch: int,
    crash_at: float | None,
    copies: int,
    dice: Random,
) -> None:
    arrived = sorted(trades, key=lambda trade: trade[1] + dice.randrange(LATENESS_US))
    for copied in dice.choices(trades, k=copies):
        arrived.insert(dice.randint(arrived.index(copied) + 1, len(arrived)), copied)
    items: list[Any] = []
    for shard in range(shards):
        closer = (CLOSER, BASE + 86_400_000_000, 10**6, Decimal(1), Decimal(1), True)
        values = [
            frame(trade) for trade in [*arrived, closer] if shard_of(trade[0], shards) == shard or trade is closer
        ]
        for begin in range(0, len(values), batch):
            some = values[begin : begin + batch]
            offsets = range(begin, begin + len(some))
            frames = Frames("raw.trades", shard, offsets, some, [None] * len(some), [10**13] * len(some))
            items.append((begin, frames))
    items = [item for _, item in sorted(items, key=lambda placed: placed[0])]  # each shard in its own order
    if crash_at is not None:
        items.insert(round(crash_at * len(items)), TestingSource.ABORT())

    def flow_of(out: list[tuple[str, Any]]) -> Dataflow:
        flow = Dataflow("test_equal")
        rows, letters = op_windows(op.input("in", flow, TestingSource(items)), StreamSettings())
        op.output("out", rows, TestingSink(out))
        op.output("letters", letters, TestingSink(out))
        return flow

    out = run_stream(flow_of, crash_at is not None, workers)
    assert stream_windows(out) == batch_windows(trades)
