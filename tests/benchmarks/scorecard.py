"""Does it look like a market: statistics of one symbol's events, and the ranges that recorded markets have.

In: events as the exchange prints them, simulated or replayed. Out: columns by symbol, numbers, verdicts. Pure
functions. The choice follows "Get Real" (Vyetrenko et al. 2019, arXiv 1912.04941: heavy tails, no memory of
returns, clustered volatility), LOB-Bench (Nagy et al. 2025, arXiv 2502.09172: spread, depth by level, order flow)
and what ABIDES' reference configuration RMSC-4 is judged by.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean, median

import orjson

WINDOW_US = 1_000_000
"""One second: of the returns, and of the trade counts. (The capture's Fano factor is 388 at one second, 212 at
a tenth, 600 at five.)"""
LEVELS = 10
MIN_TRADES = 50
MIN_WINDOWS = 120
UNITS = 10**8
"""Prices are read as whole multiples of 1e-8."""


@dataclass
class Columns:
    """The events of one symbol. Times are microseconds, prices units of 1e-8; quotes are the two-sided ones."""

    trade_times: list[int] = field(default_factory=list)
    trade_prices: list[int] = field(default_factory=list)
    trade_signs: list[int] = field(default_factory=list)
    """+1 where the buyer was the aggressor, else -1."""
    quote_times: list[int] = field(default_factory=list)
    bids: list[int] = field(default_factory=list)
    asks: list[int] = field(default_factory=list)
    depth: list[float] = field(default_factory=lambda: [0.0] * LEVELS)
    """Quantity by level from the best, added up over ``book_sides`` sides of snapshots."""
    book_sides: int = 0
    order_messages: int = 0
    """Orders placed and cancelled."""

    def tick(self) -> int:
        """The largest price step that all quotes are multiples of."""
        return math.gcd(*self.bids, *self.asks)


def read(events: Iterable[tuple[int, bytes]]) -> dict[str, Columns]:
    """Columns by symbol of ``(time in µs, frame)`` in time order; one-sided quotes are left out."""
    markets: dict[str, Columns] = {}
    for time_us, frame in events:
        message = orjson.loads(frame)
        kind, data = message["event_type"], message["data"]
        symbol = data["symbol"]
        columns = markets.get(symbol)
        if columns is None:
            columns = markets[symbol] = Columns()
        if kind == "TradeExecuted":
            columns.trade_times.append(time_us)
            columns.trade_prices.append(round(data["price"] * UNITS))
            columns.trade_signs.append(1 if data["is_aggressive_buy"] else -1)
        elif kind == "QuoteUpdate":
            if data["best_bid"] is not None and data["best_ask"] is not None:
                columns.quote_times.append(time_us)
                columns.bids.append(round(data["best_bid"] * UNITS))
                columns.asks.append(round(data["best_ask"] * UNITS))
        elif kind == "OrderBookSnapshot":
            for side in (data["bids"], data["asks"]):
                columns.book_sides += 1
                for level, entry in enumerate(side[:LEVELS]):
                    columns.depth[level] += entry["quantity"]
        elif kind in ("OrderPlaced", "OrderCancelled"):
            columns.order_messages += 1
    return markets


# --- the formulas


def autocorrelation(values: Sequence[float], lag: int) -> float:
    """Σ (x_t - x̄)(x_{t+lag} - x̄) / Σ (x_t - x̄)²: the usual estimator (Box & Jenkins 1970).

    Raises:
        ValueError: no more values than the lag, or all the same.
    """
    mean = fmean(values)
    centred = [value - mean for value in values]
    total = sum(value * value for value in centred)
    if not 0 < lag < len(values) or total == 0:
        raise ValueError(f"no autocorrelation at lag {lag} of {len(values)} values: more that differ are needed")
    return sum(a * b for a, b in zip(centred, centred[lag:], strict=False)) / total


def excess_kurtosis(values: Sequence[float]) -> float:
    """m4 / m2² - 3 with central moments; 0 for a normal, 3 for a Laplace distribution.

    Raises:
        ValueError: no values, or all the same.
    """
    if len(set(values)) < 2:
        raise ValueError("no kurtosis of values that do not differ")
    mean = fmean(values)
    second = fmean((value - mean) ** 2 for value in values)
    return fmean((value - mean) ** 4 for value in values) / second**2 - 3


def fano_factor(counts: Sequence[int]) -> float:
    """Variance / mean of counts in windows of equal length (Fano 1947); 1 for a Poisson process.

    Raises:
        ValueError: nothing was counted.
    """
    mean = fmean(counts)
    if mean == 0:
        raise ValueError("no Fano factor of windows without a single event")
    return fmean((count - mean) ** 2 for count in counts) / mean


def window_counts(times: Sequence[int], window_us: int = WINDOW_US) -> list[int]:
    """How many of the sorted ``times`` fall into each whole window from the first time on."""
    edges = range(times[0], times[-1] + 1, window_us)
    places = [bisect_left(times, edge) for edge in edges]
    return [later - earlier for earlier, later in pairwise(places)]


def mid_returns(columns: Columns, window_us: int = WINDOW_US) -> list[float]:
    """Log returns of the middle of the best prices, looked at once a window. Middles, because the prices of
    trades jump between bid and ask (the bounce of Roll 1984)."""
    mids = []
    for edge in range(columns.quote_times[0], columns.quote_times[-1] + 1, window_us):
        quote = bisect_right(columns.quote_times, edge) - 1
        mids.append(columns.bids[quote] + columns.asks[quote])
    return [math.log(later / earlier) for earlier, later in pairwise(mids)]


def depth_profile(columns: Columns) -> list[float]:
    """Mean quantity by level from the best, as shares of all levels' (sum 1); empty without a book."""
    total = sum(columns.depth)
    return [quantity / total for quantity in columns.depth] if total else []


# --- the scorecard


def _sign_memory(lag: int) -> Callable[[Columns], float | None]:
    def measure(columns: Columns) -> float | None:
        return autocorrelation(columns.trade_signs, lag) if _enough_trades(columns) else None

    return measure


def _of_returns(formula: Callable[[list[float]], float]) -> Callable[[Columns], float | None]:
    def measure(columns: Columns) -> float | None:
        returns = mid_returns(columns) if columns.quote_times else []
        return formula(returns) if len(returns) >= MIN_WINDOWS else None

    return measure


def _enough_trades(columns: Columns) -> bool:
    return len(columns.trade_signs) >= MIN_TRADES and len(set(columns.trade_signs)) == 2


def _fano(columns: Columns) -> float | None:
    counts = window_counts(columns.trade_times) if columns.trade_times else []
    return fano_factor(counts) if len(counts) >= MIN_WINDOWS else None


def _spread(columns: Columns) -> float | None:
    if len(columns.bids) < 2:
        return None
    tick = columns.tick()
    return median((ask - bid) / tick for bid, ask in zip(columns.bids, columns.asks, strict=True))


def _best_share(columns: Columns) -> float | None:
    profile = depth_profile(columns)
    return profile[0] if profile else None


def _per_trade(count: Callable[[Columns], int]) -> Callable[[Columns], float | None]:
    def measure(columns: Columns) -> float | None:
        trades = len(columns.trade_signs)
        return count(columns) / trades if trades >= MIN_TRADES and count(columns) else None

    return measure


def _volatility_clustering(returns: list[float]) -> float:
    sizes = [abs(value) for value in returns]
    return fmean(autocorrelation(sizes, lag) for lag in range(1, 11))


def _memory_of_returns(returns: list[float]) -> float:
    return fmean(autocorrelation(returns, lag) for lag in range(2, 6))


@dataclass(frozen=True)
class Statistic:
    """One line of the scorecard.

    Attributes:
        name: what is measured, with its unit.
        low, high: the range that recorded markets have.
        slack: how far beside it still counts as near.
        measure: the value of one symbol; None where it has too few events.
    """

    name: str
    low: float
    high: float
    slack: float
    measure: Callable[[Columns], float | None]

    def verdict(self, value: float) -> str:
        """inside, near or outside the recorded range."""
        if self.low <= value <= self.high:
            return "inside"
        return "near" if self.low - self.slack <= value <= self.high + self.slack else "outside"


STATISTICS = (
    # Lillo & Farmer 2004 (arXiv cond-mat/0311053): the sign of orders has a long memory.
    Statistic("autocorrelation of trade signs, lag 1", 0.78, 0.86, 0.05, _sign_memory(1)),
    Statistic("autocorrelation of trade signs, lag 10", 0.28, 0.60, 0.10, _sign_memory(10)),
    Statistic("excess kurtosis of 1 s returns", 4, 27, 4, _of_returns(excess_kurtosis)),
    Statistic("Fano factor of trades in 1 s", 21, 388, 7, _fano),
    Statistic("median spread, ticks", 1, 1, 1, _spread),
    # Cont 2001, "Empirical properties of asset returns": positive, decaying slowly. The mean over lags 1 to 10.
    Statistic("autocorrelation of |1 s returns|, lags 1-10", 0.0, 0.3, 0.05, _of_returns(_volatility_clustering)),
    # Cont 2001: none; within the sampling error of a few minutes.
    Statistic(
        "autocorrelation of 1 s returns, lag 1", -0.1, 0.1, 0.1, _of_returns(lambda r: autocorrelation(r, 1))
    ),
    Statistic("autocorrelation of 1 s returns, lags 2-5", -0.1, 0.1, 0.1, _of_returns(_memory_of_returns)),
    # These three ranges are the captures' own values and half as much or twice as much.
    Statistic("share of 10 levels' depth at the best", 0.25, 0.99, 0.13, _best_share),
    Statistic("changes of the best quote per trade", 1.5, 6.2, 1.0, _per_trade(lambda c: len(c.quote_times))),
    Statistic("order messages per trade", 10.4, 41.6, 5.0, _per_trade(lambda c: c.order_messages)),
)
