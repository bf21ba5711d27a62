"""One trading session: agents wake, orders meet in the books, events come out.

In: the market's configuration, a seed, a start time. Out: ``events()``, the session's frames in sequence
order, each with its event time. Deterministic: the same configuration, seed, start time, activity and halt
scale give the same bytes; no clock and no random generator is read that was not passed in. Event times never
go backwards.

A discrete-event simulation: a heap of (time, tie-breaker, action); an action may print events and plan
further actions. Nothing is kept on disk: after a crash a new session starts, with new ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from random import Random

from simulator.agents import KINDS, Agent
from simulator.book import Order
from simulator.frames import FrameWriter
from simulator.fundamental import TRADING_SECONDS_A_YEAR, Fundamental
from simulator.halts import CircuitBreaker, Halt
from simulator.listing import Listing
from simulator.market import MarketConfig, SymbolConfig

NAME = "TICKHOUSE"


class Exchange:
    """A simulated session; satisfies :class:`simulator.server.Feed` and :class:`simulator.agents.Venue`.

    Args:
        market: symbols, agents, intervals.
        seed: of the session's random generator, together with the start time.
        start_us: time of the first event, microseconds since the epoch, UTC.
        activity: multiplies how often agents act.
        halt_scale: multiplies how long halts last.
        duration_us: the session ends this long after its start; None: never.
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
    ) -> None:
        if activity <= 0:
            raise ValueError(f"activity {activity} must be above zero")
        self.session_id = f"tickhouse-{start_us}-{seed}"
        self.symbols = [symbol.ticker for symbol in market.symbols]
        # A text seed is hashed the same way by every Python 3; a restart with the same seed is another market day.
        self.rng = Random(f"{seed}:{start_us}")
        self.explain_rate = market.simulation.explain_rate
        self._market = market
        self._activity = activity
        self._now_us = self._start_us = start_us
        self._end_us = None if duration_us is None else start_us + duration_us
        self._frames = FrameWriter(self.session_id)
        self._orders = self._trades = 0
        self._plans: list[tuple[int, int, Callable[[], None]]] = []
        self._planned = 0
        self.listings = [self._list(symbol, halt_scale) for symbol in market.symbols]
        self._agents = {agent.agent_id: agent for agent in self._hire()}

    def _list(self, symbol: SymbolConfig, halt_scale: float) -> Listing:
        value = self._market.value
        price = symbol.initial_ticks
        return Listing(
            symbol.ticker,
            price,
            CircuitBreaker(price, halt_scale),
            Fundamental(
                price,
                sigma=symbol.volatility * value.volatility_scale / TRADING_SECONDS_A_YEAR**0.5,
                half_life=value.half_life_minutes * 60,
                news_rate=value.news_per_hour / 3600,
                news_move=value.news_move * symbol.volatility,
                rng=self.rng,
                now_us=self._start_us,
            ),
        )

    def _hire(self) -> Iterator[Agent]:
        for kind in KINDS:
            wait = getattr(self._market.waits, kind.kind) / self._activity
            for number in range(getattr(self._market.agents, kind.kind)):
                yield kind(number, wait)

    @property
    def now_us(self) -> int:
        return self._now_us

    def events(self) -> Iterator[tuple[int, bytes]]:
        """(event time in µs, frame) in sequence order, the first at the start time. To be called once."""
        self._open()
        plans, pending = self._plans, self._frames.pending
        while plans:
            time_us, _, action = heappop(plans)
            if self._end_us is not None and time_us >= self._end_us:
                return
            self._now_us = time_us
            self._frames.at(time_us)
            action()
            for frame in pending:
                yield time_us, frame
            pending.clear()

    # --- planning

    def _plan(self, time_us: int, action: Callable[[], None]) -> None:
        self._planned += 1
        heappush(self._plans, (time_us, self._planned, action))

    def _open(self) -> None:
        """Plan the opening print of every symbol, its clockwork, and every agent's first decision."""
        simulation = self._market.simulation
        for index, listing in enumerate(self.listings):
            self._plan(self._start_us, lambda listing=listing: self._opening_print(listing))  # type: ignore[misc]
            for interval_ms, prints in (
                (simulation.snapshot_interval_ms, self._print_snapshot),
                (simulation.stats_interval_ms, self._print_stats),
            ):
                # Staggered over the interval, so that no burst comes once a second.
                interval_us = interval_ms * 1000
                first = self._start_us + interval_us * (index + 1) // len(self.listings)
                self._repeat(first, interval_us, prints, listing)
        for agent in self._agents.values():
            self._plan(self._start_us + 1 + int(self.rng.random() * agent.wait * 1e6), self._waker(agent))

    def _opening_print(self, listing: Listing) -> None:
        self._print_snapshot(listing)
        self._print_stats(listing)

    def _repeat(self, time_us: int, interval_us: int, prints: Callable[[Listing], None], listing: Listing) -> None:
        def tick() -> None:
            prints(listing)
            self._plan(self._now_us + interval_us, tick)

        self._plan(time_us, tick)

    def _waker(self, agent: Agent) -> Callable[[], None]:
        expovariate = self.rng.expovariate

        def wake() -> None:
            mean = agent.act(self)
            self._plan(self._now_us + 1 + int(expovariate(1 / mean) * 1e6), wake)

        return wake

    # --- what agents can do

    def submit(
        self,
        agent: Agent,
        listing: Listing,
        *,
        is_buy: bool,
        quantity: int,
        price: int | None = None,
        lifetime_us: int = 0,
    ) -> Order | None:
        """Place and match one order. None: rejected, because the symbol is halted.

        What a market order cannot fill lapses. A limit order with a lifetime is cancelled as Expired after it.
        """
        if listing.halt is not None:
            side = "Buy" if is_buy else "Sell"
            self.explain(agent, listing, "order_rejected", ["reason: TradingHalt", f"side: {side}"])
            return None
        self._orders += 1
        order_id = f"o-{self._frames.prefix}-{self._orders}"
        order = Order(order_id, agent.agent_id, is_buy, price, quantity)
        self._frames.order_placed(listing.symbol, order, agent.agent_type)
        self._match(listing, order)
        if order.quantity and price is not None and listing.halt is None:
            listing.book.rest(order)
            if lifetime_us:
                self._plan(self._now_us + lifetime_us, lambda: self._expire(listing, order))
        self._print_quote(listing)
        return order

    def cancel(self, listing: Listing, order: Order, reason: str = "AgentCancelled") -> None:
        """Take a resting order out; nothing happens when it is gone already. Allowed during a halt."""
        if listing.book.cancel(order):
            self._frames.order_cancelled(listing.symbol, order, reason)
            self._print_quote(listing)

    def explain(self, agent: Agent, listing: Listing, action: str, factors: list[str]) -> None:
        """Print one AgentAction."""
        self._frames.agent_action(listing.symbol, agent.agent_id, agent.agent_type, action, factors)

    # --- the market's own steps

    def _match(self, listing: Listing, taker: Order) -> None:
        while (fill := listing.book.match(taker)) is not None:
            maker, price, quantity = fill
            if not quantity:
                self._frames.order_cancelled(listing.symbol, maker, "SelfTradePrevention")
                continue
            self._trades += 1
            self._frames.trade(
                listing.symbol, f"t-{self._frames.prefix}-{self._trades}", price, quantity, taker, maker
            )
            listing.record(price, quantity)
            self._move_position(listing.symbol, taker, quantity)
            self._move_position(listing.symbol, maker, quantity)
            halt = listing.breaker.check(price)
            if halt is not None:
                self._halt(listing, halt, taker)
                return

    def _move_position(self, symbol: str, order: Order, quantity: int) -> None:
        positions = self._agents[order.agent_id].positions
        positions[symbol] = positions.get(symbol, 0) + (quantity if order.is_buy else -quantity)

    def _expire(self, listing: Listing, order: Order) -> None:
        self.cancel(listing, order, "Expired")

    def _halt(self, listing: Listing, halt: Halt, taker: Order) -> None:
        """Level 1 stops new orders; 2 also cancels the resting ones; 3 also prints the cleared book at once.

        What is left of the order that tripped it is cancelled at every level.
        """
        listing.halt = halt
        listing.halted_at_us = self._now_us
        self._frames.trading_halt(listing.symbol, halt)
        if taker.quantity and taker.price is not None:
            self._frames.order_cancelled(listing.symbol, taker, "TradingHalt")
        if halt.level >= 2:
            for order in listing.book.clear():
                self._frames.order_cancelled(listing.symbol, order, "TradingHalt")
        if halt.level >= 3:
            self._print_quote(listing)
            self._print_snapshot(listing)
        self._plan(self._now_us + halt.seconds * 1_000_000, lambda: self._resume(listing))

    def _resume(self, listing: Listing) -> None:
        halt = listing.halt
        if halt is None:
            raise RuntimeError(f"{listing.symbol} resumes without a halt")
        listing.halt = None
        self._frames.trading_resume(listing.symbol, listing.halted_at_us, halt)

    def _print_quote(self, listing: Listing) -> None:
        """The top of book, where it changed since it was last printed."""
        top = listing.book.top()
        if top != listing.top:
            listing.top = top
            self._frames.quote(listing.symbol, top)

    def _print_snapshot(self, listing: Listing) -> None:
        levels = self._market.simulation.snapshot_levels
        book = listing.book
        self._frames.snapshot(
            listing.symbol, book.depth(bids=True, levels=levels), book.depth(bids=False, levels=levels)
        )

    def _print_stats(self, listing: Listing) -> None:
        prices = (listing.open, listing.high, listing.low, listing.last)
        self._frames.stats(listing.symbol, prices, listing.volume, listing.trade_count, listing.vwap_units())
