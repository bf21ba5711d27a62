"""Copies among the newest records, for any batching and over snapshots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from dataflows.duplicates import REMEMBERED, Recent

IDENTITIES = st.lists(st.integers(1 - 2**63, 2**63 - 1) | st.integers(0, 30), max_size=60)


def new(recent: Recent, identities: Sequence[int]) -> list[bool]:
    return recent.new(np.array(identities, np.int64)).tolist()


def answers(
    identities: list[int], cuts: Iterable[int], *, crash: bool, remembered: int = REMEMBERED
) -> list[bool]:
    recent, found, begin = Recent(remembered=remembered), [], 0
    for end in [*sorted(set(cuts)), len(identities)]:
        found += new(recent, identities[begin:end])
        begin = max(begin, end)
        if crash:
            recent = Recent(recent.snapshot(), remembered)
    return found


@given(IDENTITIES, st.lists(st.integers(0, 60)), st.booleans())
def test_the_first_of_its_copies_is_new_and_no_other(identities: list[int], cuts: list[int], crash: bool) -> None:
    expected = [identity not in identities[:place] for place, identity in enumerate(identities)]
    assert answers(identities, cuts, crash=crash) == expected


@given(IDENTITIES, st.lists(st.integers(0, 60)), st.booleans())
# Copies that push out what they are not copies of; one that is forgotten and comes again.
@example(identities=[0, 1, -1, 2, -2, 0, 1, -1, 2], cuts=[], crash=False)
@example(identities=[0, 2, -2, 3, -3, 4, 1, -1, -2, 3, 0, 2, 1], cuts=[], crash=False)
def test_what_is_forgotten_does_not_depend_on_the_batching(
    identities: list[int], cuts: list[int], crash: bool
) -> None:
    one_by_one = answers(identities, range(len(identities)), crash=False, remembered=4)
    assert answers(identities, cuts, crash=crash, remembered=4) == one_by_one
    for place, identity in enumerate(identities):
        remembered = [i for i, first in zip(identities[:place], one_by_one, strict=False) if first]
        if identity in list(dict.fromkeys(reversed(remembered)))[:4]:
            assert not one_by_one[place]


def test_memory_is_bounded() -> None:
    recent = Recent()
    for begin in range(0, 10 * REMEMBERED, 7_000):
        assert all(new(recent, range(begin, begin + 7_000)))
        young, old = recent.snapshot()
        assert len(young) + len(old) <= 2 * REMEMBERED * 8
    assert not any(new(recent, range(10 * REMEMBERED - 1_000, 10 * REMEMBERED)))
