"""The matching engine: orders go in, books change, events come out; halts, pauses and auctions are its doing.

In: orders, cancellations and replacements of agents, and the phases of the day. Out: frames, in the order in
which things happen, and plans for what time brings (an order expires, a halt ends). Deterministic: the same calls
at the same event times give the same bytes. It keeps every agent's shares and cash. Nothing is kept on disk.

A reader rebuilds every book from the events alone: OrderPlaced adds an order, TradeExecuted takes its quantity
off both orders, OrderCancelled takes ``remaining_quantity`` off one; an order without anything left is gone.
OrderCancelled says why: AgentCancelled, Expired, TradingHalt; SelfTradePrevention (possibly only a part);
Reduced (a part; the rest keeps its place); Replaced (the OrderPlaced that follows ``replaces`` it); Unfilled
(what a market, IOC or FOK order could not trade); PostOnly (it would have traded); PriceBand (the bands moved).
While orders are collected for an auction the book may be crossed: then neither quotes nor snapshots are printed.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from heapq import heappush
from random import Random
from typing import TYPE_CHECKING

from simulator.auction import clear, uncross
from simulator.bands import PriceBands
from simulator.book import Order, SelfTrade, TimeInForce
from simulator.frames import FrameWriter
from simulator.halts import Halt
from simulator.listing import Listing, State

if TYPE_CHECKING:
    from simulator.agents import Agent
    from simulator.fundamental import Attention

_GTC, _FOK, _POST_ONLY = TimeInForce.GTC, TimeInForce.FOK, TimeInForce.POST_ONLY
_CONTINUOUS, _COLLECTING = State.CONTINUOUS, State.COLLECTING


class Phase(Enum):
    """Of the day, for all symbols; the value is their state in it, but for halts."""

    PRE_OPEN = "pre-open"
    CONTINUOUS = "continuous"
    CLOSING_CALL = "closing call"
    CLOSED = "closed"


_STATE = {
    Phase.PRE_OPEN: State.COLLECTING,
    Phase.CONTINUOUS: State.CONTINUOUS,
    Phase.CLOSING_CALL: State.COLLECTING,
    Phase.CLOSED: State.CLOSED,
}


class MatchingEngine:
    """Satisfies :class:`simulator.agents.Venue`.

    Args:
        frames: where the events go.
        listings: the symbols; all closed until :meth:`enter`.
        attention: which symbol agents look at.
        rng: the session's, for the agents.
        now_us: event time of the start.
        explain_rate: share of decisions that agents print.
        snapshot_levels: price levels a side in a snapshot.
    """

    def __init__(
        self,
        frames: FrameWriter,
        listings: list[Listing],
        attention: Attention,
        rng: Random,
        *,
        now_us: int,
        explain_rate: float,
        snapshot_levels: int,
    ) -> None:
        self.frames = frames
        self.listings = listings
        self.attention = attention
        self.rng = rng
        self.now_us = now_us
        """Event time; set by whoever runs the plans."""
        self.explain_rate = explain_rate
        self._snapshot_levels = snapshot_levels
        self.phase = Phase.CLOSED
        self.plans: list[tuple[int, int, Callable[[], None]]] = []
        """A heap of (event time, tie-breaker, action)."""
        self._planned = self._orders = self._trades = 0

    def plan(self, time_us: int, action: Callable[[], None]) -> None:
        """Have ``action`` called at ``time_us``; of the same time, what was planned first comes first."""
        self._planned += 1
        heappush(self.plans, (time_us, self._planned, action))

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
        tif: TimeInForce = _GTC,
        stp: SelfTrade = SelfTrade.DECREMENT,
    ) -> Order | None:
        """Place one order, matched at once in continuous trading. None: rejected, halted or closed.

        An order with a lifetime is cancelled as Expired after it. A price through the bands becomes the band.
        """
        state = listing.state
        if state is not _CONTINUOUS and state is not _COLLECTING:
            reason = "TradingHalt" if state is State.HALTED else "MarketClosed"
            side = "Buy" if is_buy else "Sell"
            self.explain(agent, listing, "order_rejected", [f"reason: {reason}", f"side: {side}"])
            return None
        bands = listing.bands
        if bands is not None and price is not None:
            price = bands.collar(is_buy, price)
        self._orders += 1
        order = Order(self._orders, agent, is_buy, price, quantity, tif, stp)
        if lifetime_us:
            order.expires_us = self.now_us + lifetime_us
        self._enter(listing, order, 0)
        return order

    def cancel(self, listing: Listing, order: Order, reason: str = "AgentCancelled") -> None:
        """Take a resting order out; nothing happens when it is gone already. Allowed during a halt."""
        quantity = listing.book.cancel(order)
        if quantity:
            self.frames.order_cancelled(listing.symbol, order, quantity, reason)
            self._print_quote(listing)

    def replace(self, listing: Listing, order: Order, *, price: int, quantity: int) -> Order | None:
        """See :meth:`simulator.agents.Venue.replace`. ``quantity`` is what shall be open then.

        Raises:
            ValueError: quantity or price not above zero.
        """
        if quantity <= 0 or price <= 0:
            raise ValueError(f"order {order.number}: price {price} and quantity {quantity} must be above zero")
        if not order.resting:
            return None
        if listing.bands is not None:
            price = listing.bands.collar(order.is_buy, price)
        taken = order.quantity - quantity
        if price == order.price and taken >= 0:
            if taken:
                listing.book.take(order, taken)
                self.frames.order_cancelled(listing.symbol, order, taken, "Reduced")
                self._print_quote(listing)
            return order
        if listing.state is not _CONTINUOUS and listing.state is not _COLLECTING:
            return None
        self.frames.order_cancelled(listing.symbol, order, listing.book.cancel(order), "Replaced")
        self._orders += 1
        new = Order(self._orders, order.owner, order.is_buy, price, quantity, order.tif, order.stp)
        new.expires_us = order.expires_us
        self._enter(listing, new, order.number)
        return new

    def explain(self, agent: Agent, listing: Listing, action: str, factors: list[str]) -> None:
        """Print one AgentAction."""
        self.frames.agent_action(listing.symbol, agent.agent_id, agent.agent_type, action, factors)

    # --- an order's way

    def _enter(self, listing: Listing, order: Order, replaces: int) -> None:
        self.frames.order_placed(listing.symbol, order, replaces)
        book, tif = listing.book, order.tif
        if order.price is None and listing.bands is not None:
            order.limit = listing.bands.upper if order.is_buy else listing.bands.lower
        may_rest = tif is _GTC or tif is _POST_ONLY
        if listing.state is _COLLECTING:
            # An auction has no taker: post-only orders take part. What must trade at once cannot.
            if may_rest:
                book.add(order)
        elif tif is _GTC or book.admits(order):
            self._match(listing, order)
            if order.quantity and may_rest and order.price is not None:
                book.add(order)
        if order.queue is None:
            if order.quantity:
                self._lapse(listing, order, "PostOnly" if tif is _POST_ONLY else "Unfilled")
        elif order.expires_us:
            self.plan(order.expires_us, lambda: self.cancel(listing, order, "Expired"))
        self._print_quote(listing)

    def _lapse(self, listing: Listing, order: Order, reason: str) -> None:
        """Cancel what is left of an order that does not rest."""
        quantity, order.quantity = order.quantity, 0
        self.frames.order_cancelled(listing.symbol, order, quantity, reason)

    def _match(self, listing: Listing, taker: Order) -> None:
        match = listing.book.match
        halt = None
        while (fill := match(taker)) is not None:
            maker, price, quantity, maker_cancelled, taker_cancelled = fill
            if not quantity:
                if maker_cancelled:
                    self.frames.order_cancelled(listing.symbol, maker, maker_cancelled, "SelfTradePrevention")
                if taker_cancelled:
                    self.frames.order_cancelled(listing.symbol, taker, taker_cancelled, "SelfTradePrevention")
                continue
            self._trade(listing, price, quantity, taker, maker)
            halt = listing.breaker.check(price) or halt
            # A fill-or-kill order is filled, then trading halts, at the deepest level that it reached.
            if halt is not None and taker.tif is not _FOK:
                break
        if halt is not None:
            self._halt(listing, halt, taker)

    def _trade(self, listing: Listing, price: int, quantity: int, taker: Order, maker: Order) -> None:
        symbol = listing.symbol
        self._trades += 1
        self.frames.trade(symbol, self._trades, price, quantity, taker, maker)
        listing.record(price, quantity)
        buyer, seller = (taker.owner, maker.owner) if taker.is_buy else (maker.owner, taker.owner)
        amount = price * quantity
        buyer.cash -= amount
        seller.cash += amount
        positions = buyer.positions
        positions[symbol] = positions.get(symbol, 0) + quantity
        positions = seller.positions
        positions[symbol] = positions.get(symbol, 0) - quantity
        if listing.bands is not None:
            listing.bands.record(self.now_us, price)

    # --- halts, pauses, auctions

    def _halt(self, listing: Listing, halt: Halt, taker: Order | None) -> None:
        """Level 1 stops new orders; 2 also cancels the resting ones; 3 also prints the cleared book at once.

        What is left of the order that tripped it is cancelled at every level.
        """
        self._stop(listing, halt, State.HALTED)
        if taker is not None and taker.quantity:
            self._lapse(listing, taker, "TradingHalt")
        if halt.level >= 2:
            self._cancel_all(listing, "TradingHalt")
            self._print_quote(listing)
        if halt.level >= 3:
            self.print_snapshot(listing)

    def _stop(self, listing: Listing, halt: Halt, state: State) -> None:
        listing.halt = halt
        listing.halted_at_us = self.now_us
        listing.state = state
        if listing.bands is not None:
            listing.bands.limit_since_us = 0
        self.frames.trading_halt(listing.symbol, halt)
        self.plan(self.now_us + halt.seconds * 1_000_000, lambda: self._resume(listing, halt))

    def _resume(self, listing: Listing, halt: Halt) -> None:
        listing.halt = None
        self.frames.trading_resume(listing.symbol, listing.halted_at_us, halt)
        collected = listing.state is _COLLECTING
        listing.state = _STATE[self.phase]
        if listing.state is _CONTINUOUS:
            if listing.bands is not None:
                listing.bands.restart(listing.last, self.now_us)
            if collected:
                self._auction(listing)

    def _auction(self, listing: Listing) -> None:
        """Trade what was collected at one price; market orders that found nothing lapse."""
        book = listing.book
        clearing = clear(book.curve(bids=True), book.curve(bids=False), listing.last)
        if clearing is not None:
            for buy, sell, quantity, is_self_trade in uncross(book, clearing.quantity):
                if is_self_trade:
                    self.frames.order_cancelled(listing.symbol, buy, quantity, "SelfTradePrevention")
                    self.frames.order_cancelled(listing.symbol, sell, quantity, "SelfTradePrevention")
                else:
                    newer, older = (buy, sell) if buy.number > sell.number else (sell, buy)
                    self._trade(listing, clearing.price, quantity, newer, older)
        for order in book.waiting_market_orders():
            self.frames.order_cancelled(listing.symbol, order, book.cancel(order), "Unfilled")
        if clearing is not None:
            if (bands := listing.bands) is not None:
                bands.restart(clearing.price, self.now_us)
                self._keep_inside(listing, bands)
            if (halt := listing.breaker.check(clearing.price)) is not None:
                self._halt(listing, halt, None)
        self._print_quote(listing)

    def _cancel_all(self, listing: Listing, reason: str) -> None:
        for order in list(listing.book.orders()):
            self.frames.order_cancelled(listing.symbol, order, listing.book.cancel(order), reason)

    def _keep_inside(self, listing: Listing, bands: PriceBands) -> None:
        """Cancel the orders that would trade outside the bands, after these have moved."""
        book = listing.book
        for bids in (True, False):
            while (order := book.first(bids=bids)) is not None and order.price is not None:
                if bands.collar(bids, order.price) == order.price:
                    break
                self.frames.order_cancelled(listing.symbol, order, book.cancel(order), "PriceBand")

    def _watch_limit(self, listing: Listing, bands: PriceBands) -> None:
        """A quote at a band begins a limit state; still there at its end, trading pauses."""
        top = listing.top
        if not bands.at_limit(top.bid, top.ask):
            bands.limit_since_us = 0
        elif not bands.limit_since_us:
            since = bands.limit_since_us = self.now_us

            def end() -> None:
                if bands.limit_since_us == since and listing.state is _CONTINUOUS:
                    self._stop(listing, bands.pause(listing.top.bid), _COLLECTING)

            self.plan(since + bands.limit_state_us(), end)

    def enter(self, phase: Phase) -> None:
        """Begin a phase of the day in every symbol. A halt in force goes on until its time is over.

        Continuous trading begins with the opening auction of what was collected. Closing ends with the closing
        auction, after which resting orders have expired. Pre-open begins a day: the reference price is the
        closing price.
        """
        before, self.phase = self.phase, phase
        for listing in self.listings:
            if phase is Phase.PRE_OPEN or before is Phase.CLOSED:
                listing.open_day()
                listing.breaker.restart(listing.last)
                if listing.bands is not None:
                    listing.bands.restart(listing.last, self.now_us)
            if listing.halt is not None:
                if phase is Phase.CLOSED:
                    listing.state = State.HALTED
                    self._cancel_all(listing, "Expired")
                    self._print_quote(listing)
                continue
            collected = listing.state is _COLLECTING
            listing.state = _STATE[phase]
            if phase is Phase.CONTINUOUS and collected:
                self._auction(listing)
            elif phase is Phase.CLOSED:
                self._auction(listing)
                self._cancel_all(listing, "Expired")
                self._print_quote(listing)

    # --- prints

    def _print_quote(self, listing: Listing) -> None:
        """The top of book, where it changed since it was last printed."""
        if listing.state is _COLLECTING:
            return
        bands = listing.bands
        if bands is not None and bands.update(self.now_us):
            self._keep_inside(listing, bands)
        top = listing.book.top(listing.top)
        if top is not listing.top:
            listing.top = top
            self.frames.quote(listing.symbol, top)
        if bands is not None and listing.state is _CONTINUOUS:
            self._watch_limit(listing, bands)

    def print_snapshot(self, listing: Listing) -> None:
        """The best levels of the book; nothing while orders are collected."""
        if listing.state is not _COLLECTING:
            levels, book = self._snapshot_levels, listing.book
            self.frames.snapshot(
                listing.symbol, book.depth(bids=True, levels=levels), book.depth(bids=False, levels=levels)
            )

    def print_stats(self, listing: Listing) -> None:
        prices = (listing.open, listing.high, listing.low, listing.last)
        self.frames.stats(listing.symbol, prices, listing.volume, listing.trade_count, listing.vwap_units())
