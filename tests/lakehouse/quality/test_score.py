"""A score is made of what was found, with fixed weights."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.quality.contract import CheckOutcome
from lakehouse.quality.score import Score, mean, score

RATIO = st.floats(0, 1)


def outcome(dimension: str, failing_rows: int, rule: str = "r") -> CheckOutcome:
    result = "failed" if failing_rows else "passed"
    return CheckOutcome("t", "c", rule, "title", None, "critical", result, None, failing_rows, dimension=dimension)


def test_each_part_comes_from_the_rows_that_fail() -> None:
    found = [
        outcome("completeness", 5),
        outcome("completeness", 0),
        outcome("accuracy", 20),
        outcome("consistency", 10),
        outcome("uniqueness", 2),
        outcome("timeliness", 1, "fresh"),
        outcome("timeliness", 7, "not_late"),
        outcome("drift", 3),
    ]
    assert score(100, found) == Score(completeness=0.975, accuracy=0.7, freshness=0.0, uniqueness=0.98)
    assert score(100, found).overall == pytest.approx(0.3 * 0.975 + 0.3 * 0.7 + 0.2 * 0.98)


@pytest.mark.parametrize(
    ("accuracy", "grade"),
    [(1.0, "A"), (5 / 6, "A"), (0.83, "B"), (0.5, "B"), (0.49, "C"), (0.0, "C")],
)
def test_grades_begin_where_they_are_said_to(accuracy: float, grade: str) -> None:
    assert Score(accuracy=accuracy).grade == grade


def test_the_lowest_grades() -> None:
    assert Score(accuracy=0, uniqueness=0).grade == "D"
    assert Score(completeness=0, accuracy=0).grade == "F"


def test_an_empty_table_lacks_nothing() -> None:
    assert score(0, [outcome("accuracy", 0)]).overall == 1.0


def test_more_failures_than_rows_are_no_less_than_nothing() -> None:
    assert score(2, [outcome("accuracy", 2), outcome("accuracy", 2)]).accuracy == 0.0


@given(st.lists(st.builds(Score, RATIO, RATIO, RATIO, RATIO), min_size=1))
def test_a_layer_is_as_good_as_the_mean_of_its_tables(scores: list[Score]) -> None:
    assert mean(scores).overall == pytest.approx(sum(s.overall for s in scores) / len(scores), abs=1e-8)
    assert 0 <= mean(scores).overall <= 1.000000001
