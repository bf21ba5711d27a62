"""What the levels of a book say: best prices and sizes, spread, mid, depth in quantity and in levels.

In: rows with ``bids`` and ``asks``, best level first. Out: one row for each. Pure; columns at a time, because
lists taken one by one cost many times as much. A decimal(18,8) is here the integer that counts its last digit,
which fits into 64 bits; so does the sum of two.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lakehouse.buffers import column, decimal_column, halves_added, packed, units
from lakehouse.texts import Integers

Flags = NDArray[np.bool_]

_PRICE, _VOLUME = pa.decimal128(18, 8), pa.decimal128(28, 8)
SUMMARY = pa.schema(
    [
        *((f"best_{name}", _PRICE) for name in ("bid_price", "bid_qty", "ask_price", "ask_qty")),
        ("spread", _PRICE),
        ("mid_price", _PRICE),
        pa.field("bid_depth", _VOLUME, nullable=False),
        pa.field("ask_depth", _VOLUME, nullable=False),
        pa.field("bid_levels", pa.int32(), nullable=False),
        pa.field("ask_levels", pa.int32(), nullable=False),
        pa.field("levels_positive", pa.bool_(), nullable=False),
    ]
)


def summed_up(books: pa.Table) -> pa.Table:
    """:data:`SUMMARY` of each book: whether price and quantity of all levels are above 0, and what is to be had.

    An empty side has no best price, so no spread and no mid either; its depth is 0. Spread and mid are told of
    books alone that are possible, with the best bid below the best ask, both above 0. Where the mid has a ninth
    decimal it is rounded half up.

    Args:
        books: columns ``bids`` and ``asks``, large lists of price, quantity and more; nothing in them is null.

    Raises:
        ValueError: something is null.
    """
    batches = books.select(["bids", "asks"]).to_batches()
    return pa.Table.from_batches(map(_summed_up, batches), SUMMARY)


def spread(quotes: pa.Table) -> pa.Table:
    """Best ask minus best bid of each quote: what the frame tells may be rounded, or missing.

    Null where a side is empty, and where the best bid is not below the best ask.
    """
    parts = []
    for batch in quotes.select(["best_bid", "best_ask"]).to_batches():
        bid, ask = (units(batch[name]) for name in ("best_bid", "best_ask"))
        there = pc.and_(batch["best_bid"].is_valid(), batch["best_ask"].is_valid()).to_numpy(zero_copy_only=False)
        parts.append(decimal_column(_PRICE, ask - bid, there & (bid < ask)))
    return pa.table({"spread": pa.chunked_array(parts, _PRICE)})


def unsorted(books: pa.Table) -> pa.Table:
    """The ``event_id`` of books whose bids rise, or whose asks fall, anywhere. Raises: as :func:`summed_up`."""
    found = [pa.table({"event_id": pa.array([], pa.large_string())})]
    for batch in books.select(["event_id", "bids", "asks"]).to_batches():
        bids, asks = _Levels(batch["bids"]), _Levels(batch["asks"])
        wrong = np.zeros(len(batch), np.bool_)
        wrong[bids.where(np.diff(bids.prices) > 0)] = True
        wrong[asks.where(np.diff(asks.prices) < 0)] = True
        if wrong.any():
            found.append(pa.Table.from_batches([batch.select(["event_id"]).filter(pa.array(wrong))]))
    return pa.concat_tables(found, promote_options="default")


def _summed_up(books: pa.RecordBatch) -> pa.RecordBatch:
    bids, asks = _Side(books["bids"]), _Side(books["asks"])
    possible = bids.filled & asks.filled & (bids.price > 0) & (bids.price < asks.price)
    columns = {
        "best_bid_price": decimal_column(_PRICE, bids.price, bids.filled),
        "best_bid_qty": decimal_column(_PRICE, bids.quantity, bids.filled),
        "best_ask_price": decimal_column(_PRICE, asks.price, asks.filled),
        "best_ask_qty": decimal_column(_PRICE, asks.quantity, asks.filled),
        "spread": decimal_column(_PRICE, asks.price - bids.price, possible),
        "mid_price": decimal_column(_PRICE, (bids.price + asks.price + 1) >> 1, possible),
        "bid_depth": bids.depth,
        "ask_depth": asks.depth,
        "bid_levels": column(pa.int32(), bids.levels.astype(np.int32)),
        "ask_levels": column(pa.int32(), asks.levels.astype(np.int32)),
        "levels_positive": column(pa.bool_(), packed(bids.positive & asks.positive), len(books)),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in SUMMARY.names], schema=SUMMARY)


class _Levels:
    """All levels of one side, book after book; ``begins``: the first of each book, and their number."""

    def __init__(self, lists: pa.LargeListArray) -> None:
        offsets = lists.offsets.to_numpy()
        levels = lists.values.slice(offsets[0], offsets[-1] - offsets[0])
        columns = [levels.field(name) for name in ("price", "quantity")]
        if any(column.null_count for column in (lists, levels, *columns)):
            raise ValueError("a book has a side, a level, a price or a quantity that is null")
        self.prices, self.quantities = map(units, columns)
        self.begins: Integers = offsets - offsets[0]

    def where(self, steps: Flags) -> Integers:
        """Books in which a step from a level to the next one is true."""
        between = self.begins[(self.begins > 0) & (self.begins <= len(steps))] - 1
        steps[between] = False
        return np.searchsorted(self.begins, np.flatnonzero(steps), side="right") - 1


class _Side:
    """One side of each book: levels, whether there are any (``filled``), the best level's price and quantity."""

    def __init__(self, lists: pa.LargeListArray) -> None:
        listed = _Levels(lists)
        prices, quantities = listed.prices, listed.quantities
        self.levels: Integers = np.diff(listed.begins)
        self.filled: Flags = self.levels > 0
        first = listed.begins[:-1][self.filled]
        self.price, self.quantity = (self._scattered(column[first]) for column in (prices, quantities))
        self.positive: Flags = np.ones(len(lists), np.bool_)
        if len(first) and min(prices.min(), quantities.min()) <= 0:
            self.positive[self.filled] = np.minimum.reduceat(np.minimum(prices, quantities), first) > 0
        self.depth = self._depth(quantities, first)

    def _depth(self, quantities: Integers, first: Integers) -> pa.Array:
        """In two halves where a sum may need more than 64 bits."""
        if not len(first):
            return decimal_column(_VOLUME, np.zeros(len(self.levels), np.int64))
        most = int(self.levels.max())
        if most * int(quantities.min()) > -(2**63) and most * int(quantities.max()) < 2**63:
            return decimal_column(_VOLUME, self._scattered(np.add.reduceat(quantities, first)))
        above, below = (
            self._scattered(np.add.reduceat(part, first)) for part in (quantities >> 32, quantities & 0xFFFFFFFF)
        )
        return halves_added(_VOLUME, above, below)

    def _scattered(self, of_filled: Integers) -> Integers:
        """0 for the empty sides."""
        if len(of_filled) == len(self.filled):
            return of_filled
        column = np.zeros(len(self.filled), np.int64)
        column[self.filled] = of_filled
        return column
