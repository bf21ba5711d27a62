"""simulator.recorded.venue_book: the venue's sequence rules, and the levels against a naive book."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.recorded.venue_book import BookDiff, Level, VenueBook, units


def diff(
    first: int, last: int, previous: int, bids: list[Level] | None = None, asks: list[Level] | None = None
) -> BookDiff:
    return BookDiff(first, last, previous, bids or [], asks or [])


def book_at(update_id: int) -> VenueBook:
    book = VenueBook()
    assert book.apply_snapshot(update_id, [("100.0", "1.000"), ("99.0", "2.000")], [("101.0", "3.000")])
    return book


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("0.000", 0),
        ("61800.20", 6_180_020_000_000),
        ("0.00000001", 1),
        ("9999999999.99999999", 10**18 - 1),
    ],
)
def test_units_are_exact(text: str, expected: int) -> None:
    assert units(text) == expected


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1e5", "NaN", "01", ".5", "5.", " 1", "1_0", "1.123456789", "12345678901", "١"]
)
def test_what_is_no_plain_json_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a decimal number"):
        units(text)


def test_a_diff_sets_replaces_and_removes_levels() -> None:
    book = book_at(10)
    assert book.apply_diff(diff(9, 12, 8, [("100.5", "0.5"), ("99.0", "0.000")], [("101.0", "4")]))
    assert book.top(5) == ([("100.5", "0.5"), ("100.0", "1.000")], [("101.0", "4")])
    assert book.last_update_id == 12


def test_removing_an_unknown_level_changes_nothing() -> None:
    book = book_at(10)
    assert book.apply_diff(diff(9, 12, 8, [("1.0", "0.000")]))
    assert book.top(5) == ([("100.0", "1.000"), ("99.0", "2.000")], [("101.0", "3.000")])


def test_diffs_before_the_snapshot_are_kept_and_those_it_covers_are_dropped() -> None:
    book = VenueBook()
    assert not book.apply_diff(diff(1, 5, 0, [("1.0", "9")]))  # older than the snapshot
    assert not book.apply_diff(diff(6, 12, 5, [("100.5", "7")]))  # reaches over it
    assert not book.apply_diff(diff(13, 15, 12, [("99.5", "8")]))
    assert book.apply_snapshot(10, [("100.0", "1")], [])
    assert book.top(5) == ([("100.5", "7"), ("100.0", "1"), ("99.5", "8")], [])
    assert (book.last_update_id, book.gaps, book.resyncs) == (15, 0, 0)


def test_the_first_diff_may_begin_after_the_snapshot_when_nothing_lies_between() -> None:
    book = book_at(10)
    assert book.apply_diff(diff(12, 14, 10))
    assert book.gaps == 0


def test_a_first_diff_beyond_the_snapshot_is_a_gap() -> None:
    book = book_at(10)
    assert not book.apply_diff(diff(13, 14, 12))
    assert (book.synchronised, book.gaps, book.top(5)) == (False, 1, ([], []))


def test_a_broken_chain_empties_the_book_until_the_next_snapshot() -> None:
    book = book_at(10)
    assert book.apply_diff(diff(11, 12, 10))
    assert not book.apply_diff(diff(20, 22, 19, [("100.7", "1")]))
    assert (book.synchronised, book.gaps, book.top(5)) == (False, 1, ([], []))
    assert not book.apply_diff(diff(23, 24, 22, [("100.8", "2")]))
    assert book.apply_snapshot(21, [("90.0", "1")], [("110.0", "1")])
    assert book.top(5) == ([("100.8", "2"), ("100.7", "1"), ("90.0", "1")], [("110.0", "1")])
    assert (book.gaps, book.resyncs) == (1, 1)


def test_a_chain_torn_while_waiting_is_joined_only_from_where_it_holds() -> None:
    book = VenueBook()
    book.apply_diff(diff(1, 5, 0, [("1.0", "9")]))
    book.apply_diff(diff(20, 25, 19, [("2.0", "9")]))  # 6 to 19 are missing
    assert book.apply_snapshot(22, [("100.0", "1")], [])
    assert book.top(5) == ([("100.0", "1"), ("2.0", "9")], [])


def test_a_redelivered_diff_is_dropped_and_is_no_gap() -> None:
    book = book_at(10)
    again = diff(11, 12, 10, [("100.5", "1")])
    assert book.apply_diff(again)
    assert not book.apply_diff(again)
    assert (book.synchronised, book.gaps) == (True, 0)


def test_a_book_in_sync_ignores_a_snapshot() -> None:
    book = book_at(10)
    assert not book.apply_snapshot(9, [], [])
    assert book.top(5)[0] == [("100.0", "1.000"), ("99.0", "2.000")]


def test_a_diff_with_a_broken_number_loses_the_sync() -> None:
    book = book_at(10)
    with pytest.raises(ValueError, match="'x' is not a decimal number"):
        book.apply_diff(diff(11, 12, 10, [("100.5", "x")]))
    assert (book.synchronised, book.gaps, book.top(5)) == (False, 1, ([], []))


def test_a_snapshot_with_a_broken_number_leaves_the_book_unsynchronised() -> None:
    book = VenueBook()
    with pytest.raises(ValueError, match="is not a decimal number"):
        book.apply_snapshot(10, [("100.0", "1"), ("99.0", "-1")], [])
    assert (book.synchronised, book.top(5)) == (False, ([], []))


_levels = st.lists(
    st.tuples(st.integers(1, 40).map(lambda n: f"{n / 2:.1f}"), st.integers(0, 3).map(lambda n: f"{n}.00")),
    max_size=8,
)


@given(st.lists(st.tuples(_levels, _levels), max_size=12), st.integers(1, 10))
def test_the_top_equals_a_naive_book(diffs: list[tuple[list[Level], list[Level]]], depth: int) -> None:
    book = VenueBook()
    book.apply_snapshot(0, [], [])
    naive: tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]] = ({}, {})
    for number, sides in enumerate(diffs, 1):
        assert book.apply_diff(diff(number, number, number - 1, *sides))
        for levels, known in zip(sides, naive, strict=True):
            for price, quantity in levels:
                known[Decimal(price)] = Decimal(quantity)
    bids = sorted(((p, q) for p, q in naive[0].items() if q), reverse=True)[:depth]
    asks = sorted((p, q) for p, q in naive[1].items() if q)[:depth]
    top = tuple([(Decimal(price), Decimal(quantity)) for price, quantity in side] for side in book.top(depth))
    assert top == (bids, asks)
