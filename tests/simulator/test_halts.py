from __future__ import annotations

import pytest

from simulator.halts import CircuitBreaker, Halt


@pytest.mark.parametrize(
    ("price", "level", "seconds", "decline"),
    [
        (9300, 1, 300, "7.0000"),
        (8701, 1, 300, "12.9900"),
        (8700, 2, 600, "13.0000"),
        (8001, 2, 600, "19.9900"),
        (8000, 3, 900, "20.0000"),
        (1, 3, 900, "99.9900"),
    ],
)
def test_the_deepest_level_reached_trips(price, level, seconds, decline):
    halt = CircuitBreaker(10_000).check(price)
    assert halt == Halt(level, price, 10_000, seconds)
    assert halt.decline_pct() == decline


def test_one_tick_above_seven_percent_does_not_trip():
    assert CircuitBreaker(10_000).check(9301) is None


@pytest.mark.parametrize("reference", [1, 3, 7, 99, 101, 1847, 18_501, 41_503])
def test_the_threshold_is_exact_for_any_reference_price(reference):
    for price in range(max(1, reference * 92 // 100 - 2), reference * 94 // 100 + 3):
        tripped = CircuitBreaker(reference).check(price) is not None
        assert tripped == ((reference - price) * 100 >= 7 * reference), (reference, price)


def test_a_level_trips_once_and_only_a_deeper_one_after_it():
    breaker = CircuitBreaker(10_000)
    assert breaker.check(9250) is not None
    assert breaker.check(9100) is None
    second = breaker.check(8600)
    assert second is not None
    assert second.level == 2
    assert breaker.check(8600) is None
    third = breaker.check(7000)
    assert third is not None
    assert third.level == 3
    assert breaker.check(100) is None


def test_a_recovery_to_half_of_the_first_threshold_arms_all_levels_again():
    breaker = CircuitBreaker(10_000)
    assert breaker.check(9300) is not None
    assert breaker.check(9640) is None
    assert breaker.check(9300) is None, "9640 is not back above 9650"
    assert breaker.check(9651) is None
    assert breaker.check(9300) is not None


def test_a_rise_never_halts():
    breaker = CircuitBreaker(10_000)
    assert all(breaker.check(price) is None for price in range(9_301, 20_000))


def test_durations_scale_and_never_reach_zero():
    assert CircuitBreaker(10_000, 0.1).check(9300) == Halt(1, 9300, 10_000, 30)
    assert CircuitBreaker(10_000, 0.0001).check(8000) == Halt(3, 8000, 10_000, 1)
    with pytest.raises(ValueError, match="above zero"):
        CircuitBreaker(10_000, 0)


def test_a_new_day_has_its_own_reference_and_all_levels_armed():
    breaker = CircuitBreaker(10_000)
    assert breaker.check(8_000) is not None
    breaker.restart(8_000)
    assert breaker.check(7_441) is None
    assert breaker.check(7_440) == Halt(1, 7_440, 8_000, 300)
