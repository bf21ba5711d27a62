"""One limit order book: integer ticks, integer lots, price-time priority.

In: orders of one symbol, one after another. Out: fills, in the order in which they happen, and the depth.
Nothing here knows symbols, clocks or money: a price is a number of ticks, a quantity a number of lots.

Promises, held by a property test against a naive book: an incoming order trades with the best price first
and, at one price, with the oldest order first, always at the resting order's price; the book is never
crossed while it matches; quantity is neither made nor lost; an owner never trades with itself. Kept in memory
only: after a crash a new session starts with empty books.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, NamedTuple

MAX_PRICE = 10**12
"""Prices are below; also the key of market orders that wait for an auction, before every limit."""


class TimeInForce(StrEnum):
    """The value is what the event prints."""

    GTC = "GTC"
    """Until cancelled."""
    IOC = "IOC"
    """Immediate or cancel: what cannot trade at once lapses."""
    FOK = "FOK"
    """Fill or kill: all of it at once, or nothing."""
    POST_ONLY = "PostOnly"
    """Only to rest: cancelled when it could trade at once."""


class SelfTrade(StrEnum):
    """What happens, by the taker's choice, where an order meets one of the same owner."""

    DECREMENT = "decrement-and-cancel"
    """Both lose the smaller quantity; the smaller one is thereby cancelled."""
    CANCEL_OLDEST = "cancel-oldest"
    """The resting order is cancelled."""
    CANCEL_NEWEST = "cancel-newest"
    """What is left of the incoming order is cancelled."""
    CANCEL_BOTH = "cancel-both"


# A member looked up on its class costs three times as much as a name of the module.
_GTC, _FOK, _POST_ONLY = TimeInForce.GTC, TimeInForce.FOK, TimeInForce.POST_ONLY
_DECREMENT, _CANCEL_OLDEST, _CANCEL_NEWEST = SelfTrade.DECREMENT, SelfTrade.CANCEL_OLDEST, SelfTrade.CANCEL_NEWEST


class Order:
    """A limit order, or a market order where ``price`` is None.

    Args:
        number: unique, rising with the time of arrival.
        owner: compared by identity, for self-trade prevention.
    """

    __slots__ = (
        "expires_us", "is_buy", "limit", "next", "number", "owner", "previous", "price", "quantity", "queue",
        "stp", "tif",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        owner: Any,
        is_buy: bool,
        price: int | None,
        quantity: int,
        tif: TimeInForce = _GTC,
        stp: SelfTrade = _DECREMENT,
    ) -> None:
        if quantity <= 0 or (price is not None and not 0 < price < MAX_PRICE):
            raise ValueError(f"order {number}: price {price} and quantity {quantity} must be above zero")
        if price is None and tif is _POST_ONLY:
            raise ValueError(f"order {number}: a market order cannot be post-only")
        self.number = number
        self.owner = owner
        self.is_buy = is_buy
        self.price = price
        self.limit = price
        """The worst price it may trade at, None: any. Other than ``price`` only for a market order that price
        bands stop."""
        self.quantity = quantity
        """Lots still open: neither traded nor cancelled."""
        self.tif = tif
        self.stp = stp
        self.expires_us = 0
        """Event time of its cancellation; 0: none. Kept here for the exchange."""
        self.queue: _Queue | None = None
        self.previous: Order | None = None
        self.next: Order | None = None

    @property
    def resting(self) -> bool:
        """True while the order stands in a book."""
        return self.queue is not None


class Fill(NamedTuple):
    """One step of matching, in lots: either ``quantity`` changed hands at ``price``, the resting maker's, or
    self-trade prevention cancelled lots of the maker, of the taker, or of both."""

    maker: Order
    price: int
    quantity: int
    maker_cancelled: int = 0
    taker_cancelled: int = 0


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


EMPTY = Top(None, 0, None, 0)


class _Queue:
    """The orders at one price, oldest first, as a linked list through the orders: O(1) wherever one leaves."""

    __slots__ = ("count", "head", "key", "quantity", "tail")

    def __init__(self, key: int, first: Order) -> None:
        self.key = key
        self.head = self.tail = first
        self.quantity = first.quantity
        self.count = 1


class _Side:
    """Price levels of one side. ``keys`` holds sign * price in rising order, so that the best is always last."""

    __slots__ = ("keys", "market_key", "queues", "sign")

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.market_key = MAX_PRICE if sign > 0 else 0
        self.queues: dict[int, _Queue] = {}
        self.keys: list[int] = []

    def add(self, order: Order) -> None:
        price = order.price
        key = self.market_key if price is None else self.sign * price
        queue = self.queues.get(key)
        if queue is None:
            order.queue = self.queues[key] = _Queue(key, order)
            insort(self.keys, key)
            return
        order.queue = queue
        order.previous = tail = queue.tail
        tail.next = queue.tail = order
        queue.quantity += order.quantity
        queue.count += 1

    def remove(self, order: Order, queue: _Queue) -> None:
        """Take all of the order out, which stands in ``queue``; its quantity becomes 0."""
        order.queue = None
        if queue.count == 1:
            key = queue.key
            del self.queues[key]
            keys = self.keys
            if keys[-1] == key:
                keys.pop()
            else:
                del keys[bisect_left(keys, key)]
        else:
            queue.count -= 1
            queue.quantity -= order.quantity
            before, after = order.previous, order.next
            if before is None:
                queue.head = after  # type: ignore[assignment]  # there is another one
            else:
                before.next = after
                order.previous = None
            if after is None:
                queue.tail = before  # type: ignore[assignment]
            else:
                after.previous = before
                order.next = None
        order.quantity = 0

    def take(self, order: Order, queue: _Queue, quantity: int) -> None:
        """Take some or all lots of a resting order out."""
        if quantity == order.quantity:
            self.remove(order, queue)
        else:
            order.quantity -= quantity
            queue.quantity -= quantity

    def orders(self) -> Iterator[Order]:
        """Best price first, oldest first."""
        for key in reversed(self.keys):
            order: Order | None = self.queues[key].head
            while order is not None:
                yield order
                order = order.next


class Book:
    """One symbol's resting orders."""

    __slots__ = ("_asks", "_bids")

    def __init__(self) -> None:
        self._bids = _Side(1)
        self._asks = _Side(-1)

    def crosses(self, order: Order) -> bool:
        """Whether it could trade at once."""
        side = self._asks if order.is_buy else self._bids
        return bool(side.keys) and (order.limit is None or side.keys[-1] >= side.sign * order.limit)

    def admits(self, order: Order) -> bool:
        """False when its time in force forbids it: a post-only order that would trade, a fill-or-kill that
        would not trade in full, self-trade prevention considered. O(1) but for fill-or-kill."""
        if order.tif is _POST_ONLY:
            return not self.crosses(order)
        if order.tif is not _FOK:
            return True
        side = self._asks if order.is_buy else self._bids
        wanted = order.quantity
        for maker in side.orders():
            # Every order of a side stands in a queue.
            if order.limit is not None and maker.queue.key < side.sign * order.limit:  # type: ignore[union-attr]
                return False
            if maker.owner is not order.owner:
                wanted -= maker.quantity
                if wanted <= 0:
                    return True
            elif order.stp is not _CANCEL_OLDEST:
                return False
        return False

    def match(self, taker: Order) -> Fill | None:
        """Trade ``taker`` with the first order it can trade with; None when there is none (left).

        One step at a time, so that the exchange can stop between two fills when one of them halts trading.
        """
        quantity = taker.quantity
        side = self._asks if taker.is_buy else self._bids
        if not quantity or not side.keys:
            return None
        key = side.keys[-1]
        limit = taker.limit
        if limit is not None and key < side.sign * limit:
            return None
        queue = side.queues[key]
        maker = queue.head
        if maker.owner is taker.owner:
            return self._prevent(side, queue, taker, maker)
        if quantity < maker.quantity:
            maker.quantity -= quantity
            queue.quantity -= quantity
            taker.quantity = 0
        else:
            quantity = maker.quantity
            taker.quantity -= quantity
            side.remove(maker, queue)
        return Fill(maker, side.sign * key, quantity)

    def _prevent(self, side: _Side, queue: _Queue, taker: Order, maker: Order) -> Fill:
        mine, theirs = taker.quantity, maker.quantity
        if taker.stp is _DECREMENT:
            mine = theirs = min(mine, theirs)
        elif taker.stp is _CANCEL_OLDEST:
            mine = 0
        elif taker.stp is _CANCEL_NEWEST:
            theirs = 0
        taker.quantity -= mine
        if theirs:
            side.take(maker, queue, theirs)
        return Fill(maker, side.sign * queue.key, 0, theirs, mine)

    def add(self, order: Order) -> None:
        """Put an order behind all others of its price, without a look at the other side: what :meth:`match` has
        left of it, or an order that waits for an auction. Market orders stand before all limits.

        Raises:
            ValueError: nothing left, or resting already.
        """
        if not order.quantity or order.queue is not None:
            raise ValueError(f"order {order.number} cannot rest: empty, or in the book already")
        (self._bids if order.is_buy else self._asks).add(order)

    def submit(self, order: Order) -> list[Fill]:
        """Match as far as its time in force lets it, and rest what is left where it may.

        What is neither traded nor resting afterwards, ``order.quantity``, has lapsed.
        """
        tif = order.tif
        if tif is not _GTC and not self.admits(order):
            return []
        fills = []
        while (fill := self.match(order)) is not None:
            fills.append(fill)
        if order.quantity and order.price is not None and (tif is _GTC or tif is _POST_ONLY):
            (self._bids if order.is_buy else self._asks).add(order)
        return fills

    def cancel(self, order: Order) -> int:
        """Take a resting order out. Returns its open lots; 0 when it is not in the book (any more)."""
        queue = order.queue
        if queue is None:
            return 0
        quantity = order.quantity
        (self._bids if order.is_buy else self._asks).remove(order, queue)
        return quantity

    def take(self, order: Order, quantity: int) -> None:
        """Take ``quantity`` lots, at most its open ones, of a resting order; the rest keeps its place.

        Raises:
            ValueError: the order does not rest, or has not so many lots.
        """
        queue = order.queue
        if queue is None or not 0 < quantity <= order.quantity:
            raise ValueError(f"order {order.number} has no {quantity} lots in the book")
        (self._bids if order.is_buy else self._asks).take(order, queue, quantity)

    def first(self, *, bids: bool) -> Order | None:
        """The order of one side that trades next."""
        side = self._bids if bids else self._asks
        return side.queues[side.keys[-1]].head if side.keys else None

    def orders(self) -> Iterator[Order]:
        """Every resting order: bids then asks, best price first, oldest first."""
        yield from self._bids.orders()
        yield from self._asks.orders()

    def waiting_market_orders(self) -> list[Order]:
        """The market orders that wait for an auction, buys then sells, oldest first."""
        return [order for order in self.orders() if order.price is None]

    def top(self, known: Top = EMPTY) -> Top:
        """The top of book, ``known`` itself where that still is it.

        Not to be asked while market orders wait for an auction: they have no price.
        """
        bid = ask = None
        bid_size = ask_size = 0
        side = self._bids
        if side.keys:
            bid = side.keys[-1]
            bid_size = side.queues[bid].quantity
        side = self._asks
        if side.keys:
            key = side.keys[-1]
            ask = -key
            ask_size = side.queues[key].quantity
        return known if known == (bid, bid_size, ask, ask_size) else Top(bid, bid_size, ask, ask_size)

    def depth(self, *, bids: bool, levels: int) -> list[Level]:
        """The first ``levels`` price levels of one side, best first; see :meth:`top` on market orders."""
        side = self._bids if bids else self._asks
        result = []
        for key in reversed(side.keys[-levels:] if levels else []):
            queue = side.queues[key]
            result.append(Level(side.sign * key, queue.quantity, queue.count))
        return result

    def curve(self, *, bids: bool) -> list[tuple[int | None, int]]:
        """(limit, lots) of one side, best first, market orders as (None, lots) before them."""
        side = self._bids if bids else self._asks
        return [
            (None if key == side.market_key else side.sign * key, side.queues[key].quantity)
            for key in reversed(side.keys)
        ]
