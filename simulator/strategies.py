"""The six kinds of agents: small strategies that look at one symbol and place, replace or cancel orders.

In: the venue, its seeded generator, the value and activity of the symbols. Out: orders.

Sizes and the mix of market and limit orders are those of a small retail market: retail 10–500 shares, 70 %
market; institutions work orders of 1,000–10,000, 90 % limit; makers quote 100–1,000 a side; high-frequency
traders 50–500, limit only; noise 10–200, half and half; informed 200–2,000, 80 % limit.

What makes it look like a market: attention comes in bursts (:mod:`simulator.fundamental`), and large orders that
take many small ones at once, or are worked for a while, give trades of one sign in a row (Lillo, Mike & Farmer
2005, arXiv cond-mat/0412708).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from simulator.agents import Agent, Venue
from simulator.book import Order, TimeInForce
from simulator.draws import Sizes
from simulator.frames import dollars
from simulator.listing import Listing


class RetailTrader(Agent):
    """Follows the recent direction a little; impatient."""

    kind = "retail_traders"
    prefix = "retail"
    SIZES = Sizes(10, 500)

    def act(self, venue: Venue) -> float:
        rng = venue.rng
        listing = venue.attention.pick(rng, venue.now_us)
        drift = (listing.last - listing.average) / listing.average
        is_buy = rng.random() < 0.5 + max(-0.1, min(0.1, drift * 40))
        quantity = self.SIZES.draw(rng)
        if rng.random() < 0.7:
            self.trade(venue, listing, is_buy, quantity, "momentum")
        else:
            behind = 0.5 + 0.5 * listing.fundamental.scale
            self.join(venue, listing, is_buy, quantity, "momentum", behind=behind, seconds=45.0)
        return self.wait / venue.attention.level


class NoiseTrader(Agent):
    """Trades for reasons of its own, whatever the others look at."""

    kind = "noise_traders"
    prefix = "noise"
    SIZES = Sizes(10, 200)

    def act(self, venue: Venue) -> float:
        rng = venue.rng
        listing = venue.listings[int(rng.random() * len(venue.listings))]
        is_buy = rng.random() < 0.5
        quantity = self.SIZES.draw(rng)
        if rng.random() < 0.5:
            self.trade(venue, listing, is_buy, quantity, "noise")
        else:
            behind = 0.5 + 0.5 * listing.fundamental.scale
            self.join(venue, listing, is_buy, quantity, "noise", behind=behind, seconds=30.0)
        return self.wait


@dataclass(slots=True)
class Parent:
    """One large order being worked."""

    is_buy: bool
    quantity: int
    seconds: float
    """Horizon of the schedule."""
    begin: int
    """Position before it: what has been done is seen from the position."""
    seen_us: int
    progress: float = 0.0
    """Share of the quantity that the schedule wants done by ``seen_us``."""
    child: Order | None = None


class Institution(Agent):
    """Works some large orders, one a symbol, each over its horizon: by the clock (TWAP) or by the symbol's
    activity (VWAP).

    A slice joins the best price; what the schedule is behind by is taken from the other side.
    """

    kind = "institutional_investors"
    agent_type = "InstitutionalInvestor"
    prefix = "inst"
    ORDERS = 3
    """Worked at a time."""
    SIZES = Sizes(1_000, 10_000, exponent=1.5)
    """Power law, with the exponent of Lillo, Mike & Farmer 2005."""
    SECONDS = 8.0
    """Mean horizon."""
    SLICES = 4
    """A slice of the order behind the schedule is worth paying the spread for."""
    HOLDING = 100_000
    """Shares held at which the next order surely goes the other way."""

    def __init__(self, number: int, wait: float) -> None:
        super().__init__(number, wait)
        self._style = "vwap" if number % 2 else "twap"
        self._parents: deque[tuple[Listing, Parent]] = deque()

    def act(self, venue: Venue) -> float:
        if len(self._parents) < self.ORDERS:
            self._open(venue)
        if self._parents:
            listing, parent = self._parents[0]
            self._parents.rotate(-1)
            if listing.halt is not None:
                parent.seen_us = venue.now_us  # the schedule stands still
            elif not self._work(venue, listing, parent):
                self._parents.pop()
        return self.wait / venue.attention.level

    def _open(self, venue: Venue) -> None:
        rng = venue.rng
        listing = venue.attention.pick(rng, venue.now_us)
        if any(other is listing for other, _ in self._parents):
            return
        position = self.positions.get(listing.symbol, 0)
        is_buy = rng.random() < 0.5 - 0.5 * position / self.HOLDING
        seconds = self.SECONDS * (0.5 + rng.random())
        self._parents.append((listing, Parent(is_buy, self.SIZES.draw(rng), seconds, position, venue.now_us)))

    def _work(self, venue: Venue, listing: Listing, parent: Parent) -> bool:
        """One slice; False when the order is done."""
        is_buy, child = parent.is_buy, parent.child
        done = self.positions.get(listing.symbol, 0) - parent.begin
        left = parent.quantity - (done if is_buy else -done)
        if left <= 0:
            if child is not None:
                venue.cancel(listing, child)
            return False
        pace = listing.fundamental.activity if self._style == "vwap" else 1.0
        parent.progress = min(1.0, parent.progress + (venue.now_us - parent.seen_us) / 1e6 * pace / parent.seconds)
        parent.seen_us = venue.now_us
        behind = left - parent.quantity + int(parent.quantity * parent.progress)
        if behind * self.SLICES < parent.quantity and parent.progress < 1.0:
            if child is None or not child.resting:
                quantity = min(left, max(100, parent.quantity // 10))
                parent.child = self.join(venue, listing, is_buy, quantity, self._style, behind=0.5, seconds=20.0)
            return True
        if child is not None:
            venue.cancel(listing, child)
            parent.child = None
        best = listing.top.ask if is_buy else listing.top.bid
        quantity = min(left, max(behind, 10))
        if best is None or venue.rng.random() < 0.25:
            self.trade(venue, listing, is_buy, quantity, self._style)
        else:
            reach = 1 + int(listing.fundamental.scale)
            self.take(venue, listing, is_buy, quantity, best + reach if is_buy else best - reach, self._style)
        return True


class InformedTrader(Agent):
    """Knows the value: when the market is wrong, takes all that is wrongly priced, in a burst; else waits."""

    kind = "informed_traders"
    prefix = "informed"
    SIZES = Sizes(200, 2_000)
    EDGE = 1.0
    """Mispricing worth acting on, in seconds' moves of the value; at least a tick."""

    def __init__(self, number: int, wait: float) -> None:
        super().__init__(number, wait)
        self._listing: Listing | None = None

    def act(self, venue: Venue) -> float:
        rng = venue.rng
        picked = venue.attention.pick(rng, venue.now_us)
        listing = self._listing or picked
        self._listing = None
        fundamental = listing.fundamental
        value = fundamental.value
        bid, _, ask, _ = listing.top
        edge = max(1.0, self.EDGE * fundamental.scale)
        is_buy = ask is not None and value - ask > edge
        if listing.halt is not None or not (is_buy or (bid is not None and bid - value > edge)):
            return self.wait / venue.attention.level
        quantity = self.SIZES.draw(rng)
        if rng.random() < 0.2:
            self.trade(venue, listing, is_buy, quantity, "informed")
        else:
            limit = math.floor(value) if is_buy else math.ceil(value)
            self.take(venue, listing, is_buy, quantity, limit, "informed")
        self._listing = listing
        return self.wait / 4 / venue.attention.level


class MarketMaker(Agent):
    """Keeps a bid and an offer in every symbol, one symbol a decision, leaning against its inventory.

    Quotes stand around a reservation price that falls with the inventory, at a distance that grows with the
    volatility: the form of Avellaneda & Stoikov 2008, with the makers' aversion to risk as its parameter.
    """

    kind = "market_makers"
    agent_type = "MarketMaker"
    prefix = "mm"
    TIGHT = Sizes(100, 1_000, exponent=1.5)
    WIDE = Sizes(100, 1_000)
    LIMIT = 5_000
    """Shares at which the reservation price is off by LEAN moves of a second."""
    LEAN = 2.0

    def __init__(self, number: int, wait: float) -> None:
        super().__init__(number, wait)
        self._next = number * 7
        # Makers differ: the tight ones trade, the wide ones give the book its depth.
        self._distance = max(0, number % 10 - 5)
        self._sizes = self.WIDE if self._distance else self.TIGHT
        self._quotes: dict[tuple[str, bool], Order] = {}

    def act(self, venue: Venue) -> float:
        self._next += 1
        if self._next % 2:
            listing = venue.attention.pick(venue.rng, venue.now_us)
        else:
            listing = venue.listings[self._next // 2 % len(venue.listings)]
        if listing.halt is not None:
            return self.wait
        fundamental = listing.fundamental
        scale = 0.5 + fundamental.scale
        held = self.positions.get(listing.symbol, 0) / self.LIMIT
        fair = fundamental.value - self.LEAN * scale * max(-2.0, min(2.0, held))
        half = 0.5 + self._distance * (1.5 + 0.4 * fundamental.scale)
        changed = self._quote(venue, listing, True, max(1, math.floor(fair - half)), half)
        changed += self._quote(venue, listing, False, max(2, math.ceil(fair + half)), half)
        if changed:
            self.explain(venue, listing, "requote", f"fair_value: {dollars(round(fair))}")
        return self.wait / venue.attention.level

    def _quote(self, venue: Venue, listing: Listing, is_buy: bool, price: int, half: float) -> int:
        """Place a quote, or replace one that is thin or off its price; 1 when something was sent."""
        opposite = listing.top.ask if is_buy else listing.top.bid
        if opposite is not None:
            price = min(price, opposite - 1) if is_buy else max(price, opposite + 1)
        if price <= 0:
            return 0
        key = (listing.symbol, is_buy)
        quote = self._quotes.get(key)
        if quote is not None and quote.resting and quote.price is not None:
            if abs(quote.price - price) <= half / 2 and quote.quantity >= 50:
                return 0
            sent = venue.replace(listing, quote, price=price, quantity=self._sizes.draw(venue.rng))
        else:
            sent = venue.submit(
                self,
                listing,
                is_buy=is_buy,
                quantity=self._sizes.draw(venue.rng),
                price=price,
                tif=TimeInForce.POST_ONLY,
            )
        if sent is None:
            self._quotes.pop(key, None)
        else:
            self._quotes[key] = sent
        return 1


class HighFrequencyTrader(Agent):
    """Steps in front of the best price where the value leaves room, on the heavier side of the book; moves or
    cancels a lot."""

    kind = "hft_traders"
    agent_type = "HighFrequencyTrader"
    prefix = "hft"
    SIZES = Sizes(50, 500, exponent=1.5)
    LIMIT = 10_000
    """Shares held at which the next order is most likely on the other side."""
    KEEP = 16
    """Orders left standing before the oldest is looked at again."""

    def __init__(self, number: int, wait: float) -> None:
        super().__init__(number, wait)
        self._orders: deque[tuple[Listing, Order]] = deque()

    def act(self, venue: Venue) -> float:
        rng = venue.rng
        listing = venue.attention.pick(rng, venue.now_us)
        orders = self._orders
        while orders and not orders[0][1].resting:
            orders.popleft()
        bid, bid_size, ask, ask_size = listing.top
        if listing.halt is not None or bid is None or ask is None:
            return self.wait
        imbalance = (bid_size - ask_size) / (bid_size + ask_size)
        held = self.positions.get(listing.symbol, 0) / self.LIMIT
        is_buy = rng.random() < 0.5 + imbalance / 4 - held
        oldest = orders.popleft() if len(orders) >= self.KEEP else None
        if oldest is not None and oldest[0] is listing:
            is_buy = oldest[1].is_buy
        value = listing.fundamental.value
        price = min(ask - 1, max(bid, math.floor(value))) if is_buy else max(bid + 1, min(ask, math.ceil(value)))
        quantity = self.SIZES.draw(rng)
        if oldest is not None and oldest[0] is listing:
            self.explain(venue, listing, "move_limit", f"imbalance: {imbalance:.2f}")
            sent = venue.replace(listing, oldest[1], price=price, quantity=quantity)
        else:
            if oldest is not None:
                self.explain(venue, oldest[0], "cancel_stale", f"open_orders: {len(orders)}")
                venue.cancel(*oldest)
            self.explain(venue, listing, "front_limit", f"imbalance: {imbalance:.2f}")
            sent = venue.submit(
                self, listing, is_buy=is_buy, quantity=quantity, price=price, tif=TimeInForce.POST_ONLY
            )
        if sent is not None and sent.resting:
            orders.append((listing, sent))
        return self.wait / venue.attention.level


KINDS: tuple[type[Agent], ...] = (
    RetailTrader,
    Institution,
    MarketMaker,
    HighFrequencyTrader,
    NoiseTrader,
    InformedTrader,
)
