"""What the data contracts found: scores of tables and layers, and the checks behind them."""

from __future__ import annotations

from datetime import date
from typing import Any

from api.queries.paging import Row, checked_first
from lakehouse.query import Lake

_SCORE = """select run_id, layer, table_name, day, checked_rows, completeness, accuracy, freshness, uniqueness,
    score, grade, failing_checks, age_seconds, volume_deviation_percent, checked_at
from quality.scores"""


def scores(
    lake: Lake, layer: str | None, table: str | None, day: date | None, history: bool, first: int
) -> list[Row]:
    """Scores, newest first.

    Args:
        table: full name, or a layer's for the mean of its tables.
        history: every check; else the newest of each table.

    Raises:
        ApiError: BAD_USER_INPUT for a wrong ``first``.
    """
    checked_first(first)
    where, parameters = ["true"], list[Any]()
    for condition, value in (("layer = ?", layer), ("table_name = ?", table), ("day = ?", day)):
        if value is not None:
            where.append(condition)
            parameters.append(value)
    newest = "" if history else "qualify row_number() over (partition by table_name order by checked_at desc) = 1"
    return lake.rows(
        f"{_SCORE} where {' and '.join(where)} {newest} order by checked_at desc, table_name limit ?",
        [*parameters, first],
    )


def checks(lake: Lake, score: Row, failed_only: bool) -> list[Row]:
    """Outcomes of the checks behind a score, of a table or of a layer; those that did not pass first."""
    failed = "and outcome <> 'passed'" if failed_only else ""
    return lake.rows(
        "select table_name, check_name, column_name, severity, outcome, observed, failing_rows, checked_rows, "
        "message from quality.check_results where checked_at = ? and run_id = ? "
        f"and (table_name = ? or starts_with(table_name, ?)) {failed} "
        "order by outcome = 'passed', table_name, check_name",
        [score["checked_at"], score["run_id"], score["table_name"], score["table_name"] + "."],
    )
