"""What a share is worth, and how much attention it gets: what drives the agents.

In: a symbol's initial price, volatility and news, an injected random generator, the market time. Out: the value
in ticks, as a float (it steers strategies; no money is computed from it), and the activity, a number with mean 1.

Information arrives in bursts, and both follow it. The activity is shot noise (bursts at Poisson times, of
exponential size, decaying exponentially: Cox & Isham, Point Processes, 1980) on a calm floor; agents look at a
symbol in proportion to it, and the variance of the value is proportional to it, so that the market is busy when
it is volatile (mixture of distributions: Clark 1973). The value itself reverts to the initial price: an
Ornstein–Uhlenbeck step (Uhlenbeck & Ornstein 1930) with proportional noise, so that it stays above zero, and
news, a move spread over some seconds with a burst of activity of its own. Mean reversion keeps a session that
runs for weeks near its initial prices.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from simulator.draws import exponential, normal

if TYPE_CHECKING:
    from simulator.listing import Listing

TRADING_SECONDS_A_YEAR = 252 * 6.5 * 3600
STEP_US = 100_000
"""Value and activity move once in this time: a finer path costs time and shows nowhere."""
STEP_SECONDS = STEP_US / 1e6
NEWS_HALF_LIFE = 3.0
"""Seconds until half of a piece of news has reached the value."""
NEWS_ACTIVITY = 8.0
"""What a piece of news adds to the activity."""


def _decay(half_life: float) -> float:
    """What is left after one step; rounded, because the last bit of ``**`` differs between C libraries."""
    return round(math.pow(0.5, STEP_SECONDS / half_life), 12)


class Fundamental:
    """Value and activity of one symbol, moved forward by :meth:`advance`.

    Args:
        price: ticks; the mean that the value reverts to.
        start: ticks; the value at the start. None: the mean.
        sigma: standard deviation of the log value in one second at activity 1.
        half_life: seconds in which half of a deviation is gone.
        news_rate: pieces of news a second.
        news_move: mean absolute size of one, as a share of the value; uniform up to twice that.
        calm: activity between bursts; 1: there are none.
        burst_rate: bursts a second.
        burst_half_life: seconds in which half of a burst is over.
        now_us: market time of the start.
    """

    __slots__ = (
        "_burst_decay", "_burst_mean", "_burst_odds", "_calm", "_decay", "_news_decay", "_news_odds", "_next_us",
        "_pending", "_price", "_rng", "_spread", "activity", "news_move", "scale", "value",
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
        start: int | None = None,
        calm: float = 1.0,
        burst_rate: float = 1.0,
        burst_half_life: float = 1.0,
    ) -> None:
        self._price = price
        self._decay = _decay(half_life)
        self._spread = sigma * math.sqrt(STEP_SECONDS)
        self._news_odds = news_rate * STEP_SECONDS
        self._news_decay = _decay(NEWS_HALF_LIFE)
        self.news_move = news_move
        self._calm = calm
        self._burst_decay = _decay(burst_half_life)
        self._burst_odds = burst_rate * STEP_SECONDS
        # In the long run bursts add as much as decays, which makes the mean activity 1.
        self._burst_mean = (1 - calm) * (1 - self._burst_decay) / self._burst_odds
        self._rng = rng
        self._next_us = now_us + STEP_US
        self._pending = 0.0
        self.value = float(price if start is None else start)
        """Ticks."""
        self.activity = 1.0
        self.scale = price * sigma
        """Ticks; how far the value usually moves in a second."""

    def advance(self, now_us: int) -> None:
        """Move to ``now_us``, which must not go backwards."""
        rng = self._rng
        while self._next_us <= now_us:
            self._next_us += STEP_US
            activity = self._calm + (self.activity - self._calm) * self._burst_decay
            if rng.random() < self._burst_odds:
                activity += exponential(rng, self._burst_mean)
            if rng.random() < self._news_odds:
                self._pending += (4 * rng.random() - 2) * self.news_move
                activity += NEWS_ACTIVITY
            self.activity = activity
            arrives = self._pending * (1 - self._news_decay)
            self._pending -= arrives
            shock = max(-0.5, self._spread * math.sqrt(activity) * normal(rng) + arrives)
            self.value = self._price + (self.value - self._price) * self._decay + self.value * shock

    def ticks(self, now_us: int) -> float:
        """The value at ``now_us``, which must not go backwards."""
        self.advance(now_us)
        return self.value


class Attention:
    """Which symbol an agent looks at next: one drawn in proportion to the activity."""

    def __init__(self, listings: Sequence[Listing], now_us: int) -> None:
        self._listings = listings
        self._next_us = now_us
        self._sums: list[float] = []
        self.level = 1.0
        """Mean activity of all symbols: how busy the market is."""

    def pick(self, rng: Random, now_us: int) -> Listing:
        """A listing; moves all values and activities forward first."""
        if now_us >= self._next_us:
            self._refresh(now_us)
        sums = self._sums
        return self._listings[bisect_right(sums, rng.random() * sums[-1], 0, len(sums) - 1)]

    def _refresh(self, now_us: int) -> None:
        self._next_us = now_us - now_us % STEP_US + STEP_US
        total = 0.0
        self._sums = sums = []
        for listing in self._listings:
            fundamental = listing.fundamental
            fundamental.advance(now_us)
            total += fundamental.activity
            sums.append(total)
        self.level = total / len(sums)
