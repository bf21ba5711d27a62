"""Price-time priority by definition: one list in order of arrival, searched from end to end each time."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

Step = tuple[int, int, int, int, int]
"""(maker's number, price, lots traded, lots of the maker cancelled, lots of the taker cancelled)"""


@dataclass
class NaiveOrder:
    number: int
    owner: object
    is_buy: bool
    price: int | None
    quantity: int
    tif: str = "GTC"
    stp: str = "decrement-and-cancel"


@dataclass
class NaiveBook:
    resting: list[NaiveOrder] = field(default_factory=list)

    def makers(self, taker: NaiveOrder) -> list[NaiveOrder]:
        """What the taker can trade with."""

        def acceptable(price: int) -> bool:
            return taker.price is None or (price <= taker.price if taker.is_buy else price >= taker.price)

        return [order for order in self.resting if order.is_buy != taker.is_buy and acceptable(order.price)]

    def submit(self, taker: NaiveOrder) -> list[Step]:
        if taker.tif == "PostOnly" and self.makers(taker):
            return []
        if taker.tif == "FOK":
            # Try it on a copy: only if all of it trades there does it happen.
            trial, twin = copy.deepcopy(self.resting), copy.copy(taker)
            traded = sum(step[2] for step in NaiveBook(trial)._match(twin))
            if traded != taker.quantity:
                return []
        steps = self._match(taker)
        if taker.quantity and taker.price is not None and taker.tif in ("GTC", "PostOnly"):
            self.resting.append(taker)
        return steps

    def _match(self, taker: NaiveOrder) -> list[Step]:
        steps = []
        while taker.quantity and (makers := self.makers(taker)):
            # min() returns the first of equals, and the list is in order of arrival.
            maker = min(makers, key=lambda order: order.price if taker.is_buy else -order.price)
            smaller = min(maker.quantity, taker.quantity)
            traded = maker_cancelled = taker_cancelled = 0
            if maker.owner != taker.owner:
                traded = smaller
            elif taker.stp == "decrement-and-cancel":
                maker_cancelled = taker_cancelled = smaller
            elif taker.stp == "cancel-oldest":
                maker_cancelled = maker.quantity
            elif taker.stp == "cancel-newest":
                taker_cancelled = taker.quantity
            elif taker.stp == "cancel-both":
                maker_cancelled, taker_cancelled = maker.quantity, taker.quantity
            maker.quantity -= traded + maker_cancelled
            taker.quantity -= traded + taker_cancelled
            steps.append((maker.number, maker.price, traded, maker_cancelled, taker_cancelled))
            if not maker.quantity:
                self.resting.remove(maker)
        return steps

    def find(self, number: int) -> NaiveOrder | None:
        return next((order for order in self.resting if order.number == number), None)

    def cancel(self, number: int) -> int:
        """The lots that it still had; 0 when it is not there."""
        order = self.find(number)
        if order is None:
            return 0
        self.resting.remove(order)
        return order.quantity

    def replace(self, number: int, price: int, quantity: int, new_number: int) -> list[Step]:
        """A smaller quantity at the same price keeps the place in the list; anything else is a new order."""
        order = self.find(number)
        if order is None:
            return []
        if price == order.price and quantity <= order.quantity:
            order.quantity = quantity
            return []
        self.resting.remove(order)
        return self.submit(
            NaiveOrder(new_number, order.owner, order.is_buy, price, quantity, order.tif, order.stp)
        )

    def in_priority(self) -> list[tuple[int, int | None, int]]:
        """(number, price, open lots): bids then asks, best price first, oldest first."""
        bids = sorted((o for o in self.resting if o.is_buy), key=lambda o: -o.price)
        asks = sorted((o for o in self.resting if not o.is_buy), key=lambda o: o.price)
        return [(o.number, o.price, o.quantity) for o in bids + asks]
