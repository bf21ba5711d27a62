"""A call auction: collected orders trade at once, all at one price.

In: a book in which orders rest without having been matched, possibly crossed, market orders among them; a
reference price. Out: the price, and the pairs that trade. Pure: integers only, no clock.

The price is the one at which most lots execute; of several, the one with the least imbalance; of these, the
nearest to the reference price (the rules of the large exchanges' opening and closing crosses). No tie is left:
the prices that are as good form a range without a hole. Market orders trade first, then by price, then by time;
an order willing to pay more than the price pays the price.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from simulator.book import Book, Order


class Clearing(NamedTuple):
    price: int
    """Ticks."""
    quantity: int
    """Lots that execute."""
    imbalance: int
    """Lots wanted minus lots offered at the price: above zero, buyers are left over."""


class Pair(NamedTuple):
    buy: Order
    sell: Order
    quantity: int
    is_self_trade: bool
    """Both have one owner: the lots are cancelled on both sides instead of traded."""


def clear(
    bids: Sequence[tuple[int | None, int]], asks: Sequence[tuple[int | None, int]], reference: int
) -> Clearing | None:
    """The auction's price from (limit in ticks or None for market, lots) of both sides, in any order.

    None: nothing can execute. O(n log n).
    """
    # Wanted and offered lots change at an ask's limit and one tick above a bid's; between, nothing changes, so
    # that of each such interval only the price nearest to the reference can win.
    wanted = sum(quantity for _, quantity in bids)
    offered = sum(quantity for limit, quantity in asks if limit is None)
    changes: dict[int, tuple[int, int]] = {1: (0, 0)}
    for limit, quantity in bids:
        if limit is not None:
            lost, gained = changes.get(limit + 1, (0, 0))
            changes[limit + 1] = (lost + quantity, gained)
    for limit, quantity in asks:
        if limit is not None:
            lost, gained = changes.get(limit, (0, 0))
            changes[limit] = (lost, gained + quantity)
    starts = sorted(changes)
    best: tuple[int, int, int] | None = None
    found: Clearing | None = None
    for index, start in enumerate(starts):
        lost, gained = changes[start]
        wanted -= lost
        offered += gained
        executed = min(wanted, offered)
        if not executed:
            continue
        price = max(start, reference)
        if index + 1 < len(starts):
            price = min(price, starts[index + 1] - 1)
        rank = (-executed, abs(wanted - offered), abs(price - reference))
        if best is None or rank < best:
            best = rank
            found = Clearing(price, executed, wanted - offered)
    return found


def uncross(book: Book, quantity: int) -> Iterator[Pair]:
    """Take the auction's ``quantity`` lots out of both sides in priority; afterwards the book is not crossed."""
    while quantity:
        buy, sell = book.first(bids=True), book.first(bids=False)
        if buy is None or sell is None:
            raise ValueError(f"the book has {quantity} lots less than the auction executes")
        lots = min(buy.quantity, sell.quantity, quantity)
        book.take(buy, lots)
        book.take(sell, lots)
        quantity -= lots
        yield Pair(buy, sell, lots, buy.owner is sell.owner)
