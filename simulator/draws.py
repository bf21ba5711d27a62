"""Random draws that are the same on every machine.

In: a seeded :class:`random.Random`. Out: floats that follow from its bits by IEEE arithmetic and rounded tables
alone. ``Random.expovariate`` and ``gauss`` call the platform's logarithm and cosine, whose last bit differs
between C libraries; one such bit would send a session down another path. Each draw costs one ``random()``.

The tables hold the quantiles at the middle of equally likely cells (inverse transform sampling), so that a tail
ends where its cell does: an exponential draw is at most 9.0 means, a normal one 3.7 deviations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from statistics import NormalDist

CELLS = 4096
_MIDDLES = [(cell + 0.5) / CELLS for cell in range(CELLS)]
_DECIMALS = 9
"""Far coarser than the last bit, so that every C library gives the same table."""

_EXPONENTIAL = tuple(round(-math.log(1 - middle), _DECIMALS) for middle in _MIDDLES)
_NORMAL = tuple(round(NormalDist().inv_cdf(middle), _DECIMALS) for middle in _MIDDLES)


def exponential(rng: Random, mean: float) -> float:
    """Above zero, with this mean."""
    return _EXPONENTIAL[int(rng.random() * CELLS)] * mean


def normal(rng: Random) -> float:
    """Mean 0, standard deviation 1."""
    return _NORMAL[int(rng.random() * CELLS)]


class Sizes:
    """Order sizes in whole tens between ``low`` and ``high``: small ones are the common ones.

    Without ``exponent`` log-uniform; with it a power law, P(size > x) ~ x^-exponent, cut off at ``high``.
    """

    __slots__ = ("_sizes",)

    def __init__(self, low: int, high: int, exponent: float = 0.0) -> None:
        self._sizes: Sequence[int] = tuple(
            max(low, int(round(_size(low, high, exponent, middle), _DECIMALS)) // 10 * 10) for middle in _MIDDLES
        )

    def draw(self, rng: Random) -> int:
        return self._sizes[int(rng.random() * CELLS)]


def _size(low: int, high: int, exponent: float, quantile: float) -> float:
    if not exponent:
        return float(low * (high / low) ** quantile)
    cut = 1 - (low / high) ** exponent
    return float(low * (1 - quantile * cut) ** (-1 / exponent))
