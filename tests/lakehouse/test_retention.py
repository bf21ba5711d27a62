"""Which snapshots stay: the newest, some older ones, and what a query may still be reading."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pyiceberg.table.snapshots import Operation

from lakehouse.retention import HISTORY, READERS, expirable

DAY_S = HISTORY // timedelta(seconds=1)
NO_REFS: Mapping[str, int] = {}


def kept(
    times_s: Sequence[int], keep: int = 2, overwrites: tuple[int, ...] = (), refs: Mapping[str, int] = NO_REFS
) -> list[int]:
    """Times of the snapshots that stay; snapshots are named by their time, oldest first."""
    snapshots = [
        SimpleNamespace(
            snapshot_id=time,
            parent_snapshot_id=parent,
            sequence_number=number,
            timestamp_ms=1000 * time,
            summary=SimpleNamespace(operation=Operation.OVERWRITE if time in overwrites else Operation.APPEND),
        )
        for number, (parent, time) in enumerate(itertools.pairwise([None, *times_s]), 1)
    ]
    named = {name: SimpleNamespace(snapshot_id=time) for name, time in refs.items()}
    metadata: Any = SimpleNamespace(snapshots=snapshots, refs=named)
    gone = set(expirable(metadata, keep))
    return [time for time in times_s if time not in gone]


def test_the_newest_stay_and_the_head_of_a_tag() -> None:
    assert kept([1, 2, 3, 4, 5], refs={"audit": 2}) == [2, 4, 5]


def test_before_the_newest_one_a_minute_and_then_ever_fewer_stay_up_to_a_day() -> None:
    stay = kept(range(5, DAY_S + 3600, 5), keep=50)
    ages = [stay[-1] - time for time in stay]
    assert ages[-50:] == list(range(245, -1, -5))
    older = ages[:-50]
    assert 20 <= len(older) <= 35
    assert 0.8 * DAY_S < older[0] <= DAY_S
    assert all(a - b <= max(120, a / 2) for a, b in itertools.pairwise(older))


def test_the_snapshot_before_files_were_replaced_stays_while_queries_may_read_it() -> None:
    assert kept([1, 2, 3, 4, 5, 6], overwrites=(3,)) == [2, 5, 6]
    later = 3 + READERS // timedelta(seconds=1)
    assert kept([1, 2, 3, later - 10, later - 9, later], overwrites=(3,)) == [1, later - 9, later]


@settings(max_examples=25)
@given(st.integers(1, 3000), st.integers(1, 300), st.integers(2, 60))
def test_at_any_rate_of_commits_their_number_stays_small_and_a_day_is_covered(
    commits: int, every_s: int, keep: int
) -> None:
    """Expired again and again, as writers do."""
    stay: list[int] = []
    for number in range(1, commits + 1):
        stay.append(number * every_s)
        if number % 100 == 0:
            stay = kept(stay, keep)
    stay = kept(stay, keep)
    assert len(stay) <= keep + 35
    assert stay[-1] - stay[0] >= min((commits - 100) * every_s - 60, 0.8 * DAY_S - 100 * every_s)
