"""The gate between layers: rows that break their data contract are not committed, and nothing after them is.

In: the rows a step is about to commit. Out: every check's outcome in ``quality.check_results``, then silence,
or :class:`ContractViolationError`, with the failing rows in ``silver.rejected_records``.

On a crash: results are written before the rows, so there may be results for rows that were never committed;
the step runs again and writes results of its own run. Failing rows are kept once, however often they fail. Each
snapshot of ``quality.check_results`` names the last state of every contract in its summary, so that a reader needs
the head only.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
from pyiceberg.table import Table

from lakehouse.batch import BatchSession, compare_and_swap
from lakehouse.quality.contract import PASSED, CheckOutcome, Rows, verify
from lakehouse.silver.rejected import TABLE as REJECTED
from lakehouse.silver.rejected import refuse
from lakehouse.state import STATE_PREFIX, carried, read_state
from lakehouse.tables import arrow_schema

log = logging.getLogger(__name__)

TABLE = "quality.check_results"
LAST_STATE = STATE_PREFIX + "contracts"
"""Summary property of the results table: JSON, contract → whether it passed when it was last checked."""

Found = Mapping[str, Sequence[CheckOutcome]]
"""Table → the outcomes of its contract's checks."""


class ContractViolationError(RuntimeError):
    """Rows break a critical check of their contract; ``consequence`` says what was not done because of it."""

    def __init__(self, table: str, broken: Sequence[CheckOutcome], consequence: str = "not committed") -> None:
        self.table = table
        self.broken = tuple(broken)
        found = "; ".join(f"{outcome.contract} {outcome.rule}: {outcome.message}" for outcome in broken)
        where = " or ".join(
            f"(source_table = '{o.contract}' and rule = '{o.rule}')" for o in broken if o.failing is not None
        )
        rows = f"the failing rows: select * from {REJECTED} where {where}; " if where else ""
        super().__init__(
            f"{table}: {consequence}, the data contract {broken[0].contract} is broken: {found}. Nothing is lost: "
            f"mend the source and run the flow again. Look at {rows}all results: select * from {TABLE} where "
            f"contract = '{broken[0].contract}' order by checked_at desc"
        )


def require(
    session: BatchSession,
    rows: Mapping[str, pa.Table],
    now: datetime,
    sources: Rows | None = None,
    snapshot_id: int | None = None,
) -> None:
    """Check rows that are to be committed, and record what was found.

    Args:
        rows: table → what is to become rows of it.
        now: time of the check.
        sources: rows of the tables that ``rows`` were computed from; checks that compare with others are left out.
        snapshot_id: snapshot that the rows were computed from, where there is one.

    Raises:
        ContractViolationError: a critical check failed or could not be evaluated.
    """
    with session.connection.cursor() as cursor:
        found = {table: verify(table, {**(sources or {}), table: new}, cursor) for table, new in rows.items()}
    record(session, str(uuid.uuid4()), found, now, dict.fromkeys(found, snapshot_id))
    broken = [outcome for outcomes in found.values() for outcome in outcomes if outcome.stops]
    if broken:
        raise ContractViolationError(broken[0].contract, broken)


def record(
    session: BatchSession,
    run_id: str,
    found: Found,
    now: datetime,
    snapshots: Mapping[str, int | None] | None = None,
) -> None:
    """Append outcomes to ``quality.check_results`` as one run, log what did not pass, and keep the rows that broke
    a critical check.

    Args:
        run_id: unique.
        snapshots: table → snapshot of it that was checked, or that its rows were computed from.
    """
    rows: list[dict[str, Any]] = [
        {
            "run_id": run_id,
            "contract": table,
            "table_name": table,
            "check_name": outcome.check,
            "column_name": outcome.column,
            "severity": outcome.severity,
            "outcome": outcome.outcome,
            "observed": outcome.observed,
            "failing_rows": outcome.failing_rows,
            "checked_rows": outcome.checked_rows,
            "message": outcome.message,
            "snapshot_id": (snapshots or {}).get(table),
            "checked_at": now,
        }
        for table, outcomes in found.items()
        for outcome in outcomes
    ]
    passed = {table: not any(outcome.stops for outcome in outcomes) for table, outcomes in found.items()}
    for table, outcomes in found.items():
        for outcome in outcomes:
            if outcome.outcome != PASSED:
                log.warning("%s: %s", table, outcome.message)
            if outcome.stops and outcome.failing is not None:
                refuse(session, table, outcome.rule, outcome.title, outcome.failing, now)
    compare_and_swap(TABLE, lambda: _append(session, run_id, rows, passed))


def contracts_passed(table: Table) -> dict[str, bool]:
    """Contract → whether it passed when it was last checked, from the head of ``quality.check_results``."""
    state: dict[str, bool] = json.loads(read_state(table).get(LAST_STATE, "{}"))
    return state


def _append(session: BatchSession, run_id: str, rows: list[dict[str, Any]], passed: dict[str, bool]) -> None:
    results = session.catalog.load_table(TABLE)
    append_run(session, results, run_id, rows, {LAST_STATE: json.dumps(contracts_passed(results) | passed)})


def append_run(
    session: BatchSession, table: Table, run_id: str, rows: list[dict[str, Any]], state: Mapping[str, str]
) -> None:
    """Append a run's rows, unless its commit is the newest already: the one whose answer was lost had arrived."""
    head = table.current_snapshot()
    if (
        head is not None
        and head.summary is not None
        and head.summary.additional_properties.get("run-id") == run_id
    ):
        return
    name = ".".join(table.name()[-2:])
    with session.changes(table) as commit:
        commit.append(
            pa.Table.from_pylist(rows, schema=arrow_schema(name)),
            snapshot_properties={**carried(table, state), "run-id": run_id},
        )
