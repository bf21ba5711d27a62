"""Versions of a dimension's members, whatever changes are told, when and in which order."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.dimensions.scd2 import EPOCH, Scd2
from lakehouse.dimensions.versions import scd3_rows

DIMENSION = Scd2("number", "member", ("colour",))
NOW = datetime(2026, 3, 13, tzinfo=UTC)
MONDAY = datetime(2026, 3, 9, tzinfo=UTC)

moments = st.integers(0, 50).map(lambda hours: MONDAY + timedelta(hours=hours))
change = st.tuples(st.sampled_from("ab"), moments, st.sampled_from(["red", "green", "blue"]))
changes = st.dictionaries(
    st.tuples(st.sampled_from("ab"), moments), st.sampled_from(["red", "green", "blue"])
).map(lambda told: [(member, moment, colour) for (member, moment), colour in told.items()])


def listed(*told: tuple[str, datetime | None, str]) -> list[dict[str, str]]:
    return [
        {"member": member, "colour": colour, "valid_from": "" if moment is None else moment.isoformat()}
        for member, moment, colour in told
    ]


def without_numbers(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = [{k: v for k, v in row.items() if k != "number"} for row in rows]
    return sorted(kept, key=lambda row: (row["member"], row["valid_from"]))


@given(told=changes)
def test_versions_neither_overlap_nor_gap_and_say_what_was_told(told: list[tuple[str, datetime, str]]) -> None:
    rows = DIMENSION.after([], listed(*told), NOW)
    for member in {member for member, _, _ in told}:
        own = sorted((row for row in rows if row["member"] == member), key=lambda row: row["valid_from"])
        assert [row["valid_to"] for row in own] == [row["valid_from"] for row in own[1:]] + [None]
        assert all(row["valid_to"] is None or row["valid_from"] < row["valid_to"] for row in own)
        assert [row["is_current"] for row in own] == [False] * (len(own) - 1) + [True]
    assert {(row["member"], row["valid_from"], row["colour"]) for row in rows} == set(told)
    assert len({row["number"] for row in rows}) == len(rows)


@given(told=changes, seed=st.integers())
def test_changes_may_be_told_one_by_one_in_any_order(told: list[tuple[str, datetime, str]], seed: int) -> None:
    keeps = Scd2("number", "member", ("colour",), closes=False)
    at_once = keeps.after([], listed(*told), NOW)
    shuffled = list(told)
    random.Random(seed).shuffle(shuffled)
    rows: list[dict[str, Any]] = []
    for one in shuffled:
        rows = keeps.after(rows, listed(one), NOW)
        assert keeps.after(rows, listed(one), NOW + timedelta(days=1)) == rows  # told again
    assert without_numbers(rows) == without_numbers(at_once)


@given(states=st.lists(st.dictionaries(st.sampled_from("abc"), st.sampled_from(["red", "green"])), max_size=8))
def test_what_is_listed_now_holds_from_now_on_and_the_past_stays(states: list[dict[str, str]]) -> None:
    rows: list[dict[str, Any]] = []
    for day, state in enumerate(states):
        as_of = MONDAY + timedelta(days=day)
        before = rows
        rows = DIMENSION.after(rows, listed(*((m, None, c) for m, c in state.items())), as_of)
        assert {row["member"]: row["colour"] for row in rows if row["is_current"]} == state
        past = {(row["number"], row["valid_from"], row["colour"]) for row in before}
        assert past <= {(row["number"], row["valid_from"], row["colour"]) for row in rows}
        again = listed(*((m, None, c) for m, c in state.items()))
        assert DIMENSION.after(rows, again, as_of + timedelta(hours=1)) == rows


def test_a_first_word_without_a_time_holds_from_the_beginning() -> None:
    (row,) = DIMENSION.after([], listed(("a", None, "red")), NOW)
    assert (row["valid_from"], row["valid_to"]) == (EPOCH, None)


def test_a_word_on_the_same_moment_corrects_the_one_before() -> None:
    rows = DIMENSION.after([], listed(("a", MONDAY, "red")), NOW)
    (row,) = DIMENSION.after(rows, listed(("a", MONDAY, "green")), NOW)
    assert (row["colour"], row["number"]) == ("green", 1)


def test_a_row_that_begins_in_the_future_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a: valid_from .* lies after .*, now; add the row when it holds"):
        DIMENSION.after([], listed(("a", NOW + timedelta(seconds=1), "red")), NOW)


def test_type_3_keeps_the_value_before_the_last_change() -> None:
    def told(tier: str, owner: str = "x") -> list[dict[str, str]]:
        return [{"account": "1", "owner": owner, "tier": tier}]

    def after(rows: list[dict[str, Any]], account: list[dict[str, str]], day: int) -> list[dict[str, Any]]:
        return scd3_rows(rows, account, "account", ["tier"], MONDAY + timedelta(days=day))

    rows = after([], told("retail"), 0)
    assert rows == [
        {"account": "1", "owner": "x", "tier": "retail", "previous_tier": None, "tier_changed_at": None}
    ]
    assert after(rows, told("retail"), 1) == rows
    rows = after(rows, told("professional", "y"), 2)
    assert rows == [
        {
            "account": "1",
            "owner": "y",
            "tier": "professional",
            "previous_tier": "retail",
            "tier_changed_at": MONDAY + timedelta(days=2),
        }
    ]
    assert after(rows, told("professional", "y"), 3) == rows
    assert after(rows, [], 4) == rows
