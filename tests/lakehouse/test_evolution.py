"""A changed declaration meets a table that exists: applied as schema evolution, or refused with the reason."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema
from pyiceberg.table import Table, Transaction
from pyiceberg.types import (
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    ListType,
    LongType,
    StringType,
    TimestamptzType,
)

from lakehouse.catalog import open_catalog
from lakehouse.duck import files_sql
from lakehouse.evolution import EvolutionRefusedError, evolve
from lakehouse.reading import read_batches
from lakehouse.settings import LakehouseSettings
from lakehouse.snapshots import ManifestCache
from lakehouse.spec import Column, TableSpec
from lakehouse.tables import TABLES, create_tables
from tests.lakehouse.conftest import MARKET_OPEN

COLUMNS = (
    Column("id", StringType(), "Id"),
    Column("at", TimestamptzType(), "When"),
    Column("size", IntegerType(), "Size"),
    Column("ratio", FloatType(), "Ratio"),
    Column("price", DecimalType(10, 2), "Price"),
    Column("tags", ListType(1, StringType(), element_required=True), "Tags"),
)
SPEC = TableSpec("bronze.demo", "A table", COLUMNS, key=("id",), partition_by="at", sort_by=("id", "at"))
ROW = {"id": "a", "at": MARKET_OPEN, "size": 7, "ratio": 0.5, "price": 1, "tags": ["x"]}


def declared(*columns: Column, **changes: Any) -> TableSpec:
    return replace(SPEC, columns=columns, **changes)


def changed(name: str, **changes: Any) -> TableSpec:
    return declared(*(replace(c, **changes) if c.name == name else c for c in COLUMNS))


def append(table: Table, spec: TableSpec, row: dict[str, Any]) -> None:
    table.append(pa.Table.from_pylist([row], schema=schema_to_pyarrow(spec.schema, include_field_ids=False)))


def as_declared(table: Table, spec: TableSpec) -> list[tuple[str, str, bool, str | None]]:
    def read(schema: Schema) -> list[tuple[str, str, bool, str | None]]:
        return [(f.name, type(f.field_type).__name__, f.required, f.doc) for f in schema.fields]

    assert read(table.schema()) == read(spec.schema)
    return read(spec.schema)


@pytest.fixture
def bare(settings: LakehouseSettings) -> Catalog:
    """A catalog without tables."""
    catalog = open_catalog(settings)
    catalog.create_namespace("bronze")
    return catalog


@pytest.fixture
def table(bare: Catalog) -> Table:
    table = bare.create_table(
        SPEC.name,
        SPEC.schema,
        partition_spec=SPEC.partition_spec,
        sort_order=SPEC.sort_order,
        properties=SPEC.properties,
    )
    append(table, SPEC, ROW)
    return table


EVOLVED = TableSpec(
    "bronze.demo",
    "A better table",
    (
        Column("event_id", StringType(), "Id of the event", was="id"),
        Column("note", StringType(), "Note", required=False),
        Column("at", TimestamptzType(), "When"),
        Column("size", LongType(), "Size", required=False),
        Column("ratio", DoubleType(), "Ratio"),
        Column("price", DecimalType(18, 2), "Price"),
        Column("tags", ListType(1, StringType(), element_required=True), "Tags"),
    ),
    key=("event_id",),
    partition_by="at",
    sort_by=("event_id", "at", "size"),
    owner="somebody-else",
)


def test_a_table_becomes_what_its_declaration_says_in_one_commit(bare: Catalog, table: Table) -> None:
    before = table.metadata_location
    done = evolve(table, EVOLVED)
    assert done == (
        "column event_id described anew",
        "column id renamed to event_id",
        "column note added",
        "column size widened from int to long",
        "column size made optional",
        "column ratio widened from float to double",
        "column price widened from decimal(10, 2) to decimal(18, 2)",
        "columns put in the order of their declaration",
        "sorted by event_id, at, size",
        "properties comment, tickhouse.key, tickhouse.owner, write.metadata.metrics.column.event_id set",
    )
    head = bare.load_table(SPEC.name)
    as_declared(head, EVOLVED)
    assert [head.schema().find_column_name(f.source_id) for f in head.sort_order().fields] == [
        "event_id",
        "at",
        "size",
    ]
    assert EVOLVED.properties.items() - {("format-version", "2")} <= head.properties.items()
    assert head.metadata.metadata_log[-1].metadata_file == before, "more than one commit"
    assert evolve(head, EVOLVED) == ()
    assert bare.load_table(SPEC.name).metadata_location == head.metadata_location


def test_rows_from_before_and_after_are_read_together_and_old_snapshots_as_they_were(
    table: Table, database: duckdb.DuckDBPyConnection
) -> None:
    then = table.current_snapshot()
    assert then is not None
    evolve(table, EVOLVED)
    append(
        table,
        EVOLVED,
        {"event_id": "b", "at": MARKET_OPEN, "note": "n", "size": None}
        | {k: ROW[k] for k in ("ratio", "price", "tags")},
    )
    snapshot = ManifestCache().files(SPEC.name, table)
    rows = database.execute(
        f"select event_id, note, size from ({files_sql(snapshot, snapshot.files)}) order by all"
    )
    assert rows.fetchall() == [("a", None, 7), ("b", "n", None)]
    names = ["tags", "note", "size", "ratio", "price", "event_id"]
    read = pa.Table.from_batches(read_batches(table.io, snapshot, snapshot.files, names, 10))
    assert read.sort_by("event_id").equals(table.scan().to_arrow().sort_by("event_id").select(names))
    assert table.scan().to_arrow().sort_by("event_id")["event_id"].to_pylist() == ["a", "b"]
    assert table.scan(snapshot_id=then.snapshot_id).to_arrow().to_pylist() == [
        {
            **ROW,
            "at": table.scan().to_arrow()["at"][0].as_py(),
            "price": table.scan().to_arrow()["price"][0].as_py(),
        }
    ]


def price(precision: int, scale: int) -> TableSpec:
    return changed("price", type=DecimalType(precision, scale))


REFUSED: dict[str, tuple[TableSpec, str]] = {
    "drop": (
        declared(*COLUMNS[:-1]),
        r"column tags \(list<string>\) is stored but no longer declared.*was='tags'",
    ),
    "new required column": (
        declared(*COLUMNS, Column("new", StringType(), "New")),
        r"column new is declared as required.*required=False",
    ),
    "fewer digits": (price(9, 2), r"price is stored as decimal\(10, 2\) and declared as decimal\(9, 2\)"),
    "other scale": (price(12, 4), r"price is stored as decimal\(10, 2\) and declared as decimal\(12, 4\)"),
    "other type": (changed("size", type=StringType()), "size is stored as int and declared as string"),
    "other element": (changed("tags", type=ListType(1, LongType())), "tags is stored as list<string>"),
    "partitioning": (replace(SPEC, partition_by=None), r"partitioned by day\(at\) and declared by nothing"),
    "key": (replace(SPEC, key=("id", "at")), r"key is stored as \(id\) and declared as \(id, at\)"),
}


@pytest.mark.parametrize(("spec", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_evolution_cannot_do_is_refused_and_nothing_changes(
    bare: Catalog, table: Table, spec: TableSpec, reason: str
) -> None:
    with pytest.raises(EvolutionRefusedError, match=rf"bronze\.demo: .*{reason}") as error:
        evolve(table, replace(spec, owner="somebody-else"))
    assert "bronze.demo is as it was" in str(error.value)
    assert bare.load_table(SPEC.name).metadata_location == table.metadata_location


def test_optional_is_not_made_required(table: Table) -> None:
    evolve(table, changed("size", required=False))
    with pytest.raises(EvolutionRefusedError, match="size is stored as optional and declared as required"):
        evolve(table, SPEC)


def test_the_loser_of_a_race_finds_the_work_done(
    bare: Catalog, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = Transaction.commit_transaction

    def after_a_rival(self: Transaction) -> Table:
        monkeypatch.setattr(Transaction, "commit_transaction", commit)
        assert evolve(bare.load_table(SPEC.name), EVOLVED)
        return commit(self)

    monkeypatch.setattr(Transaction, "commit_transaction", after_a_rival)
    assert evolve(table, EVOLVED) == ()
    as_declared(bare.load_table(SPEC.name), EVOLVED)


def test_a_crash_in_the_commit_leaves_the_table_as_it_was(
    bare: Catalog, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Table, "_do_commit", lambda *_, **__: (_ for _ in ()).throw(CommitFailedException("away")))
        with pytest.raises(CommitFailedException):
            evolve(table, EVOLVED)
    assert bare.load_table(SPEC.name).schema().find_field("id")
    assert evolve(bare.load_table(SPEC.name), EVOLVED)


def test_a_refused_table_does_not_hold_up_the_others(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog.drop_table("quality.check_results")
    monkeypatch.setitem(TABLES, "bronze.quotes", replace(TABLES["bronze.quotes"], partition_by=None))
    with pytest.raises(EvolutionRefusedError, match=r"bronze\.quotes"):
        create_tables(catalog)
    assert catalog.table_exists("quality.check_results")


def made_before_it_had_all_its_columns(catalog: Catalog, name: str, *columns: str) -> None:
    spec = replace(TABLES[name], columns=tuple(c for c in TABLES[name].columns if c.name not in columns))
    catalog.drop_table(name)
    catalog.create_table(name, spec.schema, partition_spec=spec.partition_spec)


def test_processes_that_start_together_bring_an_older_table_up_to_date(
    catalog: Catalog, settings: LakehouseSettings
) -> None:
    made_before_it_had_all_its_columns(catalog, "bronze.orders", "time_in_force", "replaces")
    environment = {"TICKHOUSE_DATA_DIR": str(settings.data_dir)}
    processes = [
        subprocess.Popen([sys.executable, "-m", "lakehouse", "init"], env=environment, cwd=Path.cwd(), stderr=-1)
        for _ in range(3)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
    table = open_catalog(settings).load_table("bronze.orders")
    as_declared(table, TABLES["bronze.orders"])
    assert len(table.schemas()) == 2, "evolved once"
