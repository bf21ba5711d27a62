"""Verifying a table's data contract with Soda.

In: the name of a table, and rows: of an Arrow table, or select statements over the data files of snapshots. Out:
one :class:`CheckOutcome` per check. Pure: nothing is written and nothing is sent anywhere.

Soda says how many rows break a check but not which; those come from a query of our own on the same rows.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from lakehouse.quality.definition import ACCURACY, DATA_SOURCE, applicable, body

CRITICAL, WARNING = "critical", "warning"
PASSED, FAILED, ERROR = "passed", "failed", "error"

_FAILING = {
    "duplicate": "duplicate_count",
    "failed_rows": "failed_rows_count",
    "missing": "missing_count",
    "schema": "schema_events_count",
}
"""Kind of check → Soda's name for the number of rows (of columns: for a schema) that break it."""

_DIMENSIONS = {"missing": "completeness", "duplicate": "uniqueness", "failed_rows": ACCURACY}
"""Kind of check → what it is about, where its attributes do not say."""
ROWS_SHOWN = 1000
"""Failing rows that an outcome holds; of more, the rest can be counted but need not be copied."""

_ONE_AT_A_TIME = threading.Lock()
"""Soda collects its log in the process's root logger: two runs at once would see each other's errors."""

Rows = Mapping[str, "str | pa.Table"]
"""Table, by its full name → a select statement over its rows, or the rows themselves."""


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    """One check of a contract on one set of rows."""

    contract: str
    check: str
    """Path of the check in the contract, for example ``columns.trade_id.checks.duplicate``."""
    rule: str
    """Short name, unique in the contract: ``price_positive``, ``trade_id.missing``, ``schema``."""
    title: str
    column: str | None
    severity: str
    """critical stops the layer, warning does not."""
    outcome: str
    """passed, failed, or error when it could not be evaluated."""
    observed: float | None = None
    failing_rows: int | None = None
    checked_rows: int | None = None
    failing: pa.Table | None = None
    """The first :data:`ROWS_SHOWN` rows that break it; None for a check that is not about single rows, and for a
    warning where it takes another pass over all rows."""
    dimension: str = ACCURACY
    """What it is about: schema, completeness, uniqueness, accuracy, consistency, timeliness or drift."""

    @property
    def stops(self) -> bool:
        """A check that could not be evaluated counts as failed."""
        return self.severity == CRITICAL and self.outcome != PASSED

    @property
    def example(self) -> str | None:
        """One row that breaks the check, in words."""
        if self.failing is None or not self.failing.num_rows:
            return None
        return ", ".join(f"{name}={value}" for name, value in self.failing.slice(0, 1).to_pylist()[0].items())

    @property
    def message(self) -> str:
        """What was found, in words."""
        if self.outcome == PASSED:
            return self.title
        where = f"{self.column}: " if self.column else ""
        if self.failing_rows is None:
            rows = "" if self.observed is None else f", it is {self.observed:g}"
        elif self.checked_rows is None:
            rows = f" on {self.failing_rows} rows"
        else:
            rows = f" on {self.failing_rows} of {self.checked_rows} rows"
        example = "" if self.example is None else f", for example {self.example}"
        return f"{where}{self.title}: {self.outcome}{rows}{example}"


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
        from soda_core.contracts.impl.contract_verification_impl import CheckImpl

        CoreCheckTypesPlugin.load()
        # Each check as YAML, for Soda's cloud: a quarter of what verifying few rows costs.
        CheckImpl._build_definition = lambda _: ""
        logging.getLogger("soda").setLevel(logging.WARNING)  # it prints every contract as a page of tables


def verify(table: str, rows: Rows, connection: duckdb.DuckDBPyConnection | None = None) -> list[CheckOutcome]:
    """Run the checks of ``table``'s contract that name nothing but the tables in ``rows``.

    A contract that cannot be evaluated as a whole gives one outcome ``error``, critical.

    Args:
        rows: of ``table``, and of tables that its contract compares it with.
        connection: a cursor that can read the data files, where ``rows`` are select statements. It is given a
            database in memory for the views, which is let go in the end. None: one of its own.
    """
    if connection is None:
        with duckdb.connect(config={"threads": 1}) as own:
            return verify(table, rows, own)
    load_soda()
    from soda_core.contracts.contract_verification import ContractVerificationSession

    with _ONE_AT_A_TIME, _views(connection, rows):
        session = ContractVerificationSession.execute(
            contract_yaml_sources=[_source(applicable(table, rows))],
            data_source_impls=[_data_source(connection)],
        )
        outcomes = [
            _outcome(table, result, connection)
            for verification in session.contract_verification_results
            for result in verification.check_results
        ]
    if session.has_errors or not outcomes:
        why = f"contract could not be evaluated: {session.get_errors_str()}"
        outcomes.append(CheckOutcome(table, "contract", "contract", why, None, CRITICAL, ERROR))
    return outcomes


@functools.cache
def _source(contract: str) -> Any:
    """A contract's YAML as Soda takes it, parsed once. Soda also copies each part that it reads, to put variables
    in; no contract has any, so the parts are handed out as they are. Half of what verifying few rows costs is
    saved."""
    from soda_core.common.yaml import ContractYamlSource

    source = ContractYamlSource.from_str(contract)
    parsed = source.parse()
    _share(parsed.yaml_dict)
    source.parse = lambda: parsed
    return source


def _data_source(connection: duckdb.DuckDBPyConnection) -> Any:
    from soda_duckdb.common.data_sources.duckdb_data_source import DuckDBDataSourceImpl

    source = DuckDBDataSourceImpl.from_existing_cursor(connection, DATA_SOURCE)
    source.sql_dialect = _dialect()
    return source


@functools.cache
def _dialect() -> Any:
    """DuckDB's SQL as Soda writes it, but a key of several columns is compared as it is: Soda compares MD5 sums of
    its text, for databases that have no rows as values, which takes two to three times as long."""
    from soda_duckdb.common.data_sources.duckdb_data_source import DuckDBSqlDialect

    class Dialect(DuckDBSqlDialect, sqlglot_dialect="duckdb"):  # type: ignore[call-arg, misc]
        def _build_combined_hash_sql(self, combined_hash: Any) -> str:
            return f"row({', '.join(map(self.build_expression_sql, combined_hash.expressions))})"

    return Dialect()


def _share(part: Any) -> None:
    """Have ``copy.deepcopy`` return ``part`` and all that is in it, instead of copies."""
    if isinstance(part, (dict, list)):
        part.__deepcopy__ = lambda _: part  # type: ignore[union-attr]  # ruamel's own kinds, which take attributes
        for inner in part.values() if isinstance(part, dict) else part:
            _share(inner)


@contextmanager
def _views(connection: duckdb.DuckDBPyConnection, rows: Rows) -> Iterator[None]:
    """Show ``rows`` as views of a database of their own: Soda looks a table up by its schema and name alone."""
    connection.execute("set TimeZone = 'UTC'")
    connection.execute("attach ':memory:' as checked")
    connection.execute("use checked")
    try:
        for name, source in rows.items():
            select = source
            if isinstance(source, pa.Table):
                registered = "rows_of_" + name.replace(".", "_")
                connection.register(registered, source)
                select = f"select * from {registered}"
            connection.execute(f"create schema if not exists {name.split('.')[0]}")
            connection.execute(f"create view {name} as {select}")
        yield
    finally:
        connection.execute("use memory")
        connection.execute("detach checked")


def _outcome(table: str, result: Any, connection: duckdb.DuckDBPyConnection) -> CheckOutcome:
    check = result.check
    outcome = PASSED if result.is_passed else FAILED if result.is_failed or result.is_warned else ERROR
    found = result.diagnostic_metric_values or {}
    failing = found.get(_FAILING.get(check.type, ""))
    level = getattr(check.threshold, "level", "fail")
    return CheckOutcome(
        contract=table,
        check=check.relative_path,
        rule=check.qualifier or (f"{check.column_name}.{check.type}" if check.column_name else check.type),
        title=check.name,
        column=check.column_name,
        severity=WARNING if level == "warn" else CRITICAL,
        outcome=outcome,
        observed=None if result.threshold_value is None else float(result.threshold_value),
        failing_rows=None if failing is None else int(failing),
        checked_rows=found.get("check_rows_tested"),
        failing=_failing(connection, table, check, level == "warn") if outcome == FAILED else None,
        dimension=(check.attributes or {}).get("dimension", _DIMENSIONS.get(check.type, "schema")),
    )


def _failing(connection: duckdb.DuckDBPyConnection, table: str, check: Any, warns: bool) -> pa.Table | None:
    """Rows that break the check; None where that takes another pass over all rows, and the check only warns."""
    if check.type == "missing":
        select = f'select * from {table} where "{check.column_name}" is null'
    elif check.type == "duplicate" and not warns:
        columns = [check.column_name] if check.column_name else body(table, check.type, check.qualifier)["columns"]
        listed = ", ".join(f'"{column}"' for column in columns)
        same = f"select ({listed}) from {table} group by {listed} having count(*) > 1"
        select = f"select * from {table} where ({listed}) in ({same})"
    elif check.type == "failed_rows":
        rule = body(table, check.type, check.qualifier)
        select = rule.get("query") or f"select * from {table} where {rule['expression']}"
        if warns and "query" in rule and "observed." not in select:
            return None
    else:
        return None
    return connection.execute(f"select * from ({select}) limit {ROWS_SHOWN}").to_arrow_table()
