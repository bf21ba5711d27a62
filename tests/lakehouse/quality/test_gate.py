"""The gate records what it found, and lets nothing broken through."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from lakehouse.batch import BatchSession
from lakehouse.quality.contract import CheckOutcome
from lakehouse.quality.gate import ContractViolationError, contracts_passed, record, require

PASSED = CheckOutcome("c", "checks.a", "a", "a holds", None, "critical", "passed", 0.0, 0, 10)
FAILED = replace(PASSED, check="checks.b", outcome="failed", failing_rows=3, failing=pa.table({"price": [-1]}))


def results(session: BatchSession) -> list[dict[str, Any]]:
    return session.catalog.load_table("quality.check_results").scan().to_arrow().to_pylist()


def test_a_run_is_one_commit_with_a_row_a_check(session: BatchSession) -> None:
    record(session, "run", {"silver.trades": [PASSED, FAILED]}, session.clock(), {"silver.trades": 7})
    rows = {row["check_name"]: row for row in results(session)}
    assert rows["checks.b"]["outcome"] == "failed"
    assert rows["checks.b"]["message"] == "a holds: failed on 3 of 10 rows, for example price=-1"
    assert (rows["checks.a"]["failing_rows"], rows["checks.a"]["snapshot_id"]) == (0, 7)
    assert len({row["run_id"] for row in rows.values()}) == 1


def test_the_head_says_of_every_contract_whether_it_held_last(session: BatchSession) -> None:
    def passed() -> dict[str, bool]:
        return contracts_passed(session.catalog.load_table("quality.check_results"))

    assert passed() == {}
    record(session, "1", {"silver.trades": [PASSED, FAILED]}, session.clock())
    record(session, "2", {"gold.x": [PASSED]}, session.clock())
    assert passed() == {"silver.trades": False, "gold.x": True}
    record(session, "3", {"silver.trades": [PASSED, replace(FAILED, severity="warning")]}, session.clock())
    assert passed() == {"silver.trades": True, "gold.x": True}


def test_a_check_that_could_not_be_evaluated_stops_too(
    session: BatchSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = replace(PASSED, outcome="error", title="contract could not be evaluated: no column x")
    monkeypatch.setattr("lakehouse.quality.gate.verify", lambda *_: [outcome])
    with pytest.raises(ContractViolationError, match="no column x"):
        require(session, {"silver.trades": pa.table({})}, session.clock())
    assert [row["outcome"] for row in results(session)] == ["error"]
