from __future__ import annotations

import hashlib
from random import Random
from statistics import fmean, pstdev

import pytest

from simulator.draws import CELLS, Sizes, exponential, normal


class Cells:
    """A generator that goes through all cells once."""

    def __init__(self) -> None:
        self._next = 0

    def random(self) -> float:
        self._next += 1
        return (self._next - 0.5) / CELLS


def test_exponential_draws_have_their_mean_and_are_above_zero():
    every = Cells()
    draws = [exponential(every, 3.0) for _ in range(CELLS)]
    assert fmean(draws) == pytest.approx(3.0, rel=0.001)
    assert pstdev(draws) == pytest.approx(3.0, rel=0.01)
    assert min(draws) > 0
    assert max(draws) == pytest.approx(27.0, rel=0.01)


def test_normal_draws_have_mean_0_and_deviation_1():
    every = Cells()
    draws = [normal(every) for _ in range(CELLS)]
    assert fmean(draws) == pytest.approx(0, abs=1e-9)
    assert pstdev(draws) == pytest.approx(1, rel=0.002)


def test_log_uniform_sizes_are_whole_tens_within_their_bounds():
    every, sizes = Cells(), Sizes(10, 500)
    drawn = [sizes.draw(every) for _ in range(CELLS)]
    assert min(drawn) == 10
    assert max(drawn) == 490
    assert all(size % 10 == 0 for size in drawn)
    assert sorted(drawn)[CELLS // 2] == pytest.approx((10 * 500) ** 0.5, abs=10), "the geometric mean"


def test_power_law_sizes_have_their_exponent():
    every, sizes = Cells(), Sizes(1_000, 10_000, exponent=1.5)
    drawn = [sizes.draw(every) for _ in range(CELLS)]
    assert (min(drawn), max(drawn)) == (1_000, 9_970)
    cut = 1 - 0.1**1.5
    for size in (1_500, 3_000, 6_000):
        share = sum(drawn_size >= size for drawn_size in drawn) / CELLS
        assert share == pytest.approx(1 - (1 - (1_000 / size) ** 1.5) / cut, abs=0.005)


def test_a_seed_gives_these_very_draws_on_every_machine():
    rng, sizes = Random("1:2"), Sizes(50, 500, exponent=1.5)
    draws = [(exponential(rng, 1.0), normal(rng), sizes.draw(rng)) for _ in range(20_000)]
    assert hashlib.sha256(repr(draws).encode()).hexdigest()[:16] == "53cc6c5498377dc8"
