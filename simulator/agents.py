"""The six kinds of agents: small strategies that look at one symbol and place or cancel orders.

In: a :class:`Venue` (what an agent may see and do) and its seeded generator. Out: orders. Each ``act`` is one
decision; what it returns is the mean time until the next. Strategies reason in floats; every price and
quantity they send is an integer number of ticks or lots.

Sizes and the mix of market and limit orders are those of a small retail market: retail 10–500 shares, 70 %
market; institutions slice 1,000–10,000, 90 % limit; makers quote 100–1,000 a side; high-frequency traders
50–500, limit only; noise 10–200, half and half; informed 200–2,000, 80 % limit.
"""

from __future__ import annotations

import math
from collections import deque
from random import Random
from typing import Protocol

from simulator.book import Order
from simulator.frames import dollars
from simulator.listing import Listing


class Venue(Protocol):
    """The exchange as an agent meets it."""

    rng: Random
    listings: list[Listing]
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
    ) -> Order | None:
        """Place an order (market when ``price`` is None); None when it was rejected."""

    def cancel(self, listing: Listing, order: Order) -> None: ...

    def explain(self, agent: Agent, listing: Listing, action: str, factors: list[str]) -> None: ...


def draw_size(rng: Random, low: int, high: int) -> int:
    """Log-uniform between ``low`` and ``high``, whole tens: small orders are the common ones."""
    return max(low, int(low * (high / low) ** rng.random()) // 10 * 10)


class Agent:
    """One participant. ``positions`` maps symbols to shares held (negative: short), kept by the exchange."""

    kind = ""
    agent_type = "RetailTrader"
    prefix = ""

    def __init__(self, number: int, wait: float) -> None:
        self.agent_id = f"{self.prefix}-{number:04d}"
        self.wait = wait
        """Mean seconds between decisions."""
        self.positions: dict[str, int] = {}

    def act(self, venue: Venue) -> float:
        """Take one decision; returns the mean wait in seconds until the next."""
        raise NotImplementedError

    def explain(self, venue: Venue, listing: Listing, action: str, *factors: str) -> None:
        """Print a share of the decisions as AgentAction."""
        if venue.rng.random() < venue.explain_rate:
            position = self.positions.get(listing.symbol, 0)
            venue.explain(
                self,
                listing,
                action,
                [f"current_price: {dollars(listing.last)}", f"position: {position}", *factors],
            )

    def trade(self, venue: Venue, listing: Listing, is_buy: bool, quantity: int, style: str) -> None:
        """A market order, if anybody stands on the other side."""
        opposite = listing.top.ask if is_buy else listing.top.bid
        if opposite is None and listing.halt is None:
            self.explain(venue, listing, "hold", "reason: no liquidity")
            return
        self.explain(venue, listing, f"{style}_market", f"side: {'Buy' if is_buy else 'Sell'}")
        venue.submit(self, listing, is_buy=is_buy, quantity=quantity)

    def bid_or_offer(
        self, venue: Venue, listing: Listing, is_buy: bool, quantity: int, price: float, seconds: float, style: str
    ) -> None:
        """A limit order near ``price``, good for about ``seconds``."""
        ticks = max(1, round(price))
        self.explain(
            venue, listing, f"{style}_limit", f"side: {'Buy' if is_buy else 'Sell'}", f"limit: {dollars(ticks)}"
        )
        lifetime = 1 + int(venue.rng.expovariate(1 / seconds) * 1e6)
        venue.submit(self, listing, is_buy=is_buy, quantity=quantity, price=ticks, lifetime_us=lifetime)


class RetailTrader(Agent):
    """Follows the recent direction a little; impatient."""

    kind = "retail_traders"
    prefix = "retail"

    def act(self, venue: Venue) -> float:
        rng = venue.rng
        listing = rng.choice(venue.listings)
        drift = (listing.last - listing.average) / listing.average
        is_buy = rng.random() < 0.5 + max(-0.1, min(0.1, drift * 40))
        quantity = draw_size(rng, 10, 500)
        if rng.random() < 0.7:
            self.trade(venue, listing, is_buy, quantity, "momentum")
        else:
            away = listing.mid() * rng.expovariate(1 / 0.0006)
            price = listing.mid() + (-away if is_buy else away)
            self.bid_or_offer(venue, listing, is_buy, quantity, price, 45.0, "momentum")
        return self.wait


class NoiseTrader(Agent):
    """Trades for reasons of its own."""

    kind = "noise_traders"
    prefix = "noise"

    def act(self, venue: Venue) -> float:
        rng = venue.rng
        listing = rng.choice(venue.listings)
        is_buy = rng.random() < 0.5
        quantity = draw_size(rng, 10, 200)
        if rng.random() < 0.5:
            self.trade(venue, listing, is_buy, quantity, "noise")
        else:
            price = listing.mid() * (1 + rng.gauss(-0.0003 if is_buy else 0.0003, 0.0004))
            self.bid_or_offer(venue, listing, is_buy, quantity, price, 30.0, "noise")
        return self.wait


class Institution(Agent):
    """Works one large order at a time in ten or so slices of equal size (TWAP)."""

    kind = "institutional_investors"
    agent_type = "InstitutionalInvestor"
    prefix = "inst"

    def __init__(self, number: int, wait: float) -> None:
        super().__init__(number, wait)
        self._listing: Listing | None = None
        self._is_buy = False
        self._left = 0
        self._slice = 0

    def act(self, venue: Venue) -> float:
        rng = venue.rng
        if self._listing is None or self._left <= 0:
            self._listing = rng.choice(venue.listings)
            self._is_buy = rng.random() < 0.5
            self._left = draw_size(rng, 1_000, 10_000)
            self._slice = max(100, self._left // 10)
        listing = self._listing
        quantity = min(self._slice, self._left)
        self._left -= quantity
        bid, _, ask, _ = listing.top
        if rng.random() < 0.1:
            self.trade(venue, listing, self._is_buy, quantity, "twap")
        else:
            # One slice in three pays the spread to get done; the others join the best price.
            near, far = (bid, ask) if self._is_buy else (ask, bid)
            price = far if rng.random() < 0.35 else near
            self.bid_or_offer(
                venue, listing, self._is_buy, quantity, listing.mid() if price is None else price, 20.0, "twap"
            )
        return self.wait


class InformedTrader(Agent):
    """Knows the value: when the market is wrong, trades towards it in a burst; else waits."""

    kind = "informed_traders"
    prefix = "informed"
    EDGE = 0.0012
    """Relative mispricing worth acting on; above the makers' usual half spread."""

    def __init__(self, number: int, wait: float) -> None:
        super().__init__(number, wait)
        self._listing: Listing | None = None
        self._shots = 0

    def act(self, venue: Venue) -> float:
        rng = venue.rng
        if self._shots <= 0 or self._listing is None:
            self._listing = rng.choice(venue.listings)
            self._shots = 1 + int(rng.random() * 5)
        listing = self._listing
        value = listing.fundamental.ticks(venue.now_us)
        edge = value / listing.mid() - 1
        if abs(edge) < self.EDGE or listing.halt is not None:
            self._shots = 0
            return self.wait
        self._shots -= 1
        is_buy = edge > 0
        quantity = draw_size(rng, 200, 2_000)
        if rng.random() < 0.2:
            self.trade(venue, listing, is_buy, quantity, "informed")
        else:
            # Pays up to half of the way to the value.
            self.bid_or_offer(venue, listing, is_buy, quantity, (listing.mid() + value) / 2, 3.0, "informed")
        return self.wait / 4 if self._shots else self.wait


class MarketMaker(Agent):
    """Keeps a bid and an offer in every symbol, one symbol a decision, leaning against its inventory."""

    kind = "market_makers"
    agent_type = "MarketMaker"
    prefix = "mm"
    LIMIT = 5_000
    """Shares at which quotes lean by a whole spread."""

    def __init__(self, number: int, wait: float) -> None:
        super().__init__(number, wait)
        self._next = number * 7
        # Makers differ: the tight ones trade, the wide ones give the book its depth.
        self._half_spread = (1.5 + 0.9 * (number % 10)) / 10_000
        self._quotes: dict[tuple[str, bool], Order] = {}

    def act(self, venue: Venue) -> float:
        listing = venue.listings[self._next % len(venue.listings)]
        self._next += 1
        if listing.halt is not None:
            return self.wait
        value = listing.fundamental.ticks(venue.now_us)
        mid = listing.mid()
        fair = mid + 0.5 * (value - mid)
        half = max(0.5, fair * self._half_spread)
        position = self.positions.get(listing.symbol, 0)
        lean = -2 * half * max(-1.0, min(1.0, position / self.LIMIT))
        changed = self._quote(venue, listing, True, max(1, math.floor(fair - half + lean)), half)
        changed += self._quote(venue, listing, False, max(2, math.ceil(fair + half + lean)), half)
        if changed:
            self.explain(venue, listing, "requote", f"fair_value: {dollars(round(fair))}")
        return self.wait

    def _quote(self, venue: Venue, listing: Listing, is_buy: bool, price: int, half: float) -> int:
        """Replace one quote when it is gone, thin, or more than half of its half spread away; 1 when replaced."""
        key = (listing.symbol, is_buy)
        quote = self._quotes.get(key)
        if quote is not None and quote.resting and quote.price is not None:
            if abs(quote.price - price) <= max(1.0, half / 2) and quote.quantity >= 50:
                return 0
            venue.cancel(listing, quote)
        order = venue.submit(self, listing, is_buy=is_buy, quantity=draw_size(venue.rng, 100, 1_000), price=price)
        if order is None:
            self._quotes.pop(key, None)
        else:
            self._quotes[key] = order
        return 1


class HighFrequencyTrader(Agent):
    """Steps in front of the best price where there is room, on the heavier side of the book; cancels a lot."""

    kind = "hft_traders"
    agent_type = "HighFrequencyTrader"
    prefix = "hft"
    KEEP = 4
    """Orders left standing before the oldest is cancelled."""

    def __init__(self, number: int, wait: float) -> None:
        super().__init__(number, wait)
        self._orders: deque[tuple[Listing, Order]] = deque()

    def act(self, venue: Venue) -> float:
        rng = venue.rng
        while self._orders and not self._orders[0][1].resting:
            self._orders.popleft()
        if len(self._orders) >= self.KEEP:
            listing, order = self._orders.popleft()
            self.explain(venue, listing, "cancel_stale", f"open_orders: {len(self._orders)}")
            venue.cancel(listing, order)
            return self.wait
        listing = rng.choice(venue.listings)
        bid, bid_size, ask, ask_size = listing.top
        if listing.halt is not None or bid is None or ask is None:
            return self.wait
        imbalance = (bid_size - ask_size) / (bid_size + ask_size)
        is_buy = rng.random() < 0.5 + imbalance / 4
        room = 1 if ask - bid > 1 else 0
        price = bid + room if is_buy else ask - room
        self.explain(venue, listing, "front_limit", f"imbalance: {imbalance:.2f}", f"spread: {dollars(ask - bid)}")
        sent = venue.submit(self, listing, is_buy=is_buy, quantity=draw_size(rng, 50, 500), price=price)
        if sent is not None and sent.resting:
            self._orders.append((listing, sent))
        return self.wait


KINDS: tuple[type[Agent], ...] = (
    RetailTrader,
    Institution,
    MarketMaker,
    HighFrequencyTrader,
    NoiseTrader,
    InformedTrader,
)
