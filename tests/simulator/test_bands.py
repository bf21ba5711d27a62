from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.bands import PriceBands
from simulator.halts import Halt

SECOND = 1_000_000


def test_bands_lie_a_share_of_the_reference_away_rounded_inwards():
    bands = PriceBands(10_010, 5)
    assert (bands.lower, bands.upper) == (9_510, 10_510)
    assert (PriceBands(7, 10).lower, PriceBands(7, 10).upper) == (7, 7)
    assert (PriceBands(100, 10).lower, PriceBands(100, 10).upper) == (90, 110)


def test_prices_through_a_band_become_the_band():
    bands = PriceBands(100, 10)
    assert [bands.collar(True, price) for price in (80, 110, 111)] == [80, 110, 110]
    assert [bands.collar(False, price) for price in (89, 90, 120)] == [90, 90, 120]


def test_a_mean_moves_the_bands_after_thirty_seconds_and_from_one_percent_on():
    bands = PriceBands(10_000, 5)
    bands.record(1 * SECOND, 10_098)
    bands.record(2 * SECOND, 10_102)
    assert not PriceBands(10_000, 5).update(100 * SECOND), "without trades there is no mean"
    bands.restart(10_000, 10 * SECOND)
    bands.record(11 * SECOND, 10_098)
    bands.record(12 * SECOND, 10_102)
    assert not bands.update(39 * SECOND), "29 s after the last change"
    assert bands.update(40 * SECOND)
    assert (bands.reference, bands.lower, bands.upper) == (10_100, 9_595, 10_605)
    bands.record(80 * SECOND, 10_300)
    assert not bands.update(81 * SECOND), "the mean, 10,167, is not 1 % away"


@given(st.lists(st.tuples(st.integers(0, 200 * SECOND), st.integers(500, 2_000)), min_size=1, max_size=60))
def test_the_reference_is_the_mean_of_the_trades_of_the_last_five_minutes(gaps):
    bands = PriceBands(10**9, 5)  # far away, so that every mean moves it
    now_us, trades = 0, []
    for gap, price in gaps:
        now_us += gap
        bands.record(now_us, price)
        trades.append((now_us // SECOND, price))
    bands._updated_us = -(10**12)
    assert bands.update(now_us)
    recent = [price for second, price in trades if second > now_us // SECOND - 300]
    assert bands.reference == (2 * sum(recent) + len(recent)) // (2 * len(recent))


def test_memory_holds_one_entry_a_second_of_the_window():
    bands = PriceBands(1_000, 5)
    for step in range(100_000):
        bands.record(step * 10_000, 1_000)
    assert len(bands._seconds) == 300


def test_a_quote_at_a_band_is_a_limit_state():
    bands = PriceBands(100, 10)
    assert not bands.at_limit(None, None)
    assert not bands.at_limit(109, 110)
    assert not bands.at_limit(90, 91)
    assert bands.at_limit(110, None)
    assert bands.at_limit(None, 90)


def test_a_pause_says_which_band_was_hit_and_how_far_it_is():
    up, down = PriceBands(10_000, 5).pause(10_500), PriceBands(10_000, 5, 0.01).pause(9_400)
    assert up == Halt(1, 10_500, 10_000, 300, "LimitUpLimitDown")
    assert up.decline_pct() == "-5.0000"
    assert down == Halt(1, 9_500, 10_000, 3, "LimitUpLimitDown")
    assert down.decline_pct() == "5.0000"
    assert PriceBands(100, 5).limit_state_us() == 15 * SECOND
    assert PriceBands(100, 5, 0.01).limit_state_us() == SECOND


@pytest.mark.parametrize(
    ("reference", "percent", "scale"), [(0, 5, 1.0), (100, 0, 1.0), (100, 100, 1.0), (9, 5, 0)]
)
def test_impossible_bands_are_refused(reference, percent, scale):
    with pytest.raises(ValueError, match="out of range"):
        PriceBands(reference, percent, scale)
