"""Writing a table, or some of its rows, into one file: Parquet or CSV.

In: the name of a table, a condition in SQL, a moment or snapshot of the past. Out: a file with the rows, put in
place when it is whole, so that a crash or Ctrl-C leaves no half of it. Rows stream through: memory stays within
TICKHOUSE_QUERY_MEMORY_LIMIT, whatever the table's size.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import duckdb
from pyiceberg.catalog import Catalog
from rich.console import Console

from lakehouse.as_of import AsOf, find_as_of, parse_as_of
from lakehouse.catalog import open_catalog
from lakehouse.duck import connect, quoted
from lakehouse.query import create_views
from lakehouse.settings import LakehouseSettings
from lakehouse.tables import TABLES

_OPTIONS = {"parquet": "format parquet, compression zstd", "csv": "format csv, header"}
"""How DuckDB is told."""


class ExportError(ValueError):
    """What was asked for cannot be exported; nothing was written."""


def export(
    settings: LakehouseSettings,
    catalog: Catalog,
    table: str,
    out: Path,
    *,
    file_format: str = "parquet",
    where: str = "true",
    then: AsOf | None = None,
) -> int:
    """Write the rows of ``table`` for which ``where`` holds to ``out``, replacing it; returns their number.

    Args:
        file_format: ``parquet`` (zstd) or ``csv`` (with a header, times in UTC).
        where: a boolean expression of SQL over the table's columns.
        then: the table as it was; None: as it is now.

    Raises:
        ExportError: no such table, a condition that is no boolean expression, a file that cannot be written, or
            one of the table's that cannot be read.
        SnapshotUnknownError: the snapshot of ``then`` was expired.
    """
    if table not in TABLES:
        raise ExportError(f"there is no table {table}; there are {', '.join(TABLES)}")
    unfinished = out.with_name(f"{out.name}.unfinished")
    with connect(settings) as connection:
        connection.execute("set preserve_insertion_order = false")
        create_views(connection, catalog, [table], then)
        try:
            rows = connection.sql(f"select * from {table}").filter(where)
        except duckdb.Error as error:
            raise ExportError(f"--where {where!r} is no condition on {table}: {error}") from error
        try:
            rows.create_view("exported")
            copied = f"copy exported to {quoted(str(unfinished))} ({_OPTIONS[file_format]})"
            ((count,),) = connection.execute(copied).fetchall()
            os.replace(unfinished, out)
        except (duckdb.IOException, duckdb.OutOfMemoryException, OSError) as error:
            raise ExportError(f"{table} could not be exported to {out}: {error}") from error
        except duckdb.Error as error:
            raise ExportError(f"--where {where!r} fails on a row of {table}: {error}") from error
        finally:
            unfinished.unlink(missing_ok=True)
    return int(count)


def add_command(commands: Any) -> None:
    """Add ``export`` to the subcommands of an argument parser (what ``add_subparsers`` returned)."""
    parser = commands.add_parser("export", help="write a table, or some of its rows, into a file")
    parser.add_argument("table", metavar="TABLE", help="for example silver.trades")
    parser.add_argument(
        "out",
        metavar="OUT",
        type=Path,
        nargs="?",
        help="file to write; default TABLE.FORMAT",
    )
    parser.add_argument("--format", choices=sorted(_OPTIONS), default="parquet")
    parser.add_argument("--where", default="true", help="condition in SQL, for example \"symbol = 'AAPL'\"")
    parser.add_argument("--as-of", type=parse_as_of, help="snapshot id, date or time: the table as it was then")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace, console: Console) -> None:
    settings = LakehouseSettings()
    catalog = open_catalog(settings)
    then = None if arguments.as_of is None else find_as_of(catalog, arguments.as_of, [arguments.table])
    out = arguments.out or Path(f"{arguments.table}.{arguments.format}")
    rows = export(
        settings, catalog, arguments.table, out, file_format=arguments.format, where=arguments.where, then=then
    )
    console.print(f"{rows:,} rows of {arguments.table} in {out}")
