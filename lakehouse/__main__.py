"""``python -m lakehouse COMMAND``: the lakehouse from the command line.

In: a command and its arguments; the settings of the environment. Out: tables on the terminal; on an error one line
on stderr and exit status 1. Every command may be run at any time, beside all services.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from datetime import timedelta

from pyiceberg.exceptions import NoSuchTableError
from rich.console import Console

from lakehouse import export
from lakehouse.batch import BatchSession, utc_now
from lakehouse.catalog import CatalogUnavailableError, open_catalog
from lakehouse.dimensions.step import seed_dimensions
from lakehouse.inspection import describe, files, history, size_text, statistics_tables
from lakehouse.maintenance.compaction import compact
from lakehouse.maintenance.expiry import expire
from lakehouse.maintenance.orphans import remove_orphans
from lakehouse.maintenance.statistics import table_statistics
from lakehouse.quality.gate import ContractViolationError
from lakehouse.settings import LakehouseSettings
from lakehouse.state import StateLostError
from lakehouse.tables import TABLES, create_tables

Command = Callable[[argparse.Namespace, Console], None]


def _init(_: argparse.Namespace, console: Console) -> None:
    settings = LakehouseSettings()
    done = create_tables(open_catalog(settings))
    for name, changes in done.items():
        console.print(f"{name}: {'; '.join(changes)}")
    console.print(f"{settings.effective_warehouse}: {len(TABLES)} tables, {len(done)} created or evolved now")


def _seed(_: argparse.Namespace, console: Console) -> None:
    session = BatchSession.open(LakehouseSettings())
    with session.connection:
        for name, done in seed_dimensions(session).items():
            console.print(f"{name}: {'changed' if done.changed else 'as it was'}, {done.rows:,} rows")


def _describe(arguments: argparse.Namespace, console: Console) -> None:
    console.print(*describe(open_catalog(LakehouseSettings()).load_table(arguments.table)), sep="\n")


def _history(arguments: argparse.Namespace, console: Console) -> None:
    console.print(history(open_catalog(LakehouseSettings()).load_table(arguments.table)))


def _files(arguments: argparse.Namespace, console: Console) -> None:
    console.print(files(open_catalog(LakehouseSettings()).load_table(arguments.table)))


def _compact(arguments: argparse.Namespace, console: Console) -> None:
    session = BatchSession.open(LakehouseSettings())
    with session.connection:  # what DuckDB has open at the end of a process can abort it
        for name in _named(arguments):
            done = compact(session, name)
            given_up = f", {done.yielded} given up to another writer" if done.yielded else ""
            console.print(
                f"{name}: {done.files_before} files, {size_text(done.bytes_before)} → {done.files_after} files, "
                f"{size_text(done.bytes_after)}, {done.rows:,} rows{given_up}"
            )


def _expire(arguments: argparse.Namespace, console: Console) -> None:
    settings = LakehouseSettings()
    catalog = open_catalog(settings)
    for name in _named(arguments):
        done = expire(catalog, name, keep=settings.snapshots_kept, dry_run=arguments.dry_run)
        would_be = "would be " if arguments.dry_run else ""
        console.print(
            f"{name}: {done.snapshots} snapshots {would_be}forgotten, {done.kept} kept; {done.data_files} data "
            f"files ({size_text(done.data_bytes)}) and {done.manifest_files} manifests {would_be}deleted"
        )


def _orphans(arguments: argparse.Namespace, console: Console) -> None:
    catalog = open_catalog(LakehouseSettings())
    age = timedelta(hours=arguments.older_than_hours)
    for name in _named(arguments):
        done = remove_orphans(catalog, name, now=utc_now(), older_than=age, dry_run=arguments.dry_run)
        for path in done.paths if arguments.dry_run else ():
            console.print(path, soft_wrap=True)
        would_be = "would be " if arguments.dry_run else ""
        console.print(
            f"{name}: {len(done.paths)} orphans ({size_text(done.size)}) {would_be}deleted, {done.young} too young"
        )


def _stats(arguments: argparse.Namespace, console: Console) -> None:
    catalog = open_catalog(LakehouseSettings())
    for name in _named(arguments):
        console.print(*statistics_tables(table_statistics(catalog, name)), sep="\n")


def _named(arguments: argparse.Namespace) -> list[str]:
    """The tables asked for; all of them where none is named."""
    return arguments.tables or sorted(TABLES)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="just lake", description="The lakehouse's tables.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Command, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    def with_table(name: str, run: Command, text: str) -> argparse.ArgumentParser:
        added = command(name, run, text)
        added.add_argument("table", choices=sorted(TABLES), metavar="TABLE", help="for example bronze.trades")
        return added

    command("init", _init, "Create the tables that are missing and evolve those declared anew.")
    command("seed", _seed, "Bring the dimensions in line with their reference files.")
    with_table("describe", _describe, "Columns with their meaning, partitions, order, key, owner, properties.")
    with_table("history", _history, "Snapshots, newest first: what each did, and the state it carries.")
    with_table("files", _files, "Data files: partition, rows, size, and the bounds of what they hold.")

    def with_tables(name: str, run: Command, text: str, dry: bool = False) -> argparse.ArgumentParser:
        added = command(name, run, text)
        added.add_argument("tables", nargs="*", metavar="TABLE", help="for example bronze.trades; none: all")
        if dry:
            added.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
        return added

    with_tables("compact", _compact, "Rewrite small files into sorted ones near the target size.")
    with_tables("expire", _expire, "Forget old snapshots and delete the files that only they need.", dry=True)
    orphans = with_tables("orphans", _orphans, "Delete old files that no snapshot names.", dry=True)
    orphans.add_argument("--older-than-hours", type=int, default=24, help="age of a file, at least 1; default 24")
    with_tables("stats", _stats, "Rows, sizes, files per partition, nulls per column.")
    export.add_command(commands)
    return parser


def main() -> int:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    parser = _parser()
    arguments = parser.parse_args()
    if unknown := [name for name in getattr(arguments, "tables", ()) if name not in TABLES]:
        parser.error(f"no such table: {', '.join(unknown)}; there are {', '.join(sorted(TABLES))}")
    try:
        arguments.run(arguments, Console())
    except NoSuchTableError as error:
        print(f"{error}; create the tables: just lake init", file=sys.stderr)
        return 1
    except (
        CatalogUnavailableError,
        ContractViolationError,
        StateLostError,
        NotImplementedError,
        ValueError,
    ) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
