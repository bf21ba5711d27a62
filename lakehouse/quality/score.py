"""How good a table is, as one number and a grade.

In: the outcomes of a contract's checks. Out: a :class:`Score`. Pure. Weights and grades are those of the
predecessor's data-quality service; its inputs are measured here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lakehouse.quality.contract import PASSED, CheckOutcome

GRADES = ((0.95, "A"), (0.85, "B"), (0.70, "C"), (0.50, "D"))
LOWEST_GRADE = "F"


@dataclass(frozen=True, slots=True)
class Score:
    """Each from 0 to 1."""

    completeness: float = 1.0
    """1 - null values / values, of the columns that may hold none."""
    accuracy: float = 1.0
    """1 - rows that break a rule / rows; a row that breaks two counts twice."""
    freshness: float = 1.0
    """1 where the newest event was young enough, or that is not asked of the table; else 0."""
    uniqueness: float = 1.0
    """1 - rows whose key is there already / rows."""

    @property
    def overall(self) -> float:
        exact = 0.3 * self.completeness + 0.3 * self.accuracy + 0.2 * self.freshness + 0.2 * self.uniqueness
        return round(exact, 9)  # sums of tenths are a bit off

    @property
    def grade(self) -> str:
        """A from 0.95, B from 0.85, C from 0.70, D from 0.50, else F."""
        return next((grade for least, grade in GRADES if self.overall >= least), LOWEST_GRADE)


def score(rows: int, outcomes: Sequence[CheckOutcome]) -> Score:
    """Score of a table's ``rows`` rows; an empty table lacks nothing."""

    def good(failing: Iterable[CheckOutcome], values: int) -> float:
        return 1.0 - min(sum(o.failing_rows or 0 for o in failing) / values, 1.0) if values else 1.0

    missing = [o for o in outcomes if o.dimension == "completeness"]
    return Score(
        completeness=good(missing, rows * len(missing)),
        accuracy=good((o for o in outcomes if o.dimension in ("accuracy", "consistency")), rows),
        freshness=float(all(o.outcome == PASSED for o in outcomes if o.rule == "fresh")),
        uniqueness=good((o for o in outcomes if o.dimension == "uniqueness"), rows),
    )


def mean(scores: Sequence[Score]) -> Score:
    """Score of a layer: the mean of its tables."""
    if not scores:
        return Score()

    def average(values: Iterable[float]) -> float:
        return sum(values) / len(scores)

    return Score(
        average(s.completeness for s in scores),
        average(s.accuracy for s in scores),
        average(s.freshness for s in scores),
        average(s.uniqueness for s in scores),
    )
