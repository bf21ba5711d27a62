"""The gate between layers: rows that break their data contract are not committed, and nothing after them is.

In: the rows a step is about to commit. Out: every check's outcome in ``quality.check_results``, then silence,
or :class:`ContractViolationError`.

On a crash: results are written before the rows, so there may be results for rows that were never committed;
the step runs again and writes results of its own run. Each snapshot of ``quality.check_results`` names the
last state of every contract in its summary, so that a reader needs the head only.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
from pyiceberg.table import Table

from lakehouse.append import expire_snapshots, transaction
from lakehouse.batch import BatchSession, compare_and_swap
from lakehouse.quality.contract import CheckOutcome, verify
from lakehouse.state import STATE_PREFIX, carried, read_state
from lakehouse.tables import arrow_schema

log = logging.getLogger(__name__)

TABLE = "quality.check_results"
LAST_STATE = STATE_PREFIX + "contracts"
"""Summary property of the results table: JSON, contract → whether it passed when it was last checked."""


class ContractViolationError(RuntimeError):
    """Rows break a critical check of their contract; they were not committed."""

    def __init__(self, table: str, broken: Sequence[CheckOutcome]) -> None:
        self.table = table
        self.broken = tuple(broken)
        found = "; ".join(outcome.message for outcome in broken)
        super().__init__(
            f"{table}: not committed, the data contract {broken[0].contract} is broken: {found}. Nothing is lost: "
            f"mend the source and run the flow again. All results: select * from {TABLE} where contract = "
            f"'{broken[0].contract}' order by checked_at desc"
        )


def require(
    session: BatchSession, contract: str, table: str, rows: pa.Table, now: datetime, snapshot_id: int | None = None
) -> list[CheckOutcome]:
    """Check ``rows``, which are to become rows of ``table``, and record what was found.

    Args:
        now: time of the check.
        snapshot_id: snapshot that the rows were computed from, where there is one.

    Raises:
        ContractViolationError: a critical check failed or could not be evaluated.
    """
    outcomes = verify(contract, rows)
    record(session, table, outcomes, now, snapshot_id)
    for outcome in outcomes:
        if outcome.outcome != "passed" and not outcome.stops:
            log.warning("%s: %s", table, outcome.message)
    broken = [outcome for outcome in outcomes if outcome.stops]
    if broken:
        raise ContractViolationError(table, broken)
    return outcomes


def record(
    session: BatchSession,
    table: str,
    outcomes: Sequence[CheckOutcome],
    now: datetime,
    snapshot_id: int | None = None,
) -> None:
    """Append ``outcomes`` to ``quality.check_results`` as one run."""
    run_id = str(uuid.uuid4())
    rows: list[dict[str, Any]] = [
        {
            "run_id": run_id,
            "contract": outcome.contract,
            "table_name": table,
            "check_name": outcome.check,
            "column_name": outcome.column,
            "severity": outcome.severity,
            "outcome": outcome.outcome,
            "observed": outcome.observed,
            "failing_rows": outcome.failing_rows,
            "checked_rows": outcome.checked_rows,
            "message": outcome.message,
            "snapshot_id": snapshot_id,
            "checked_at": now,
        }
        for outcome in outcomes
    ]
    passed = {outcome.contract: True for outcome in outcomes}
    passed |= {outcome.contract: False for outcome in outcomes if outcome.stops}
    compare_and_swap(TABLE, lambda: _append(session, run_id, rows, passed))


def contracts_passed(table: Table) -> dict[str, bool]:
    """Contract → whether it passed when it was last checked, from the head of ``quality.check_results``."""
    state: dict[str, bool] = json.loads(read_state(table).get(LAST_STATE, "{}"))
    return state


def _append(session: BatchSession, run_id: str, rows: list[dict[str, Any]], passed: dict[str, bool]) -> None:
    results = session.catalog.load_table(TABLE)
    state = carried(results, {LAST_STATE: json.dumps(contracts_passed(results) | passed)})
    head = results.current_snapshot()
    if (
        head is not None
        and head.summary is not None
        and head.summary.additional_properties.get("run-id") == run_id
    ):
        return  # the commit whose answer was lost had arrived
    with transaction(results) as commit:
        commit.append(
            pa.Table.from_pylist(rows, schema=arrow_schema(TABLE)), snapshot_properties={**state, "run-id": run_id}
        )
    expire_snapshots(results, at=session.settings.snapshots_expire_at, keep=session.settings.snapshots_kept)
