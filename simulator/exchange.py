"""One trading session: agents wake, orders meet in the books, events come out.

In: the market's configuration, a seed, a start time. Out: ``events()``, the session's frames in sequence
order, each with its event time. Deterministic: the same configuration, seed, start time, activity and halt
scale give the same bytes; no clock and no random generator is read that was not passed in. Event times never
go backwards.

A discrete-event simulation: a heap of (time, tie-breaker, action); an action may print events and plan
further actions. Nothing is kept on disk: after a crash a new session starts, with new ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from heapq import heappop
from random import Random

from simulator.agents import Agent
from simulator.bands import PriceBands
from simulator.draws import exponential
from simulator.frames import FrameWriter
from simulator.fundamental import TRADING_SECONDS_A_YEAR, Attention, Fundamental
from simulator.halts import CircuitBreaker
from simulator.listing import Listing
from simulator.market import MarketConfig, SymbolConfig
from simulator.matching import MatchingEngine, Phase
from simulator.strategies import KINDS

NAME = "TICKHOUSE"


class Exchange:
    """A simulated session; satisfies :class:`simulator.publisher.Feed`.

    Args:
        market: symbols, agents, intervals, the phases of the day.
        seed: of the session's random generator, together with the start time.
        start_us: time of the first event, microseconds since the epoch, UTC.
        activity: multiplies how often agents act.
        halt_scale: multiplies how long halts, limit states and pauses last.
        duration_us: the session ends this long after its start; None: never.
        initial_ticks: opening and reference prices, where they are not the configuration's; values still revert
            to the configuration's.
    """

    exchange = NAME

    def __init__(
        self,
        market: MarketConfig,
        *,
        seed: int,
        start_us: int,
        activity: float = 1.0,
        halt_scale: float = 1.0,
        duration_us: int | None = None,
        initial_ticks: Mapping[str, int] | None = None,
    ) -> None:
        if activity <= 0:
            raise ValueError(f"activity {activity} must be above zero")
        self.session_id = f"tickhouse-{start_us}-{seed}"
        self.symbols = [symbol.ticker for symbol in market.symbols]
        # A text seed is hashed the same way by every Python 3; a restart with the same seed is another market day.
        self.rng = Random(f"{seed}:{start_us}")
        self._market = market
        self._halt_scale = halt_scale
        self._initial_ticks = initial_ticks or {}
        self._start_us = start_us
        self._end_us = None if duration_us is None else start_us + duration_us
        self._opens_us = start_us
        """When the next pre-open begins, while the market is closed."""
        self.listings = [self._list(symbol) for symbol in market.symbols]
        self.engine = MatchingEngine(
            FrameWriter(self.session_id),
            self.listings,
            Attention(self.listings, start_us),
            self.rng,
            now_us=start_us,
            explain_rate=market.simulation.explain_rate,
            snapshot_levels=market.simulation.snapshot_levels,
        )
        self.agents = [
            kind(number, getattr(market.waits, kind.kind) / activity)
            for kind in KINDS
            for number in range(getattr(market.agents, kind.kind))
        ]

    def _list(self, symbol: SymbolConfig) -> Listing:
        value, percent = self._market.value, self._market.halts.price_bands_percent
        price = self._initial_ticks.get(symbol.ticker, symbol.initial_ticks)
        return Listing(
            symbol.ticker,
            price,
            CircuitBreaker(price, self._halt_scale),
            Fundamental(
                symbol.initial_ticks,
                start=price,
                sigma=symbol.volatility * value.volatility_scale / TRADING_SECONDS_A_YEAR**0.5,
                half_life=value.half_life_minutes * 60,
                news_rate=value.news_per_hour / 3600,
                news_move=value.news_move * symbol.volatility,
                calm=value.calm,
                burst_rate=1 / value.burst_interval_seconds,
                burst_half_life=value.burst_half_life_seconds,
                rng=self.rng,
                now_us=self._start_us,
            ),
            PriceBands(price, percent, self._halt_scale) if percent else None,
        )

    @property
    def now_us(self) -> int:
        return self.engine.now_us

    def events(self) -> Iterator[tuple[int, bytes]]:
        """(event time in µs, frame) in sequence order, the first at the start time. To be called once."""
        self._open()
        engine, end_us = self.engine, self._end_us
        plans, frames, pending = engine.plans, engine.frames, engine.frames.pending
        while plans:
            time_us, _, action = heappop(plans)
            if end_us is not None and time_us >= end_us:
                return
            engine.now_us = time_us
            frames.at(time_us)
            action()
            for frame in pending:
                yield time_us, frame
            pending.clear()

    def _open(self) -> None:
        """Plan the day, every symbol's clockwork and every agent's first decision."""
        engine, simulation = self.engine, self._market.simulation
        engine.plan(self._start_us, self._pre_open)
        for index, listing in enumerate(self.listings):
            engine.plan(self._start_us, partial(engine.print_stats, listing))
            for interval_ms, prints in (
                (simulation.snapshot_interval_ms, engine.print_snapshot),
                (simulation.stats_interval_ms, engine.print_stats),
            ):
                # Staggered over the interval, so that no burst comes once a second.
                interval_us = interval_ms * 1000
                first = self._start_us + interval_us * (index + 1) // len(self.listings)
                self._repeat(first, interval_us, partial(prints, listing))
        for agent in self.agents:
            engine.plan(self._start_us + 1 + int(self.rng.random() * agent.wait * 1e6), self._waker(agent))

    def _repeat(self, time_us: int, interval_us: int, prints: Callable[[], None]) -> None:
        def tick() -> None:
            prints()
            self.engine.plan(self.engine.now_us + interval_us, tick)

        self.engine.plan(time_us, tick)

    def _waker(self, agent: Agent) -> Callable[[], None]:
        engine, rng, plan, act = self.engine, self.rng, self.engine.plan, agent.act

        def wake() -> None:
            if engine.phase is Phase.CLOSED:
                mean, from_us = agent.wait, self._opens_us
            else:
                mean, from_us = act(engine), engine.now_us
            plan(from_us + 1 + int(exponential(rng, mean) * 1e6), wake)

        return wake

    # --- the day

    def _pre_open(self) -> None:
        self.engine.enter(Phase.PRE_OPEN)
        self._next_phase(self._market.sessions.pre_open_seconds, self._open_trading)

    def _open_trading(self) -> None:
        self.engine.enter(Phase.CONTINUOUS)
        if self._market.sessions.trading_seconds:
            self._next_phase(self._market.sessions.trading_seconds, self._call_to_close)

    def _call_to_close(self) -> None:
        self.engine.enter(Phase.CLOSING_CALL)
        self._next_phase(self._market.sessions.closing_call_seconds, self._close)

    def _close(self) -> None:
        self.engine.enter(Phase.CLOSED)
        for listing in self.listings:
            self.engine.print_stats(listing)
        self._opens_us = self._next_phase(self._market.sessions.closed_seconds, self._pre_open)

    def _next_phase(self, seconds: float, begin: Callable[[], None]) -> int:
        time_us = self.engine.now_us + round(seconds * 1e6)
        self.engine.plan(time_us, begin)
        return time_us
