"""What books and quotes say, columns at a time, is what a plain reading of each of them says."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Context, Decimal
from itertools import pairwise
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.quality.partition import misstated as misstated_sql
from lakehouse.silver.books import SAID, SUMMARY, misstated, spread, summed_up
from lakehouse.tables import arrow_schema

SCHEMA = pa.schema([arrow_schema("silver.orderbook").field(name) for name in ("event_id", "bids", "asks")])
LAST = Decimal("0.00000001")
EXACT = Context(prec=40)
LARGEST = Decimal("9999999999.99999999")

amounts = st.one_of(
    st.sampled_from([LARGEST, -LARGEST, Decimal(0), LAST, -LAST, 2 * LAST, Decimal(100)]),
    st.decimals(-LARGEST, LARGEST, places=8),
)
levels = st.lists(
    st.fixed_dictionaries({"price": amounts, "quantity": amounts, "order_count": st.integers(0, 9)}), max_size=12
)
books = st.lists(st.tuples(levels, levels), max_size=8)
cuts = st.lists(st.integers(0, 8), max_size=3)
Book = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def table(listed: list[Book], cut_at: list[int]) -> pa.Table:
    """Books in several parts, each of which begins anywhere in a longer array."""
    rows = [{"event_id": str(i), "bids": bids, "asks": asks} for i, (bids, asks) in enumerate(listed)]
    whole = pa.Table.from_pylist(rows, schema=SCHEMA)
    ends = [0, *sorted(min(cut, len(rows)) for cut in cut_at), len(rows)]
    return pa.concat_tables([whole.slice(begin, end - begin) for begin, end in pairwise(ends)])


def plainly(book: Book) -> dict[str, Any]:
    bids, asks = book
    bid, ask = (side[0]["price"] if side else None for side in book)
    possible = bid is not None and ask is not None and 0 < bid < ask
    bid_depth, ask_depth = (
        EXACT.quantize(sum((level["quantity"] for level in side), Decimal(0)), LAST) for side in book
    )
    return {
        "best_bid_price": bid,
        "best_bid_qty": bids[0]["quantity"] if bids else None,
        "best_ask_price": ask,
        "best_ask_qty": asks[0]["quantity"] if asks else None,
        "spread": ask - bid if possible else None,
        "mid_price": EXACT.divide(EXACT.add(bid, ask), 2).quantize(LAST, ROUND_HALF_UP, EXACT)
        if possible
        else None,
        "bid_depth": bid_depth,
        "ask_depth": ask_depth,
        "bid_levels": len(bids),
        "ask_levels": len(asks),
        "levels_positive": all(level["price"] > 0 and level["quantity"] > 0 for level in [*bids, *asks]),
    }


@given(books, cuts)
def test_books_are_summed_up(listed: list[Book], cut_at: list[int]) -> None:
    found = summed_up(table(listed, cut_at))
    found.validate(full=True)
    assert found.schema == SUMMARY
    assert found.to_pylist() == [plainly(book) for book in listed]


def test_a_depth_may_need_more_than_64_bits() -> None:
    side = [{"price": LARGEST, "quantity": LARGEST, "order_count": 1}] * 1000
    (found,) = summed_up(table([(side, [])], [])).to_pylist()
    assert found["bid_depth"] == EXACT.multiply(1000, LARGEST)


@given(
    books,
    cuts,
    st.dictionaries(
        st.tuples(st.integers(0, 7), st.sampled_from([name for names in SAID.values() for name in names])),
        st.sampled_from([1, -1, None]),
        max_size=4,
    ),
)
def test_books_that_do_not_say_what_their_levels_do_are_found_as_by_sql(
    listed: list[Book], cut_at: list[int], falsified: dict[tuple[int, str], int | None]
) -> None:
    said = [plainly(book) for book in listed]
    plain = {
        (str(number), "order")
        for number, (bids, asks) in enumerate(listed)
        if any(one["price"] < two["price"] for one, two in pairwise(bids))
        or any(one["price"] > two["price"] for one, two in pairwise(asks))
    }
    for (number, name), by in falsified.items():
        kind = SUMMARY.field(name)
        if number >= len(said) or (by is None and (said[number][name] is None or not kind.nullable)):
            continue
        told = said[number][name] or 0
        if by is None or pa.types.is_integer(kind.type):
            other = None if by is None else told + by
        else:
            other = EXACT.add(told, by * LAST) if abs(told) != LARGEST else Decimal(0)
        said[number][name] = other
        plain.add((str(number), next(what for what, names in SAID.items() if name in names)))
    rows = table(listed, cut_at)
    summary = pa.Table.from_pylist(said, SUMMARY)
    for name in SUMMARY.names:
        rows = rows.append_column(SUMMARY.field(name), summary[name])
    found = misstated(rows)
    assert sorted(zip(*found.to_pydict().values(), strict=True)) == sorted(plain)
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("books", rows)
        assert sorted(connection.execute(misstated_sql("from books")).fetchall()) == sorted(plain)


@pytest.mark.parametrize("null", ["side", "level", "price"])
def test_nulls_are_refused(null: str) -> None:
    level = pa.struct([("price", pa.decimal128(18, 8)), ("quantity", pa.decimal128(18, 8))])
    bids: Any = {"side": None, "level": [None], "price": [{"price": None, "quantity": Decimal(1)}]}[null]
    rows = pa.table({side: pa.array([[], bids], pa.large_list(level)) for side in ("bids", "asks")})
    with pytest.raises(ValueError, match="null"):
        summed_up(rows)


@given(st.lists(st.tuples(st.none() | amounts, st.none() | amounts), max_size=9))
def test_the_spread_of_a_quote_is_exact(listed: list[tuple[Decimal | None, Decimal | None]]) -> None:
    # Of quotes that are not to be kept, those with a price of 0 or less, it may be anything.
    kept = [(bid, ask) for bid, ask in listed if (bid is None or bid > 0) and (ask is None or ask > 0)]
    price = pa.decimal128(18, 8)
    rows = pa.table(
        {"best_bid": pa.array([b for b, _ in kept], price), "best_ask": pa.array([a for _, a in kept], price)}
    )
    exact = [ask - bid if bid is not None and ask is not None and bid < ask else None for bid, ask in kept]
    assert spread(rows)["spread"].to_pylist() == exact
