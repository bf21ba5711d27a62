"""What the levels of a book say: best prices and sizes, spread, mid, depth in quantity and in levels.

In: rows with ``bids`` and ``asks``, best level first. Out: one row for each. Pure; compiled code goes through the
levels once. A decimal(18,8) is here the integer that counts its last digit: it fits into 64 bits, and so does the
sum of two.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lakehouse.buffers import column, decimal_column, halves_added, packed, units
from lakehouse.compiled import compiled
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
SAID = {
    "best": ("best_bid_price", "best_bid_qty", "best_ask_price", "best_ask_qty"),
    "depth": ("bid_depth", "ask_depth"),
    "levels": ("bid_levels", "ask_levels"),
}
"""What a row of silver.orderbook says that its levels say, too."""
_MISSTATED = pa.schema([("event_id", pa.large_string()), ("wrong", pa.string())])


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


def misstated(books: pa.Table) -> pa.Table:
    """The ``event_id`` of rows that do not say what their levels do, and what is ``wrong``: the ``order`` of the
    levels, because bids rise or asks fall anywhere, or a name in :data:`SAID`.

    Args:
        books: as for :func:`summed_up`, with the columns of :data:`SAID`.

    Raises:
        ValueError: something in a level is null.
    """
    found = [_MISSTATED.empty_table()]
    said = [name for names in SAID.values() for name in names]
    for batch in books.select(["event_id", "bids", "asks", *said]).to_batches():
        bids, asks = _side(batch["bids"]), _side(batch["asks"])
        says, wrong = _summary(bids, asks), {"order": bids.rises | asks.falls}
        for what, names in SAID.items():
            wrong[what] = np.any([_differ(batch[name], says[name]) for name in names], axis=0)
        for what, flags in wrong.items():
            if flags.any():
                ids = batch["event_id"].filter(column(pa.bool_(), packed(flags), len(flags)))
                found.append(pa.table([ids, [what] * len(ids)], schema=_MISSTATED))
    return pa.concat_tables(found)


def _differ(one: pa.Array, other: pa.Array) -> Flags:
    """Where one is not what the other is; null is null."""
    if one.equals(other):
        return np.zeros(len(one), np.bool_)
    differ = pc.or_(pc.fill_null(pc.not_equal(one, other), False), pc.xor(one.is_null(), other.is_null()))
    flags: Flags = differ.to_numpy(zero_copy_only=False)
    return flags


def _summed_up(books: pa.RecordBatch) -> pa.RecordBatch:
    return _summary(_side(books["bids"]), _side(books["asks"]))


def _summary(bids: _Side, asks: _Side) -> pa.RecordBatch:
    some_bids, some_asks = bids.levels > 0, asks.levels > 0
    possible = some_bids & some_asks & (bids.price > 0) & (bids.price < asks.price)
    columns = {
        "best_bid_price": decimal_column(_PRICE, bids.price, some_bids),
        "best_bid_qty": decimal_column(_PRICE, bids.quantity, some_bids),
        "best_ask_price": decimal_column(_PRICE, asks.price, some_asks),
        "best_ask_qty": decimal_column(_PRICE, asks.quantity, some_asks),
        "spread": decimal_column(_PRICE, asks.price - bids.price, possible),
        "mid_price": decimal_column(_PRICE, (bids.price + asks.price + 1) >> 1, possible),
        "bid_depth": halves_added(_VOLUME, bids.depth_above, bids.depth_below),
        "ask_depth": halves_added(_VOLUME, asks.depth_above, asks.depth_below),
        "bid_levels": column(pa.int32(), bids.levels.astype(np.int32)),
        "ask_levels": column(pa.int32(), asks.levels.astype(np.int32)),
        "levels_positive": column(pa.bool_(), packed(bids.positive & asks.positive), len(bids.levels)),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in SUMMARY.names], schema=SUMMARY)


class _Side(NamedTuple):
    """One side of each book; of an empty one price, quantity and depth are 0."""

    levels: Integers
    price: Integers
    """Of the best level, as ``quantity``."""
    quantity: Integers
    depth_above: Integers
    """Quantity of all levels: times 2**32, plus ``depth_below``. One number may need more than 64 bits."""
    depth_below: Integers
    positive: Flags
    """Whether all prices and quantities are above 0."""
    rises: Flags
    """Whether a price is above that of the level before."""
    falls: Flags


def _side(lists: pa.LargeListArray) -> _Side:
    begins = lists.offsets.to_numpy()
    levels = lists.values
    price, quantity = levels.field("price"), levels.field("quantity")
    if any(part.null_count for part in (lists, levels, price, quantity)):
        raise ValueError("a book has a side, a level, a price or a quantity that is null")
    sums, flags = np.zeros((5, len(lists)), np.int64), np.zeros((3, len(lists)), np.bool_)
    _look(begins, units(price), units(quantity), sums, flags)
    return _Side(*sums, *flags)


@compiled
def _look(begins: Integers, prices: Integers, quantities: Integers, sums: Integers, flags: Flags) -> None:
    """Fill in a side's ``sums`` and ``flags``, in the order that they have there."""
    for book in range(len(begins) - 1):
        begin, end = begins[book], begins[book + 1]
        above = below = 0
        positive, rises, falls = True, False, False
        for level in range(begin, end):
            price, quantity = prices[level], quantities[level]
            above += quantity >> 32
            below += quantity & 0xFFFFFFFF
            positive &= price > 0 and quantity > 0
            if level > begin:
                rises |= price > prices[level - 1]
                falls |= price < prices[level - 1]
        sums[0, book] = end - begin
        if end > begin:
            sums[1, book], sums[2, book] = prices[begin], quantities[begin]
        sums[3, book], sums[4, book] = above, below
        flags[0, book], flags[1, book], flags[2, book] = positive, rises, falls
