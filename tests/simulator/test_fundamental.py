from __future__ import annotations

import math
from random import Random
from statistics import fmean, stdev

from simulator.fundamental import Fundamental


def fundamental(seed: int = 1, **changes: float) -> Fundamental:
    settings = {"sigma": 0.001, "half_life": 60.0, "news_rate": 0.0, "news_move": 0.0, **changes}
    return Fundamental(10_000, rng=Random(seed), now_us=0, **settings)


def deviations(count: int, seconds: float, **changes: float) -> list[float]:
    """Log deviation from the initial price after so many seconds, of many independent values."""
    return [math.log(fundamental(seed, **changes).ticks(int(seconds * 1e6)) / 10_000) for seed in range(count)]


def test_it_starts_at_the_initial_price_and_moves():
    value = fundamental()
    assert value.ticks(0) == 10_000
    assert value.ticks(1_000_000) != 10_000


def test_its_spread_is_that_of_an_ornstein_uhlenbeck_process():
    kappa = math.log(2) / 60
    for seconds in (1, 600):
        theory = 0.001 * math.sqrt((1 - math.exp(-2 * kappa * seconds)) / (2 * kappa))
        found = deviations(2_000, seconds)
        assert 0.93 < stdev(found) / theory < 1.07
        assert abs(fmean(found)) < 4 * theory / math.sqrt(2_000)


def test_many_small_steps_spread_as_far_as_one_large_one():
    ends = []
    for seed in range(400):
        value = fundamental(seed)
        for second in range(1, 31):
            end = value.ticks(second * 1_000_000)
        ends.append(math.log(end / 10_000))
    assert 0.85 < stdev(ends) / stdev(deviations(400, 30)) < 1.18


def test_half_of_a_deviation_is_gone_after_the_half_life():
    value = fundamental(sigma=1e-12, news_rate=1.0, news_move=0.05)
    value.ticks(10_000_000)
    before = math.log(value.ticks(10_000_000) / 10_000)
    value.news_move = 0.0
    after = math.log(value.ticks(70_000_000) / 10_000)
    assert abs(before) > 0.01
    assert abs(after / before - 0.5) < 0.01


def test_news_jumps_both_ways_with_the_given_mean_size():
    jumps = deviations(2_000, 0.5, sigma=1e-12, news_rate=0.2, news_move=0.05)
    hit = [jump for jump in jumps if abs(jump) > 1e-9]
    assert 140 < len(hit) < 260, "a tenth of the values has news in half a second"
    assert 0.04 < fmean(abs(jump) for jump in hit) < 0.062
    assert 0.35 < sum(jump > 0 for jump in hit) / len(hit) < 0.65
