"""``python -m lakehouse COMMAND``: the lakehouse from the command line.

In: a command and its arguments; the settings of the environment. Out: tables on the terminal; on an error one line
on stderr and exit status 1. Every command may be run at any time, beside all services.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable

from pyiceberg.exceptions import NoSuchTableError
from rich.console import Console

from lakehouse.catalog import CatalogUnavailableError, open_catalog
from lakehouse.evolution import EvolutionRefusedError
from lakehouse.inspection import describe, files, history
from lakehouse.settings import LakehouseSettings
from lakehouse.tables import TABLES, create_tables

Command = Callable[[argparse.Namespace, Console], None]


def _init(_: argparse.Namespace, console: Console) -> None:
    settings = LakehouseSettings()
    done = create_tables(open_catalog(settings))
    for name, changes in done.items():
        console.print(f"{name}: {'; '.join(changes)}")
    console.print(f"{settings.effective_warehouse}: {len(TABLES)} tables, {len(done)} created or evolved now")


def _describe(arguments: argparse.Namespace, console: Console) -> None:
    console.print(*describe(open_catalog(LakehouseSettings()).load_table(arguments.table)), sep="\n")


def _history(arguments: argparse.Namespace, console: Console) -> None:
    console.print(history(open_catalog(LakehouseSettings()).load_table(arguments.table)))


def _files(arguments: argparse.Namespace, console: Console) -> None:
    console.print(files(open_catalog(LakehouseSettings()).load_table(arguments.table)))


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
    with_table("describe", _describe, "Columns with their meaning, partitions, order, key, owner, properties.")
    with_table("history", _history, "Snapshots, newest first: what each did, and the state it carries.")
    with_table("files", _files, "Data files: partition, rows, size, and the bounds of what they hold.")
    return parser


def main() -> int:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    arguments = _parser().parse_args()
    try:
        arguments.run(arguments, Console())
    except NoSuchTableError:
        print(f"{arguments.table} does not exist yet: just lake init", file=sys.stderr)
        return 1
    except (CatalogUnavailableError, EvolutionRefusedError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
