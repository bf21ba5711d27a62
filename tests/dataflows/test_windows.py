"""Windows against a naive computation: any order, any batching, any crash."""

from __future__ import annotations

import pickle
from random import Random
from unittest.mock import patch
from zlib import crc32

from hypothesis import given, settings
from hypothesis import strategies as st

from dataflows import windows
from dataflows.frames import Print as Trade
from dataflows.panes import SUMMED_BELOW, SUMMED_MAX, panes_of
from dataflows.tape import Tape
from dataflows.windows import (
    LATENESS_US,
    MINUTE_US,
    TOO_FAR_AHEAD,
    TOO_LATE,
    WINDOWS,
    Bar,
    ShardWindows,
)

BASE = 29_000_000 * MINUTE_US
SECOND = 1_000_000
FOREVER = 1e9


def naive(trades: list[Trade]) -> dict[tuple[str, str, int], tuple[int, ...]]:
    """(symbol, window, start) → open, high, low, close, volume, notional, trades, buy volume; from scratch."""
    table: dict[tuple[str, str, int], list[Trade]] = {}
    for trade in trades:
        for window in WINDOWS:
            every, length = window.every * MINUTE_US, window.minutes * MINUTE_US
            start = trade[1] // every * every
            while start > trade[1] - length:
                table.setdefault((trade[0], window.name, start), []).append(trade)
                start -= every
    result = {}
    for key, members in table.items():
        ordered = sorted(members, key=lambda trade: (trade[1], trade[2], trade[3]))
        prices = [trade[3] for trade in members]
        result[key] = (
            *(ordered[0][3], max(prices), min(prices), ordered[-1][3]),
            sum(trade[4] for trade in members),
            sum(trade[3] * trade[4] for trade in members),
            len(members),
            sum(trade[4] for trade in members if trade[5]),
        )
    return result


def final(bars: list[Bar]) -> dict[tuple[str, str, int], tuple[int, ...]]:
    """The table a reader of a compacted topic ends with; revisions of a window must only grow."""
    table: dict[tuple[str, str, int], tuple[int, ...]] = {}
    revisions: dict[tuple[str, str, int], int] = {}
    for bar in bars:
        key = (bar.symbol, bar.window, bar.start)
        assert bar.revision > revisions.get(key, 0)
        revisions[key] = bar.revision
        table[key] = (bar.open, bar.high, bar.low, bar.close, bar.volume, bar.notional, bar.trades, bar.buy_volume)
    return table


def add(shard: ShardWindows, trades: list[Trade], written: float = FOREVER) -> tuple[list[Bar], dict[int, str]]:
    """Kafka got them ``written`` seconds after BASE."""
    placed = [(*trade[:-1], place) for place, trade in enumerate(trades)]
    return shard.add(Tape.of(placed), [round(BASE / 1000 + written * 1000)] * len(trades))


def run(trades: list[Trade], cuts: list[int], crash: bool = False) -> list[Bar]:
    """Feed in batches that end at ``cuts``; with ``crash`` the state goes through a snapshot at each of them."""
    shard, bars, begin = ShardWindows(keep_minutes=600), [], 0
    for end in [*sorted(set(cuts)), len(trades)]:
        emitted, refused = add(shard, trades[begin:end])
        assert refused == {}
        bars += emitted
        begin = end
        if crash:
            state = pickle.dumps(shard.snapshot())
            shard = ShardWindows(keep_minutes=600)
            shard.restore(pickle.loads(state))  # noqa: S301 (our own bytes)
    return bars + shard.publish_open()


AMOUNTS = st.sampled_from([1, SUMMED_BELOW - 1, SUMMED_BELOW, 10**18 - 1])


@st.composite
def shuffled_trades(draw: st.DrawFn) -> list[Trade]:
    """Trades over some forty minutes, each late by up to three; sequences may be equal or fall."""
    count = draw(st.integers(1, 60))
    trades, time = [], BASE
    for _ in range(count):
        time += draw(st.integers(0, 90)) * SECOND
        at = max(BASE, time - draw(st.sampled_from([0, 0, 0, 1, 4, 30, 180])) * SECOND)
        trade = (
            draw(st.sampled_from(["A", "B"])),
            at + draw(st.integers(0, 3)),
            draw(st.integers(0, 5)),
            draw(st.integers(1, 10**13) | AMOUNTS),
            draw(st.integers(1, 10**12) | AMOUNTS),
            draw(st.booleans()),
        )
        trades.append((*trade, len(trades), 0))
    return trades


@settings(max_examples=60)
@given(shuffled_trades(), st.lists(st.integers(0, 60)), st.booleans())
def test_the_final_table_is_the_naive_one_for_any_order_batching_and_restart(
    trades: list[Trade], cuts: list[int], crash: bool
) -> None:
    assert final(run(trades, cuts, crash)) == naive(trades)


@settings(max_examples=40)
@given(shuffled_trades(), st.lists(st.integers(0, 60)))
def test_a_revision_means_the_same_however_the_trades_were_batched(trades: list[Trade], cuts: list[int]) -> None:
    one_by_one = {(b.symbol, b.window, b.start, b.revision): b for b in run(trades, list(range(len(trades))))}
    for bar in run(trades, cuts):
        assert one_by_one[bar.symbol, bar.window, bar.start, bar.revision] == bar


@given(shuffled_trades(), st.lists(st.integers(0, 60)), st.booleans(), st.sampled_from([1, 4]))
def test_trades_in_columns_and_one_by_one_make_the_same_bars(
    trades: list[Trade], cuts: list[int], crash: bool, singly: int
) -> None:
    with patch.object(windows, "SINGLY", singly):
        columns = run(trades, cuts, crash)
    with patch.object(windows, "_in_time", lambda *arguments: (arguments[3], 0)):
        one_by_one = run(trades, list(range(len(trades))))
    every_revision = {(bar.symbol, bar.window, bar.start, bar.revision): bar for bar in one_by_one}
    assert all(every_revision[bar.symbol, bar.window, bar.start, bar.revision] == bar for bar in columns)
    assert final(columns) == final(one_by_one)


def test_what_is_refused_is_told_by_its_place() -> None:
    trades = [trade(1), trade(400), trade(100_000), trade(401), trade(2), trade(401)]
    shard = ShardWindows(keep_minutes=2, ahead_us=60 * SECOND)
    bars, refused = add(shard, trades, written=400)
    assert refused == {2: TOO_FAR_AHEAD, 4: TOO_LATE}
    assert [(bar.trades, bar.revision) for bar in minutes(bars)] == [(1, 1)]
    assert shard.duplicates == 1


def test_a_full_block_of_the_largest_amounts_is_summed_up_exactly() -> None:
    largest = SUMMED_BELOW - 1
    trades = [trade(1, price=largest, quantity=largest, sequence=i) for i in range(SUMMED_MAX)]
    ((minute, symbol, pane),) = panes_of(Tape.of(trades))
    assert (minute * MINUTE_US, symbol, pane.trades) == (BASE, "A", SUMMED_MAX)
    assert (pane.notional, pane.volume, pane.buy) == (SUMMED_MAX * largest**2, *[SUMMED_MAX * largest] * 2)


def trade(seconds: float, price: int = 100, quantity: int = 1, symbol: str = "A", sequence: int = 0) -> Trade:
    """Its identity is its time, sequence and symbol."""
    time = BASE + round(seconds * SECOND)
    identity = crc32(f"{time}|{sequence}|{symbol}".encode())
    return (symbol, time, sequence, price, quantity, True, identity, 0)


def minutes(bars: list[Bar]) -> list[Bar]:
    return [bar for bar in bars if bar.window == "1m"]


def test_a_window_closes_when_the_watermark_reaches_its_end_and_not_before() -> None:
    shard = ShardWindows()
    assert add(shard, [trade(1), trade(64.999999)])[0] == []
    (bar, *_) = minutes(add(shard, [trade(65)])[0])
    assert (bar.start, bar.end, bar.trades, bar.revision) == (BASE, BASE + MINUTE_US, 1, 1)
    assert shard.watermark == BASE + 65 * SECOND - LATENESS_US


def test_a_late_trade_yields_a_corrected_row_with_the_next_revision() -> None:
    shard = ShardWindows()
    add(shard, [trade(1, price=100), trade(70)])
    bars, refused = add(shard, [trade(30, price=90)])
    (bar,) = minutes(bars)
    assert (bar.open, bar.low, bar.close, bar.trades, bar.revision) == (100, 90, 90, 2, 2)
    assert refused == {}
    assert shard.late == 1


def test_a_trade_within_the_lateness_is_not_a_correction() -> None:
    shard = ShardWindows()
    add(shard, [trade(1), trade(64)])
    assert add(shard, [trade(59)])[0] == []
    assert [bar.trades for bar in minutes(add(shard, [trade(66)])[0])] == [2]
    assert shard.late == 0


def test_a_quick_symbol_closes_the_windows_of_a_slow_one_of_its_shard() -> None:
    shard = ShardWindows()
    bars, _ = add(shard, [trade(1, symbol="SLOW"), trade(70, symbol="QUICK")])
    assert [bar.symbol for bar in minutes(bars)] == ["SLOW"]


def test_open_and_close_follow_time_and_sequence_so_that_ties_cannot_flip_them() -> None:
    ties = [trade(1, price=price, sequence=price) for price in (3, 1, 4, 2)]
    (bar,) = minutes(run(ties, []))
    assert (bar.open, bar.close) == (1, 4)


def test_a_trade_later_than_kept_is_handed_back_and_changes_no_window() -> None:
    shard = ShardWindows(keep_minutes=2)
    add(shard, [trade(1), trade(60 * 4)])
    before = shard.snapshot()
    assert add(shard, [trade(2)]) == ([], {0: TOO_LATE})
    assert shard.snapshot()._replace(recent=before.recent) == before


def test_a_trade_of_the_far_future_is_handed_back_and_makes_no_other_late() -> None:
    shard = ShardWindows(ahead_us=60 * SECOND)
    add(shard, [trade(1)], written=1)
    assert add(shard, [trade(62)], written=1) == ([], {0: TOO_FAR_AHEAD})
    assert shard.watermark == BASE + SECOND - LATENESS_US
    add(shard, [trade(2)], written=2)
    assert shard.late == 0


def test_a_trade_after_a_pause_is_not_of_the_future_for_kafka_s_clock_has_moved_on_too() -> None:
    shard = ShardWindows(ahead_us=60 * SECOND)
    add(shard, [trade(1)])
    assert add(shard, [trade(86_400)], written=86_400 - 60)[1] == {}
    assert shard.watermark == BASE + 86_400 * SECOND - LATENESS_US


def test_the_first_trade_of_a_shard_is_held_against_kafka_s_clock() -> None:
    shard = ShardWindows(ahead_us=60 * SECOND)
    assert add(shard, [trade(60), trade(61)], written=0)[1] == {}
    shard = ShardWindows(ahead_us=60 * SECOND)
    assert add(shard, [trade(60.000001)], written=0)[1] == {0: TOO_FAR_AHEAD}


@settings(max_examples=40)
@given(shuffled_trades(), st.lists(st.integers(0, 120)), st.booleans(), st.randoms(use_true_random=False))
def test_copies_change_no_bar(trades: list[Trade], cuts: list[int], crash: bool, dice: Random) -> None:
    doubled = list(trades)
    for copied in dice.sample(trades, len(trades) // 2):
        doubled.insert(dice.randint(doubled.index(copied) + 1, len(doubled)), copied)
    assert {(b.symbol, b.window, b.start, b.revision): b for b in run(doubled, list(range(len(doubled))))} == {
        (b.symbol, b.window, b.start, b.revision): b for b in run(trades, list(range(len(trades))))
    }
    assert final(run(doubled, cuts, crash)) == naive(trades)


def test_copies_are_counted() -> None:
    shard = ShardWindows()
    add(shard, [trade(1), trade(2), trade(1)])
    add(shard, [trade(2)])
    assert shard.duplicates == 2


def test_the_state_does_not_grow_with_the_length_of_the_stream() -> None:
    shard = ShardWindows(keep_minutes=5)
    sizes = []
    for hour in range(12):
        add(shard, [trade(hour * 3600 + i) for i in range(3600)])
        sizes.append(len(pickle.dumps(shard.snapshot())))
    assert sizes[11] <= sizes[5] * 1.1
    assert sizes[11] < 400_000


def test_a_silent_stream_publishes_open_windows_once_and_again_only_when_they_changed() -> None:
    shard = ShardWindows()
    add(shard, [trade(1)])
    assert [bar.revision for bar in minutes(shard.publish_open())] == [1]
    assert shard.publish_open() == []
    add(shard, [trade(2)])
    assert [(bar.trades, bar.revision) for bar in minutes(shard.publish_open())] == [(2, 2)]
    closing = add(shard, [trade(70)])[0]
    assert minutes(closing) == []  # it was published, and nothing changed since


def test_a_withdrawn_publication_is_made_up_for_when_the_window_closes() -> None:
    shard = ShardWindows()
    add(shard, [trade(1)])
    shard.withdraw(shard.publish_open())
    assert [(bar.trades, bar.revision) for bar in minutes(add(shard, [trade(70)])[0])] == [(1, 2)]


def test_vwap_is_rounded_half_to_even() -> None:
    def bar(notional: int, volume: int) -> Bar:
        return Bar("A", "1m", 0, 1, 1, 1, 1, 1, volume, notional, 1, 0, 1, 0)

    assert [bar(n, 2).vwap for n in (1, 3, 5, 4)] == [0, 2, 2, 2]
