"""Every check of every contract finds the fault that it is meant for, and no other check does; of a day without a
fault nothing is reported."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from pyiceberg.types import ListType

from lakehouse.batch import BatchSession
from lakehouse.quality.contract import CheckOutcome, load_soda, verify
from lakehouse.quality.definition import DATA_SOURCE, FOLDER, LAYERS, contract, contracts, mentioned, statistics
from lakehouse.quality.layer import check, last_scores
from lakehouse.quality.partition import BOOKS, MISSTATED, TRADED, misstated, observed, traded
from lakehouse.tables import TABLES, arrow_schema
from tests.lakehouse.quality.market import AFTER, MIDNIGHT
from tests.lakehouse.quality.mutations import FAULTS, Views, rules

EVERY = [table for layer in LAYERS for table in contracts(layer)]
HALT: dict[str, Any] = {
    "event_type": "TradingHalt",
    "event_id": "halts-1",
    "timestamp": MIDNIGHT,
    "sequence": 1,
    "symbol": "AAPL",
    "level": 1,
    "halt_duration_secs": 300,
    "_kafka_topic": "raw.trading-halts",
    "_kafka_partition": 0,
    "_kafka_offset": 1,
    "_ingested_at": AFTER,
}
RESUME = HALT | {
    "event_type": "TradingResume",
    "event_id": "halts-2",
    "timestamp": MIDNIGHT + timedelta(minutes=5),
    "sequence": 2,
    "_kafka_offset": 2,
}
REJECTED = {"source_table": "bronze.trades", "rule": "r", "reason": "r", "record": "{}", "_rejected_at": AFTER}


@pytest.fixture(scope="session")
def good(market_tables: dict[str, pa.Table]) -> Views:
    """Rows that break nothing, at least one of every table."""
    halts = pa.Table.from_pylist([HALT, RESUME], schema=arrow_schema("bronze.trading_halts"))
    rejected = pa.Table.from_pylist([REJECTED], schema=arrow_schema("silver.rejected_records"))
    with duckdb.connect() as connection:
        connection.register("trades", market_tables["silver.trades"])
        sums = connection.execute(traded("from trades")).to_arrow_table()
        connection.register("books", market_tables[BOOKS])
        wrong = connection.execute(misstated("from books")).to_arrow_table()
    return (
        market_tables
        | {"bronze.trading_halts": halts, "silver.rejected_records": rejected, TRADED: sums, MISSTATED: wrong}
        | observed(AFTER, age_seconds=1)
    )


def failing(table: str, views: Views) -> dict[str, CheckOutcome]:
    asked = {
        name: rows for name, rows in views.items() if name in mentioned(table) or name.startswith("observed.")
    }
    if table == BOOKS:
        asked[MISSTATED] = misstated(f"from {BOOKS}")
    return {outcome.rule: outcome for outcome in verify(table, asked) if outcome.outcome != "passed"}


def about_days(table: str) -> dict[str, dict[str, Any]]:
    """Rule → what the run has to observe to report it, of the rules about the time and the days before."""
    drifts = {
        f"{name}_drift": {"measured": {name: 2.0}, "history": {name: [1.0, 1.1, 0.9]}}
        for name in statistics(table)
    }
    all_of_them: dict[str, dict[str, Any]] = {
        "fresh": {"age_seconds": 1e9},
        "volume": {"volume_deviation_percent": -20.5},
        "null_drift": {"measured": {"nulls of c": 0.5}, "history": {"nulls of c": [0.1, 0.1, 0.1]}},
        **drifts,
    }
    return {rule: seen for rule, seen in all_of_them.items() if rule in rules(table)}


def test_nothing_is_reported_of_24_hours_of_a_clean_market(market_day: BatchSession) -> None:
    reported = [
        f"{name} {outcome.rule}: {outcome.message}"
        for layer in LAYERS
        for name, table in check(market_day, layer).tables.items()
        for outcome in table.failing
    ]
    assert reported == []
    scores = last_scores(market_day.catalog.load_table("quality.scores"))
    assert {scores[layer].grade for layer in LAYERS} == {"A"}
    assert {score.score for score in scores.values()} == {1.0}


def test_every_rule_has_a_fault_that_breaks_it() -> None:
    broken = {table: {*FAULTS[table], *about_days(table)} for table in FAULTS}
    assert broken == {table: set(rules(table)) for table in EVERY}


@pytest.mark.parametrize("table", [table for table in EVERY if about_days(table)])
def test_what_differs_from_the_days_before_is_reported(good: Views, table: str) -> None:
    seen: dict[str, Any] = {}
    for rule in about_days(table).values():
        for name, value in rule.items():
            seen[name] = {**seen.get(name, {}), **value} if isinstance(value, dict) else value
    assert set(failing(table, good | observed(AFTER, **seen))) == set(about_days(table))


@pytest.mark.parametrize(
    ("table", "rule"),
    [pytest.param(table, rule, id=f"{table}-{rule}") for table in FAULTS for rule in FAULTS[table]],
)
def test_a_fault_is_caught_by_the_rule_meant_for_it_alone(good: Views, table: str, rule: str) -> None:
    fault = FAULTS[table][rule]
    found = failing(table, fault.change(good))
    assert set(found) == {rule, *fault.also}
    assert {outcome.outcome for outcome in found.values()} == {"failed"}


@pytest.mark.parametrize("table", EVERY)
def test_a_value_that_is_missing_and_a_key_that_comes_twice_stop_the_layer(good: Views, table: str) -> None:
    nulls = pa.Table.from_pylist([{}], schema=pa.schema([f.with_nullable(True) for f in arrow_schema(table)]))
    rows = good[table].cast(nulls.schema)
    found = failing(table, good | {table: pa.concat_tables([rows, rows.slice(0, 1), nulls])})
    required = {
        f"{column.name}.missing"
        for column in TABLES[table].columns
        if column.required and not isinstance(column.type, ListType)  # those the writer refuses
    }
    key = TABLES[table].key
    duplicate = f"{key[0]}.duplicate" if len(key) == 1 else "duplicate"
    assert {*required, duplicate} <= set(found)
    assert {found[rule].failing_rows for rule in required} == {1}
    assert all(found[rule].stops for rule in (*required, duplicate))


@pytest.mark.parametrize("table", EVERY)
def test_a_column_that_is_gone_stops_the_layer(good: Views, table: str) -> None:
    last = TABLES[table].columns[-1].name
    found = failing(table, good | {table: good[table].drop_columns([last])})
    assert any(outcome.stops for outcome in found.values())


@pytest.mark.parametrize(
    "table", [table for table in EVERY if any("row_count" in check for check in contract(table)["checks"])]
)
def test_a_table_without_rows_is_reported(good: Views, table: str) -> None:
    found = failing(table, good | {table: good[table].schema.empty_table()})
    assert found["row_count"].severity == ("critical" if table.startswith("dimensions.") else "warning")


def test_every_file_is_a_contract_that_soda_verifies_as_it_is(good: Views) -> None:
    load_soda()
    from soda_core.common.yaml import ContractYamlSource
    from soda_core.contracts.contract_verification import ContractVerificationSession
    from soda_duckdb.common.data_sources.duckdb_data_source import DuckDBDataSourceImpl

    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        for name, rows in good.items():
            connection.register("rows_of_" + name.replace(".", "_"), rows)
            connection.execute(f"create schema if not exists {name.split('.')[0]}")
            connection.execute(f"create view {name} as select * from rows_of_{name.replace('.', '_')}")
        session = ContractVerificationSession.execute(
            contract_yaml_sources=[ContractYamlSource.from_file_path(str(FOLDER / f"{t}.yml")) for t in EVERY],
            data_source_impls=[DuckDBDataSourceImpl.from_existing_cursor(connection, DATA_SOURCE)],
        )
    assert session.get_errors_str() == ""
    assert [result.is_passed for result in session.contract_verification_results] == [True] * len(EVERY)
