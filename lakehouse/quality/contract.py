"""Checking rows against a data contract, with Soda.

In: an Arrow table and the name of a contract in ``contracts/``. Out: one :class:`CheckOutcome` per check.
Pure: nothing is written and nothing is sent anywhere.

Soda says how many rows break a check but not which; the example row comes from a query of our own on the same
rows.
"""

from __future__ import annotations

import importlib.resources
import logging
import os
import threading
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
import yaml

CRITICAL, WARNING = "critical", "warning"
PASSED, FAILED, ERROR = "passed", "failed", "error"

_FAILING = {
    "duplicate": "duplicate_count",
    "failed_rows": "failed_rows_count",
    "missing": "missing_count",
    "schema": "schema_events_count",
}
"""Kind of check → Soda's name for the number of rows (of columns: for a schema) that break it."""

_ONE_AT_A_TIME = threading.Lock()
"""Soda collects its log in the process's root logger: two runs at once would see each other's errors."""


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    """One check of a contract on one set of rows."""

    contract: str
    check: str
    """Path of the check in the contract, for example ``columns.trade_id.checks.duplicate``."""
    title: str
    column: str | None
    severity: str
    """critical stops the layer, warning does not."""
    outcome: str
    """passed, failed, or error when it could not be evaluated."""
    observed: float | None = None
    failing_rows: int | None = None
    checked_rows: int | None = None
    example: str | None = None

    @property
    def stops(self) -> bool:
        """A check that could not be evaluated counts as failed."""
        return self.severity == CRITICAL and self.outcome != PASSED

    @property
    def message(self) -> str:
        """What was found, in words."""
        if self.outcome == PASSED:
            return self.title
        where = f"{self.column}: " if self.column else ""
        rows = "" if self.checked_rows is None else f" on {self.failing_rows} of {self.checked_rows} rows"
        example = "" if self.example is None else f", for example {self.example}"
        return f"{where}{self.title}: {self.outcome}{rows}{example}"


def contract_text(contract: str) -> str:
    """YAML of a contract. Raises :class:`FileNotFoundError` when there is none of that name."""
    path = importlib.resources.files("lakehouse.quality") / "contracts" / f"{contract}.yml"
    return path.read_text(encoding="utf-8")


def load_soda() -> None:
    """Import Soda: some seconds. A process with threads does it before it starts them.

    Soda takes its kinds of checks from a plugin, and a plugin that cannot be imported is only a line in its log.
    Two threads that import at once can bring that about, and every contract fails for the rest of the process.
    So they are registered again here, where a failure raises.
    """
    # Set before the import: Soda's telemetry also replaces the process's OpenTelemetry provider.
    os.environ.setdefault("SODA_CORE_TELEMETRY_ENABLED", "false")
    with _ONE_AT_A_TIME:
        from soda_core.contracts.impl.check_types.check_types import CoreCheckTypesPlugin

        CoreCheckTypesPlugin.load()
        logging.getLogger("soda").setLevel(logging.WARNING)  # it prints every contract as a page of tables


def verify(contract: str, rows: pa.Table) -> list[CheckOutcome]:
    """Run every check of ``contract`` on ``rows``.

    A contract that cannot be evaluated as a whole gives one outcome ``error``, critical.
    """
    load_soda()
    from soda_core.common.yaml import ContractYamlSource
    from soda_core.contracts.contract_verification import ContractVerificationSession
    from soda_duckdb.common.data_sources.duckdb_data_source import DuckDBDataSourceImpl

    text = contract_text(contract)
    definition = yaml.safe_load(text)
    source, schema, table = definition["dataset"].split("/")
    with duckdb.connect(config={"threads": 1}) as connection, _ONE_AT_A_TIME:
        connection.execute("set TimeZone = 'UTC'")
        connection.register("rows_to_check", rows)
        connection.execute(f'create schema "{schema}"')
        connection.execute(f'create view "{schema}"."{table}" as select * from rows_to_check')
        session = ContractVerificationSession.execute(
            contract_yaml_sources=[ContractYamlSource.from_str(text)],
            data_source_impls=[DuckDBDataSourceImpl.from_existing_cursor(connection, source)],
        )
        outcomes = [
            _outcome(contract, definition, result, connection)
            for verification in session.contract_verification_results
            for result in verification.check_results
        ]
    if session.has_errors or not outcomes:
        outcomes.append(
            CheckOutcome(
                contract,
                "contract",
                f"contract could not be evaluated: {session.get_errors_str()}",
                None,
                CRITICAL,
                ERROR,
            )
        )
    return outcomes


def _outcome(
    contract: str, definition: dict[str, Any], result: Any, connection: duckdb.DuckDBPyConnection
) -> CheckOutcome:
    check = result.check
    outcome = PASSED if result.is_passed else FAILED if result.is_failed or result.is_warned else ERROR
    found = result.diagnostic_metric_values or {}
    failing = found.get(_FAILING.get(check.type, ""))
    level = getattr(check.threshold, "level", "fail")
    return CheckOutcome(
        contract=contract,
        check=check.relative_path,
        title=check.name,
        column=check.column_name,
        severity=WARNING if level == "warn" else CRITICAL,
        outcome=outcome,
        observed=None if result.threshold_value is None else float(result.threshold_value),
        failing_rows=None if failing is None else int(failing),
        checked_rows=found.get("check_rows_tested"),
        example=_example(definition, check, connection) if outcome == FAILED else None,
    )


def _example(definition: dict[str, Any], check: Any, connection: duckdb.DuckDBPyConnection) -> str | None:
    """One row that breaks the check; None for checks that are not about single rows."""
    condition = _condition(definition, check)
    if condition is None:
        return None
    cursor = connection.execute(f"select * from rows_to_check where {condition} limit 1")
    row = cursor.fetchone()
    if row is None or cursor.description is None:
        return None
    names = [column[0] for column in cursor.description]
    return ", ".join(f"{name}={value}" for name, value in zip(names, row, strict=True))


def _condition(definition: dict[str, Any], check: Any) -> str | None:
    if check.type == "missing":
        return f'"{check.column_name}" is null'
    if check.type == "duplicate":
        columns = (
            [check.column_name] if check.column_name else _parameters(definition, "duplicate", None)["columns"]
        )
        listed = ", ".join(f'"{column}"' for column in columns)
        return f"({listed}) in (select ({listed}) from rows_to_check group by {listed} having count(*) > 1)"
    if check.type == "failed_rows":
        return str(_parameters(definition, "failed_rows", check.qualifier)["expression"])
    return None


def _parameters(definition: dict[str, Any], kind: str, qualifier: str | None) -> dict[str, Any]:
    for entry in definition["checks"]:
        parameters = entry.get(kind)
        if parameters is not None and parameters.get("qualifier") == qualifier:
            return dict(parameters)
    raise KeyError(f"{kind} {qualifier or ''} is not in the contract")
