"""Checking a day of a whole layer against its data contracts, and scoring it.

In: the committed tables. Out: a :class:`LayerResult`; every check's outcome in ``quality.check_results`` and the
scores in ``quality.scores``, whose newest snapshot also carries each table's last score. A layer's step asks
:func:`require_sound` before it reads a table of the layer before.

On a crash: outcomes are committed before scores, so there may be outcomes without a score; the layer is checked
again. Nothing but what was found is written, and each run adds rows of its own.
"""

from __future__ import annotations

import json
import logging
import uuid
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from pyiceberg.table import Table

from lakehouse.batch import BatchSession, compare_and_swap
from lakehouse.quality.contract import PASSED, CheckOutcome, verify
from lakehouse.quality.definition import contracts
from lakehouse.quality.gate import ContractViolationError, append_run, record
from lakehouse.quality.partition import SCORES, Partition, read_partition
from lakehouse.quality.score import Score, mean, score
from lakehouse.state import STATE_PREFIX, read_state

log = logging.getLogger(__name__)

TABLE = SCORES
LAST_SCORES = STATE_PREFIX + "scores"
"""Summary property of the scores' table: JSON, table or layer → :class:`LastScore`'s fields."""


@dataclass(frozen=True, slots=True)
class TableResult:
    """What was found out about one table."""

    partition: Partition
    outcomes: tuple[CheckOutcome, ...]
    score: Score

    @property
    def failing(self) -> tuple[CheckOutcome, ...]:
        """Checks that did not pass, warnings among them."""
        return tuple(outcome for outcome in self.outcomes if outcome.outcome != PASSED)

    @property
    def broken(self) -> tuple[CheckOutcome, ...]:
        """Checks that stop the layer after this one."""
        return tuple(outcome for outcome in self.outcomes if outcome.stops)


@dataclass(frozen=True, slots=True)
class LayerResult:
    """What was found out about a day of a layer."""

    layer: str
    run_id: str
    tables: dict[str, TableResult]

    @property
    def score(self) -> Score:
        return mean([table.score for table in self.tables.values()])

    def require(self) -> None:
        """Raise :class:`~lakehouse.quality.gate.ContractViolationError` when a critical check did not pass."""
        broken = [outcome for table in self.tables.values() for outcome in table.broken]
        if broken:
            raise ContractViolationError(self.layer, broken, "no layer after it is computed")


@dataclass(frozen=True, slots=True)
class LastScore:
    """What was found when a table, or a layer, was checked last."""

    score: float
    grade: str
    broken_on: str | None = None
    """Day (ISO date) on which a critical check of the table did not pass; "all" of a table without days."""
    volume_deviation_percent: float = 0.0
    z_scores: dict[str, float] | None = None
    """Statistic → deviations from the mean of the days before, where enough are known."""


def check(session: BatchSession, layer: str, day: date | None = None) -> LayerResult:
    """Check a day of every table of ``layer``; of a table without days, all rows. What is found is recorded.

    Args:
        day: None: of each table the newest day with rows.

    Raises:
        ValueError: there is no such layer.
        NotImplementedError: a table has delete files; compact it first.
    """
    return _check(session, layer, contracts(layer), day)


def require_sound(session: BatchSession, *tables: str) -> None:
    """Do nothing where the contracts of committed ``tables`` held when they were checked last; else check again.

    Raises:
        ContractViolationError: a critical check still fails.
    """
    last = last_scores(session.catalog.load_table(TABLE))
    for table in tables:
        broken_on = last[table].broken_on if table in last else None
        if broken_on is not None:
            day = None if broken_on == "all" else date.fromisoformat(broken_on)
            _check(session, table.split(".")[0], [table], day).require()


def last_scores(table: Table) -> dict[str, LastScore]:
    """Table or layer → what was found last, from the head of ``quality.scores``."""
    return {
        name: LastScore(**fields) for name, fields in json.loads(read_state(table).get(LAST_SCORES, "{}")).items()
    }


def _check(session: BatchSession, layer: str, tables: list[str], day: date | None) -> LayerResult:
    now = session.clock()
    result = LayerResult(
        layer, str(uuid.uuid4()), {name: _check_table(session, name, day, now) for name in tables}
    )
    record(
        session,
        result.run_id,
        {name: table.outcomes for name, table in result.tables.items()},
        now,
        {name: table.partition.snapshot_id for name, table in result.tables.items()},
    )
    whole = tables == contracts(layer)
    compare_and_swap(TABLE, lambda: _append_scores(session, result, now, whole))
    log.info("%s: score %.3f, %s", layer, result.score.overall, result.score.grade)
    return result


def _check_table(session: BatchSession, name: str, day: date | None, now: datetime) -> TableResult:
    with session.connection.cursor() as cursor:
        partition = read_partition(session, cursor, name, day, now)
        outcomes = verify(name, partition.views, cursor)
    return TableResult(partition, tuple(outcomes), score(partition.rows, outcomes))


def _append_scores(session: BatchSession, result: LayerResult, now: datetime, whole: bool) -> None:
    table = session.catalog.load_table(TABLE)
    last = json.loads(read_state(table).get(LAST_SCORES, "{}"))
    last |= {name: _last(found) for name, found in result.tables.items()}
    rows = [_row(result, name, found, now) for name, found in result.tables.items()]
    if whole:
        last[result.layer] = {"score": result.score.overall, "grade": result.score.grade}
        rows.append(_layer_row(result, now))
    append_run(session, table, result.run_id, rows, {LAST_SCORES: json.dumps(last)})


def _last(found: TableResult) -> dict[str, Any]:
    part = found.partition
    return {
        "score": found.score.overall,
        "grade": found.score.grade,
        "broken_on": None if not found.broken else "all" if part.day is None else part.day.isoformat(),
        "volume_deviation_percent": part.volume_deviation_percent,
        "z_scores": part.z_scores,
    }


def _row(result: LayerResult, name: str, found: TableResult, now: datetime) -> dict[str, Any]:
    part = found.partition
    return _scores(result, name, found.score, now) | {
        "day": part.day,
        "checked_rows": part.rows,
        "failing_checks": [outcome.rule for outcome in found.failing],
        "age_seconds": part.age_seconds,
        "volume_deviation_percent": part.volume_deviation_percent,
        "statistics": [{"name": n, "value": value} for n, value in part.measured.items()],
        "snapshot_id": part.snapshot_id,
    }


def _layer_row(result: LayerResult, now: datetime) -> dict[str, Any]:
    return _scores(result, result.layer, result.score, now) | {
        "checked_rows": sum(table.partition.rows for table in result.tables.values()),
        "failing_checks": [f"{n}: {o.rule}" for n, table in result.tables.items() for o in table.failing],
        "statistics": [],
    }


def _scores(result: LayerResult, name: str, of: Score, now: datetime) -> dict[str, Any]:
    return {
        "run_id": result.run_id,
        "layer": result.layer,
        "table_name": name,
        "completeness": of.completeness,
        "accuracy": of.accuracy,
        "freshness": of.freshness,
        "uniqueness": of.uniqueness,
        "score": of.overall,
        "grade": of.grade,
        "checked_at": now,
    }
