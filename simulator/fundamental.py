"""What a share is worth: the value that informed agents know and everybody else guesses from prices.

In: a symbol's initial price and annual volatility, an injected random generator, the market time. Out: the
value in ticks, as a float (it steers strategies; no money is computed from it).

The log of value / initial price is an Ornstein–Uhlenbeck process (Uhlenbeck & Ornstein 1930; exact
discretisation) with compound Poisson jumps of Laplace-distributed size: news. Mean reversion keeps a session
that runs for weeks near its initial prices.
"""

from __future__ import annotations

import math
from random import Random

TRADING_SECONDS_A_YEAR = 252 * 6.5 * 3600
STEP_US = 20_000
"""The value moves at most once in this time: a finer path costs time and shows nowhere."""


class Fundamental:
    """The value of one symbol, moved forward by looking at it.

    Args:
        price: initial price in ticks, and the mean it reverts to.
        sigma: standard deviation of the log value in one second.
        half_life: seconds in which half of a deviation is gone.
        news_rate: jumps a second.
        news_move: mean absolute size of a jump of the log value.
        now_us: market time of the start.
    """

    __slots__ = (
        "_deviation", "_kappa", "_next_news_us", "_now_us", "_price", "_rng", "_sigma", "news_move", "news_rate",
    )  # fmt: skip

    def __init__(
        self,
        price: int,
        *,
        sigma: float,
        half_life: float,
        news_rate: float,
        news_move: float,
        rng: Random,
        now_us: int,
    ) -> None:
        self._price = price
        self._sigma = sigma
        self._kappa = math.log(2) / half_life
        self.news_rate = news_rate
        self.news_move = news_move
        self._rng = rng
        self._now_us = now_us
        self._deviation = 0.0
        self._next_news_us = self._draw_news(now_us)

    def _draw_news(self, after_us: int) -> float:
        if not self.news_rate:
            return math.inf
        return after_us + self._rng.expovariate(self.news_rate) * 1e6

    def ticks(self, now_us: int) -> float:
        """The value at ``now_us``, which must not go backwards."""
        if now_us - self._now_us >= STEP_US:
            seconds = (now_us - self._now_us) / 1e6
            decay = math.exp(-self._kappa * seconds)
            spread = self._sigma * math.sqrt((1 - decay * decay) / (2 * self._kappa))
            self._deviation = self._deviation * decay + spread * self._rng.gauss(0.0, 1.0)
            while self._next_news_us <= now_us:
                size = self._rng.expovariate(1 / self.news_move) if self.news_move else 0.0
                self._deviation += size if self._rng.random() < 0.5 else -size
                self._next_news_us = self._draw_news(int(self._next_news_us))
            self._now_us = now_us
        return self._price * math.exp(self._deviation)
