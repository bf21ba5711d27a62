"""One limit order book: integer ticks, integer lots, price-time priority.

In: orders of one symbol, one after another. Out: fills, in the order in which they happen, and the depth.
Nothing here knows symbols, clocks or money: a price is a number of ticks, a quantity a number of lots.

Promises, held by a property test against a naive book: an incoming order trades with the best price first
and, at one price, with the oldest order first, always at the resting order's price; the book is never
crossed; quantity is neither made nor lost; an agent never trades with itself (the resting order is cancelled
instead). Kept in memory only: after a crash a new session starts with empty books.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple


class Order:
    """A limit order, or a market order where ``price`` is None. ``quantity`` is what is still open."""

    __slots__ = ("agent_id", "is_buy", "order_id", "price", "quantity", "resting")

    def __init__(self, order_id: str, agent_id: str, is_buy: bool, price: int | None, quantity: int) -> None:
        if quantity <= 0 or (price is not None and price <= 0):
            raise ValueError(f"order {order_id}: price {price} and quantity {quantity} must be above zero")
        self.order_id = order_id
        self.agent_id = agent_id
        self.is_buy = is_buy
        self.price = price
        self.quantity = quantity
        self.resting = False
        """True while the order stands in a book."""


class Fill(NamedTuple):
    """One step of matching: ``quantity`` lots changed hands at ``price``, the price of the resting ``maker``.

    ``quantity`` 0 means that the maker belonged to the same agent and was cancelled (self-trade prevention).
    """

    maker: Order
    price: int
    quantity: int


class Level(NamedTuple):
    price: int
    quantity: int
    order_count: int


class Top(NamedTuple):
    """Best price and its size on both sides; an empty side is (None, 0)."""

    bid: int | None
    bid_size: int
    ask: int | None
    ask_size: int


class _Queue:
    """The orders at one price, oldest first."""

    __slots__ = ("orders", "quantity")

    def __init__(self) -> None:
        # OrderedDict: first-in and cancel by id are both O(1); a plain dict slows down when popped from the front.
        self.orders: OrderedDict[str, Order] = OrderedDict()
        self.quantity = 0


class _Side:
    """Price levels of one side. ``keys`` holds sign * price in rising order, so that the best is always last."""

    __slots__ = ("keys", "queues", "sign")

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.queues: dict[int, _Queue] = {}
        self.keys: list[int] = []

    def add(self, price: int, order: Order) -> None:
        queue = self.queues.get(price)
        if queue is None:
            queue = self.queues[price] = _Queue()
            insort(self.keys, self.sign * price)
        queue.orders[order.order_id] = order
        queue.quantity += order.quantity
        order.resting = True

    def remove(self, price: int, order: Order) -> None:
        queue = self.queues[price]
        del queue.orders[order.order_id]
        queue.quantity -= order.quantity
        order.resting = False
        if not queue.orders:
            del self.queues[price]
            if self.keys[-1] == self.sign * price:
                self.keys.pop()
            else:
                del self.keys[bisect_left(self.keys, self.sign * price)]

    def prices(self) -> Iterator[int]:
        """Best first."""
        return (self.sign * key for key in reversed(self.keys))


class Book:
    """One symbol's resting orders."""

    __slots__ = ("_asks", "_bids")

    def __init__(self) -> None:
        self._bids = _Side(1)
        self._asks = _Side(-1)

    def match(self, taker: Order) -> Fill | None:
        """Trade ``taker`` with the first order it can trade with; None when there is none (left).

        One step at a time, so that the exchange can stop between two fills when one of them halts trading.
        """
        side = self._asks if taker.is_buy else self._bids
        if not taker.quantity or not side.keys:
            return None
        key = side.keys[-1]
        if taker.price is not None and key < side.sign * taker.price:
            return None
        price = side.sign * key
        queue = side.queues[price]
        maker = next(iter(queue.orders.values()))
        if maker.agent_id == taker.agent_id:
            side.remove(price, maker)
            return Fill(maker, price, 0)
        quantity = min(taker.quantity, maker.quantity)
        taker.quantity -= quantity
        if quantity == maker.quantity:
            side.remove(price, maker)
            maker.quantity = 0
        else:
            maker.quantity -= quantity
            queue.quantity -= quantity
        return Fill(maker, price, quantity)

    def rest(self, order: Order) -> None:
        """Put what is left of a limit order into the book, behind all orders of its price.

        Raises:
            ValueError: a market order, nothing left, resting already, or it would cross the book.
        """
        price = order.price
        if price is None or not order.quantity or order.resting:
            raise ValueError(f"order {order.order_id} cannot rest: market order, empty, or in the book already")
        other = self._asks if order.is_buy else self._bids
        if other.keys and other.keys[-1] >= other.sign * price:
            raise ValueError(f"order {order.order_id} would cross the book: match it first")
        (self._bids if order.is_buy else self._asks).add(price, order)

    def submit(self, order: Order) -> list[Fill]:
        """Match as far as it goes, rest what is left of a limit order; what is left of a market order lapses."""
        fills = []
        while (fill := self.match(order)) is not None:
            fills.append(fill)
        if order.quantity and order.price is not None:
            self.rest(order)
        return fills

    def cancel(self, order: Order) -> bool:
        """Take a resting order out; False when it is not in the book (any more)."""
        if not order.resting or order.price is None:
            return False
        (self._bids if order.is_buy else self._asks).remove(order.price, order)
        return True

    def clear(self) -> list[Order]:
        """Take everything out: bids then asks, best price first, oldest first."""
        orders = list(self.orders())
        for order in orders:
            order.resting = False
        self._bids = _Side(1)
        self._asks = _Side(-1)
        return orders

    def orders(self) -> Iterator[Order]:
        """Every resting order: bids then asks, best price first, oldest first."""
        for side in (self._bids, self._asks):
            for price in side.prices():
                yield from side.queues[price].orders.values()

    def top(self) -> Top:
        bid = ask = None
        bid_size = ask_size = 0
        if self._bids.keys:
            bid = self._bids.keys[-1]
            bid_size = self._bids.queues[bid].quantity
        if self._asks.keys:
            ask = -self._asks.keys[-1]
            ask_size = self._asks.queues[ask].quantity
        return Top(bid, bid_size, ask, ask_size)

    def depth(self, *, bids: bool, levels: int) -> list[Level]:
        """The first ``levels`` price levels of one side, best first."""
        side = self._bids if bids else self._asks
        result = []
        for key in reversed(side.keys[-levels:] if levels else []):
            queue = side.queues[side.sign * key]
            result.append(Level(side.sign * key, queue.quantity, len(queue.orders)))
        return result
