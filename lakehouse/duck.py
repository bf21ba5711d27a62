"""DuckDB for the lakehouse: connections that read Parquet and Iceberg, and the SQL for a snapshot's files.

In: :class:`~lakehouse.settings.LakehouseSettings`. Out: in-memory connections; nothing is kept on disk, so a crash
loses nothing. Extensions come from Python packages: nothing is fetched at run time. The session time zone is UTC.
"""

from __future__ import annotations

import importlib
import importlib.resources
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlparse

import duckdb
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
)

from lakehouse.rounding import define_rounding
from lakehouse.settings import LakehouseSettings
from lakehouse.snapshots import DataFileEntry, SnapshotFiles, local_path

EXTENSIONS = ("avro", "httpfs", "iceberg")
"""In this order: iceberg reads its manifests with avro."""

_TYPES: dict[type[IcebergType], str] = {
    BinaryType: "BLOB",
    BooleanType: "BOOLEAN",
    DateType: "DATE",
    DoubleType: "DOUBLE",
    FloatType: "FLOAT",
    IntegerType: "INTEGER",
    LongType: "BIGINT",
    StringType: "VARCHAR",
    TimestampType: "TIMESTAMP",
    TimestamptzType: "TIMESTAMP WITH TIME ZONE",
}


def connect(settings: LakehouseSettings, extensions: Sequence[str] = EXTENSIONS) -> duckdb.DuckDBPyConnection:
    """A connection in memory: extensions loaded, limits set, time zone UTC, S3 reachable if set.

    Args:
        extensions: of :data:`EXTENSIONS`; httpfs is what S3 takes, and all of them take a third of a CPU second.
    """
    connection = duckdb.connect(
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "memory_limit": settings.query_memory_limit,
            "temp_directory": _spill_directory(),
            "threads": settings.query_threads,
        }
    )
    for name in extensions:
        connection.execute(f"load {quoted(_extension_path(name))}")
    connection.execute("set global TimeZone = 'UTC'")
    connection.execute("set global parquet_metadata_cache = true")
    if settings.s3_access_key_id or settings.s3_endpoint:
        connection.execute(_s3_secret(settings))
    define_rounding(connection)
    return connection


def _spill_directory() -> str:
    """Where a query's data goes that does not fit into memory: DuckDB makes it when needed, and removes it.

    The default is one in the current directory, shared by all processes, which then overwrite each other's files.
    """
    return str(Path(tempfile.gettempdir()) / f"tickhouse-spilled-{uuid.uuid4().hex}")


def files_sql(snapshot: SnapshotFiles, files: Sequence[DataFileEntry]) -> str:
    """Select statement over ``files``; columns by field id, so that renamed and added ones come out right.

    Raises:
        NotImplementedError: the snapshot has delete files; use :func:`snapshot_sql` on the whole of it.
    """
    refuse_deletes(snapshot)
    if not files:
        return empty_sql(snapshot.schema)
    columns = ", ".join(
        f"{f.field_id}: {{name: {quoted(f.name)}, type: {quoted(duckdb_type(f.field_type))}, default_value: NULL}}"
        for f in snapshot.schema.fields
    )
    paths = ", ".join(quoted(file.path) for file in files)
    return f"select {_names(snapshot.schema)} from read_parquet([{paths}], schema = MAP {{{columns}}})"


def data_files_sql(snapshot: SnapshotFiles, files: Sequence[DataFile]) -> str:
    """As :func:`files_sql`, for files as a commit takes them; the snapshot need not name them."""
    entries = [DataFileEntry(local_path(file.file_path), file.record_count, 0, None, None) for file in files]
    return files_sql(snapshot, entries)


def refuse_deletes(snapshot: SnapshotFiles) -> None:
    """Raises NotImplementedError: the snapshot has delete files."""
    if snapshot.has_deletes:
        raise NotImplementedError(
            f"{snapshot.name} has delete files: its data files alone would show deleted rows; compact it first"
        )


def snapshot_sql(snapshot: SnapshotFiles, files: Sequence[DataFileEntry]) -> str:
    """Select statement over the snapshot's ``files``; over all of it where delete files have to be honoured."""
    if snapshot.has_deletes:
        return (
            f"select {_names(snapshot.schema)} from iceberg_scan({quoted(snapshot.metadata_location)}, "
            f"snapshot_from_id = {snapshot.snapshot_id})"
        )
    return files_sql(snapshot, files)


def empty_sql(schema: Schema) -> str:
    """Select statement without rows, with the schema's columns."""
    columns = ", ".join(
        f"cast(null as {duckdb_type(f.field_type)}) as {_identifier(f.name)}" for f in schema.fields
    )
    return f"select {columns} where false"


def duckdb_type(iceberg: IcebergType) -> str:
    """DuckDB's name of an Iceberg type.

    Raises:
        NotImplementedError: a type that no table here uses.
    """
    if isinstance(iceberg, DecimalType):
        return f"DECIMAL({iceberg.precision}, {iceberg.scale})"
    if isinstance(iceberg, ListType):
        return f"{duckdb_type(iceberg.element_type)}[]"
    if isinstance(iceberg, StructType):
        fields = ", ".join(f"{_identifier(f.name)} {duckdb_type(f.field_type)}" for f in iceberg.fields)
        return f"STRUCT({fields})"
    name = _TYPES.get(type(iceberg))
    if name is None:
        raise NotImplementedError(f"no DuckDB type is known for Iceberg's {iceberg}")
    return name


def _names(schema: Schema) -> str:
    return ", ".join(_identifier(f.name) for f in schema.fields)


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def sql_file(package: str, name: str) -> str:
    """The text of a file of SQL in ``lakehouse.package``."""
    return (importlib.resources.files(f"lakehouse.{package}") / name).read_text(encoding="utf-8")


def quoted(text: str) -> str:
    """A text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def _extension_path(name: str) -> str:
    root = importlib.resources.files(importlib.import_module(f"duckdb_extension_{name}"))
    return str(root / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension")


def _s3_secret(settings: LakehouseSettings) -> str:
    options = ["type s3", f"region {quoted(settings.s3_region)}"]
    if settings.s3_access_key_id:
        options.append(f"key_id {quoted(settings.s3_access_key_id)}")
    if settings.s3_secret_access_key is not None:
        options.append(f"secret {quoted(settings.s3_secret_access_key.get_secret_value())}")
    if settings.s3_endpoint:
        endpoint = urlparse(settings.s3_endpoint)
        options += [
            f"endpoint {quoted(endpoint.netloc)}",
            f"use_ssl {str(endpoint.scheme == 'https').lower()}",
            "url_style 'path'",
        ]
    return f"create or replace secret lake ({', '.join(options)})"
