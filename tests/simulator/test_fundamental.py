from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from statistics import fmean, pstdev, stdev

import pytest

from simulator.fundamental import NEWS_ACTIVITY, STEP_US, Attention, Fundamental
from tests.benchmarks.scorecard import autocorrelation, excess_kurtosis

SECOND = 1_000_000


def fundamental(seed: int = 1, **changes: float) -> Fundamental:
    settings = {"sigma": 0.001, "half_life": 60.0, "news_rate": 0.0, "news_move": 0.0, **changes}
    return Fundamental(10_000, rng=Random(seed), now_us=0, **settings)


def deviations(count: int, seconds: float, **changes: float) -> list[float]:
    """Relative deviation from the mean price after so many seconds, of many independent values."""
    return [fundamental(seed, **changes).ticks(int(seconds * SECOND)) / 10_000 - 1 for seed in range(count)]


def test_it_starts_at_the_initial_price_and_moves():
    value = fundamental()
    assert value.ticks(0) == 10_000
    assert value.ticks(SECOND) != 10_000


def test_it_can_start_away_from_the_price_it_reverts_to():
    value = fundamental(sigma=1e-12, start=9_000)
    assert value.ticks(0) == 9_000
    assert value.ticks(60 * SECOND) == pytest.approx(9_500, abs=1)
    assert value.ticks(600 * SECOND) == pytest.approx(10_000, abs=2)


def test_its_spread_is_that_of_an_ornstein_uhlenbeck_process():
    kappa = math.log(2) / 60
    for seconds in (1, 60):
        theory = 0.001 * math.sqrt((1 - math.exp(-2 * kappa * seconds)) / (2 * kappa))
        found = deviations(500, seconds)
        assert 0.9 < stdev(found) / theory < 1.1
        assert abs(fmean(found)) < 4 * theory / math.sqrt(500)


def test_looking_more_often_changes_nothing():
    often, seldom = fundamental(7, calm=0.2), fundamental(7, calm=0.2)
    for time_us in range(0, 30 * SECOND, 37_000):
        often.ticks(time_us)
    assert often.ticks(30 * SECOND) == seldom.ticks(30 * SECOND)
    assert often.activity == seldom.activity


def test_news_arrives_over_some_seconds_both_ways_with_the_given_mean_size():
    changes = {"sigma": 1e-12, "half_life": 1e9, "news_rate": 0.0025, "news_move": 0.05}
    moves = [move for move in deviations(600, 60, **changes) if abs(move) > 0.001]
    assert 60 < len(moves) < 110, "one value in seven has news in a minute"
    assert 0.038 < fmean(abs(move) for move in moves) < 0.062
    assert max(abs(move) for move in moves) < 0.21
    assert 0.38 < sum(move > 0 for move in moves) / len(moves) < 0.62


def test_news_brings_activity():
    quiet, loud = fundamental(), fundamental(news_rate=10.0, burst_half_life=2.0)
    quiet.ticks(10 * SECOND)
    loud.ticks(SECOND)
    assert quiet.activity == 1.0
    assert loud.activity > 1 + NEWS_ACTIVITY / 2


def test_the_value_stays_above_zero_whatever_the_news():
    value = fundamental(3, news_rate=1.0, news_move=1.0, half_life=1e6)
    assert min(value.ticks(second * SECOND) for second in range(2_000)) > 0


def bursty(seed: int) -> Fundamental:
    return fundamental(seed, calm=0.15, burst_rate=1 / 25, burst_half_life=2.0, half_life=1e9)


def test_activity_has_mean_1_and_the_variance_of_shot_noise():
    value = bursty(5)
    activities = []
    for step in range(250_000):
        value.advance(step * STEP_US)
        activities.append(value.activity)
    # Campbell's theorem: rate · E[size²] · decay time / 2, sizes exponential with mean (1 - calm)/(rate · time).
    decay_time = 2.0 / math.log(2)
    variance = 0.85**2 / (1 / 25 * decay_time)
    assert fmean(activities) == pytest.approx(1, abs=0.08)
    assert pstdev(activities) == pytest.approx(math.sqrt(variance), rel=0.12)
    assert min(activities) >= 0.15


def test_returns_have_heavy_tails_and_clustered_volatility_but_no_memory():
    value = bursty(6)
    path = [value.ticks(second * SECOND) for second in range(20_000)]
    returns = [later / earlier - 1 for earlier, later in pairwise(path)]
    assert 8 < excess_kurtosis(returns) < 40
    assert autocorrelation([abs(move) for move in returns], 1) > 0.2
    assert abs(autocorrelation(returns, 1)) < 0.05
    assert pstdev(returns) == pytest.approx(0.001, rel=0.1), "sigma is that of a second at the mean activity"


@dataclass
class Listed:
    fundamental: Fundamental


def test_attention_goes_where_the_activity_is():
    listings = [Listed(fundamental(seed)) for seed in range(4)]
    attention, rng = Attention(listings, 0), Random(1)
    for listing, activity in zip(listings, (1.0, 2.0, 4.0, 1.0), strict=True):
        listing.fundamental.activity = activity
    picks = Counter(id(attention.pick(rng, 0)) for _ in range(8_000))
    assert [picks[id(listing)] / 1_000 for listing in listings] == pytest.approx([1, 2, 4, 1], abs=0.2)
    assert attention.level == 2.0


def test_attention_moves_all_values_forward():
    listings = [Listed(fundamental(seed)) for seed in range(3)]
    attention = Attention(listings, 0)
    attention.pick(Random(1), 0)
    assert [listing.fundamental.value for listing in listings] == [10_000.0] * 3
    attention.pick(Random(1), SECOND)
    assert all(listing.fundamental.value != 10_000.0 for listing in listings)
