"""The declarations, what is served locally and what is written for work pools say the same."""

from __future__ import annotations

import asyncio
import importlib
from datetime import date
from pathlib import Path

import pytest
import yaml
from prefect.states import exception_to_failed_state

from flows.asset import POLICIES, Outcome, artifact_rows, worth_retrying
from flows.backfill import month_before, parse_days
from flows.declared import declared, exclusive_tables, prefect_yaml
from flows.settings import FlowsSettings
from lakehouse.layers import bronze
from lakehouse.quality.contract import CheckOutcome
from lakehouse.quality.gate import ContractViolationError
from lakehouse.tables import TABLES

FILE = Path("deploy/prefect/prefect.yaml")


def test_every_table_beside_bronze_is_written_by_a_flow() -> None:
    written = {table for one in declared(FlowsSettings()) for step in one.assets for table in step.writes}
    assert written >= set(TABLES) - {spec.name for spec in bronze.TABLES}


def test_prefect_yaml_is_what_is_served_locally() -> None:
    assert FILE.read_text() == prefect_yaml(), "just generate"
    written = {one["name"]: one for one in yaml.safe_load(FILE.read_text())["deployments"]}
    served = {one.name: one for one in declared(FlowsSettings())}
    assert written.keys() == served.keys()
    for name, entry in written.items():
        path, function = entry["entrypoint"].split(":")
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        assert getattr(module, function) is served[name].flow
        crons = [schedule["cron"] for schedule in entry.get("schedules", [])]
        expected = served[name].cron
        if name == "silver":
            assert (crons, expected) == (["*/5 * * * *"], "* * * * *")
        else:
            assert crons == ([] if expected is None else [expected])


def test_steps_are_tried_again_later_and_later_one_at_a_time_for_each_table() -> None:
    steps = {step.name: step for one in declared(FlowsSettings()) for step in one.assets}
    for step in steps.values():
        policy = POLICIES[step.layer]
        assert step.task.retries == policy.retries >= 1
        assert step.task.retry_delay_seconds == [policy.first_delay_s * 2**n for n in range(policy.retries)]
        assert step.task.retry_jitter_factor == 0.5
        assert step.task.timeout_seconds == policy.timeout_s
        if policy.exclusive:
            assert step.task.tags == {f"table:{name}" for name in step.writes}
    assert {"silver.trades", "gold.minute_bars", "dimensions.dim_symbol"} <= set(exclusive_tables(FlowsSettings()))
    assert all(one.flow.timeout_seconds for one in declared(FlowsSettings()))


def test_what_trying_again_cannot_mend_is_not_tried_again() -> None:
    def again(error: Exception) -> bool:
        return worth_retrying(None, None, asyncio.run(exception_to_failed_state(error)))

    broken = CheckOutcome("silver.trades", "a", "a", "a", None, "critical", "failed")
    assert again(ConnectionError("away"))
    assert not again(ValueError("no such day"))
    assert not again(ContractViolationError("silver.trades", [broken]))


def test_a_snapshots_id_is_text_and_quality_is_that_of_the_tables_contract() -> None:
    (row,) = artifact_rows([Outcome("silver.trades", 2, None, 2**63 - 1)], {"silver.trades": False})
    assert row == {
        "table": "silver.trades",
        "rows_in": "2",
        "rows_out": "",
        "snapshot_id": "9223372036854775807",
        "note": "",
        "quality": "FAILED",
    }


def test_days_and_months() -> None:
    assert parse_days("2026-03-01..2026-03-31") == (date(2026, 3, 1), date(2026, 3, 31))
    assert parse_days("2026-03-01") == (date(2026, 3, 1), date(2026, 3, 1))
    for wrong in ("2026-03-02..2026-03-01", "March", "2026-03-01..", "0001-01-01..2026-01-01"):
        with pytest.raises(ValueError, match=r"2026-03|ten years|range of days"):
            parse_days(wrong)
    assert month_before(date(2026, 3, 1)) == (date(2026, 2, 1), date(2026, 2, 28))
    assert month_before(date(2026, 1, 15)) == (date(2025, 12, 1), date(2025, 12, 31))
