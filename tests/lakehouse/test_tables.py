from __future__ import annotations

import json

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.types import DecimalType, DoubleType, FloatType, TimestampType

from lakehouse.catalog import open_catalog
from lakehouse.settings import LakehouseSettings
from lakehouse.tables import NAMESPACES, TABLES, arrow_schema, create_tables


def test_creating_again_changes_nothing(catalog: Catalog) -> None:
    before = {name: catalog.load_table(name).metadata_location for name in TABLES}
    assert create_tables(catalog) == {}
    assert before == {name: catalog.load_table(name).metadata_location for name in TABLES}
    assert {namespace for (namespace,) in catalog.list_namespaces()} == set(NAMESPACES)


def test_only_what_is_missing_is_created(catalog: Catalog) -> None:
    catalog.drop_table("gold.minute_bars")
    assert create_tables(catalog) == {"gold.minute_bars": ("created",)}


@pytest.fixture(scope="module")
def created(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    catalog = open_catalog(LakehouseSettings(data_dir=tmp_path_factory.mktemp("created")))
    create_tables(catalog)
    return catalog


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_what_its_declaration_says(created: Catalog, name: str) -> None:
    catalog = created
    spec, table = TABLES[name], catalog.load_table(name)
    assert table.schema().fields == spec.schema.fields
    assert table.spec().fields == spec.partition_spec.fields
    assert table.sort_order().fields == spec.sort_order.fields
    assert spec.properties.items() - {("format-version", "2")} <= table.properties.items()
    assert json.loads(table.properties["tickhouse.key"]) == list(spec.key)
    assert table.format_version == 2


@pytest.mark.parametrize("name", TABLES)
def test_declarations_are_sound(name: str) -> None:
    spec = TABLES[name]
    columns = {column.name for column in spec.columns}
    assert {*spec.key, *spec.sort_by, *spec.personal} <= columns
    assert len(columns) == len(spec.columns)
    assert all(column.doc for column in spec.columns)
    assert spec.owner
    assert spec.tags
    for column in spec.columns:
        assert not isinstance(column.type, (FloatType, TimestampType)), f"{column.name} is not exact or not UTC"
        if isinstance(column.type, DoubleType):
            assert spec.namespace in ("gold", "quality", "governance"), "floats only in analytics"
        if isinstance(column.type, DecimalType):
            assert column.type.scale == 8


@pytest.mark.parametrize("name", TABLES)
def test_an_empty_arrow_table_of_the_schema_can_be_appended(created: Catalog, name: str) -> None:
    table = created.load_table(name)
    table.append(arrow_schema(name).empty_table())
    assert table.scan().to_arrow().num_rows == 0


def test_bronze_has_one_table_for_each_raw_topic_with_kafkas_coordinates() -> None:
    bronze = [name for name in TABLES if name.startswith("bronze.")]
    assert len(bronze) == 7
    for name in bronze:
        assert arrow_schema(name).names[-6:] == [
            "_kafka_topic",
            "_kafka_partition",
            "_kafka_offset",
            "_kafka_timestamp",
            "_received_at",
            "_ingested_at",
        ]


def test_a_required_column_refuses_null(catalog: Catalog) -> None:
    schema = pa.schema([field.with_nullable(True) for field in arrow_schema("dimensions.dim_symbol")])
    rows = pa.Table.from_pylist([{"symbol_key": 1}], schema=schema)
    with pytest.raises(ValueError, match="symbol"):
        catalog.load_table("dimensions.dim_symbol").append(rows)
