"""The book of one symbol as a reader rebuilds it from the events alone."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal

from simulator.events import MarketEvent, OrderCancelledFrame, OrderPlacedFrame, TradeExecutedFrame


class RebuiltBook:
    def __init__(self) -> None:
        self.orders: dict[str, list] = {}
        """id → [side, price or None, open quantity], in order of arrival."""

    def apply(self, event: MarketEvent) -> None:
        """Placed adds, a trade takes from both, cancelled takes ``remaining_quantity``; what is empty is gone."""
        data = event.data
        match event:
            case OrderPlacedFrame():
                assert data.order_id not in self.orders
                self.orders[data.order_id] = [data.side.value, data.price, data.quantity]
            case TradeExecutedFrame():
                self._take(data.buy_order_id, data.quantity)
                self._take(data.sell_order_id, data.quantity)
            case OrderCancelledFrame():
                assert self.orders[data.order_id][:2] == [data.side.value, data.price]
                self._take(data.order_id, data.remaining_quantity)

    def _take(self, order_id: str, quantity: Decimal) -> None:
        order = self.orders[order_id]
        assert 0 < quantity <= order[2]
        order[2] -= quantity
        if not order[2]:
            del self.orders[order_id]

    def side(self, side: str) -> list[tuple[Decimal, Decimal, int]]:
        """(price, quantity, number of orders), best first; market orders have no level."""
        levels: dict[Decimal, list[Decimal]] = defaultdict(list)
        for order_side, price, quantity in self.orders.values():
            if order_side == side and price is not None:
                levels[price].append(quantity)
        ordered = sorted(levels.items(), reverse=side == "Buy")
        return [(price, sum(quantities), len(quantities)) for price, quantities in ordered]

    def best(self, side: str) -> tuple[Decimal | None, Decimal]:
        levels = self.side(side)
        return (levels[0][0], levels[0][1]) if levels else (None, Decimal(0))

    def first(self, side: str) -> str:
        """The order that trades next: best price, then oldest."""
        best = self.best(side)[0]
        return next(i for i, order in self.orders.items() if order[0] == side and order[1] == best)
