"""What an agent is, and the exchange as it meets it.

In: a :class:`Venue` (what an agent may see and do) with its seeded generator. Out: orders. Each ``act`` is one
decision; what it returns is the mean time until the next. Agents reason in floats; every price and quantity they
send is an integer number of ticks or lots. The six kinds are in :mod:`simulator.strategies`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from random import Random
from typing import Protocol

from simulator.book import Order, SelfTrade, TimeInForce
from simulator.draws import exponential
from simulator.frames import dollars
from simulator.fundamental import Attention
from simulator.listing import Listing


class Venue(Protocol):
    """The exchange as an agent meets it."""

    rng: Random
    listings: list[Listing]
    attention: Attention
    explain_rate: float

    @property
    def now_us(self) -> int: ...

    def submit(
        self,
        agent: Agent,
        listing: Listing,
        *,
        is_buy: bool,
        quantity: int,
        price: int | None = None,
        lifetime_us: int = 0,
        tif: TimeInForce = TimeInForce.GTC,
        stp: SelfTrade = SelfTrade.DECREMENT,
    ) -> Order | None:
        """Place an order (market when ``price`` is None); None when it was rejected: halted or closed.

        ``order.resting`` tells whether some of it stands in the book, ``order.quantity`` how much is open.
        """

    def cancel(self, listing: Listing, order: Order) -> None:
        """Nothing happens when it is gone already."""

    def replace(self, listing: Listing, order: Order, *, price: int, quantity: int) -> Order | None:
        """Give a resting order another price or open quantity.

        A smaller quantity at the same price keeps its place and is the same order; anything else is a new order
        behind the others, which may trade at once. None: nothing was done, because it is gone, or the symbol is
        halted or closed.
        """

    def explain(self, agent: Agent, listing: Listing, action: str, factors: list[str]) -> None: ...


class Agent(ABC):
    """One participant. ``positions`` maps symbols to shares held (negative: short), kept by the exchange."""

    kind = ""
    agent_type = "RetailTrader"
    prefix = ""

    def __init__(self, number: int, wait: float) -> None:
        self.agent_id = f"{self.prefix}-{number:04d}"
        self.wait = wait
        """Mean seconds between decisions."""
        self.positions: dict[str, int] = {}
        self.cash = 0
        """Ticks times lots: what was sold less what was bought. Kept by the exchange."""

    @abstractmethod
    def act(self, venue: Venue) -> float:
        """Take one decision; returns the mean wait in seconds until the next."""

    def explain(self, venue: Venue, listing: Listing, action: str, factor: str) -> None:
        """Print a share of the decisions as AgentAction."""
        if venue.rng.random() < venue.explain_rate:
            position = self.positions.get(listing.symbol, 0)
            factors = [f"current_price: {dollars(listing.last)}", f"position: {position}", factor]
            venue.explain(self, listing, action, factors)

    def trade(self, venue: Venue, listing: Listing, is_buy: bool, quantity: int, style: str) -> None:
        """A market order, if anybody stands on the other side."""
        opposite = listing.top.ask if is_buy else listing.top.bid
        if opposite is None and listing.halt is None:
            self.explain(venue, listing, "hold", "reason: no liquidity")
            return
        self.explain(venue, listing, f"{style}_market", "side: Buy" if is_buy else "side: Sell")
        venue.submit(self, listing, is_buy=is_buy, quantity=quantity)

    def take(self, venue: Venue, listing: Listing, is_buy: bool, quantity: int, limit: int, style: str) -> None:
        """All there is up to ``limit``, at once (IOC)."""
        self.explain(venue, listing, f"{style}_take", "side: Buy" if is_buy else "side: Sell")
        venue.submit(self, listing, is_buy=is_buy, quantity=quantity, price=max(1, limit), tif=TimeInForce.IOC)

    def join(
        self,
        venue: Venue,
        listing: Listing,
        is_buy: bool,
        quantity: int,
        style: str,
        *,
        behind: float,
        seconds: float,
    ) -> Order | None:
        """A limit order at the best price of its side or ``behind`` it, good for ``seconds``.

        Both are means of exponential draws, ``behind`` in ticks.
        """
        bid, _, ask, _ = listing.top
        away = int(exponential(venue.rng, behind))
        if is_buy:
            price = max(1, (math.floor(listing.fundamental.value) if bid is None else bid) - away)
        else:
            price = (math.ceil(listing.fundamental.value) if ask is None else ask) + away
        self.explain(venue, listing, f"{style}_limit", "side: Buy" if is_buy else "side: Sell")
        lifetime = 1 + int(exponential(venue.rng, seconds) * 1e6)
        return venue.submit(self, listing, is_buy=is_buy, quantity=quantity, price=price, lifetime_us=lifetime)
