"""The matching engine of one symbol with agents moved by hand."""

from __future__ import annotations

from decimal import Decimal
from random import Random

from simulator.agents import Agent
from simulator.bands import PriceBands
from simulator.events import MarketEvent, parse_frame
from simulator.frames import FrameWriter
from simulator.fundamental import Attention, Fundamental
from simulator.halts import CircuitBreaker
from simulator.listing import Listing
from simulator.matching import MatchingEngine, Phase

START_US = 1_771_425_000_000_000
SECOND = 1_000_000


class Hand(Agent):
    """Does nothing of its own accord."""

    prefix = "hand"

    def act(self, venue):
        raise AssertionError("nobody wakes it")


class Floor:
    """One symbol, reference 100.00 dollars, four agents; continuous trading unless said otherwise."""

    def __init__(self, *, phase: Phase = Phase.CONTINUOUS, percent: int = 0, scale: float = 1.0) -> None:
        rng = Random(1)
        value = Fundamental(10_000, sigma=0.0, half_life=60, news_rate=0, news_move=0, rng=rng, now_us=START_US)
        bands = PriceBands(10_000, percent, scale) if percent else None
        self.listing = Listing("AAPL", 10_000, CircuitBreaker(10_000, scale), value, bands)
        self.frames = FrameWriter("session-1")
        self.engine = MatchingEngine(
            self.frames,
            [self.listing],
            Attention([self.listing], START_US),
            rng,
            now_us=START_US,
            explain_rate=0,
            snapshot_levels=10,
        )
        self.agents = [Hand(number, 1.0) for number in range(4)]
        self.frames.at(START_US)
        self.engine.enter(phase)
        self.read = 0

    def at(self, seconds: float) -> None:
        """Let time pass."""
        end_us = START_US + round(seconds * SECOND)
        plans = self.engine.plans
        while plans and min(plans)[0] <= end_us:
            plans.sort()
            time_us, _, action = plans.pop(0)
            self.engine.now_us = time_us
            self.frames.at(time_us)
            action()
        self.engine.now_us = end_us
        self.frames.at(end_us)

    def events(self) -> list[MarketEvent]:
        """Those printed since the last call."""
        printed = [parse_frame(frame) for frame in self.frames.pending[self.read :]]
        self.read = len(self.frames.pending)
        return printed

    def story(self) -> list[str]:
        """The events since the last call, each in a few words."""
        return [tell(event) for event in self.events()]

    def send(self, agent: int, side: str, quantity: int, price: int | None = None, **options):
        return self.engine.submit(
            self.agents[agent], self.listing, is_buy=side == "buy", quantity=quantity, price=price, **options
        )

    def replace(self, order, price: int, quantity: int):
        return self.engine.replace(self.listing, order, price=price, quantity=quantity)


def tell(event: MarketEvent) -> str:
    data, kind = event.data, event.event_type

    def cents(price: Decimal | None) -> str:
        return "None" if price is None else f"{price:.2f}"

    if kind == "OrderPlaced":
        return f"placed {data.side} {data.quantity} at {cents(data.price)}"
    if kind == "OrderCancelled":
        return f"cancelled {data.remaining_quantity} at {cents(data.price)}: {data.reason}"
    if kind == "TradeExecuted":
        return f"traded {data.quantity} at {cents(data.price)}"
    if kind == "QuoteUpdate":
        return f"quote {data.best_bid_size} {cents(data.best_bid)} / {cents(data.best_ask)} {data.best_ask_size}"
    if kind == "TradingHalt":
        return f"halt {data.reason} {data.level} at {cents(data.trigger_price)}"
    return kind
