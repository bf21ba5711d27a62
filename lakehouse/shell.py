"""``just sql``: SQL on the lakehouse from a terminal.

In: statements, typed (each ends with ``;``) or as one argument. Out: their rows as a table, or as CSV. All tables
can be named, ``silver.trades``; each statement sees the newest commits, or with ``--as-of`` those of a moment.

Statements read and change nothing: any other kind is refused. Each has the time limit and the memory limit of the
settings, and Ctrl-C stops it.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import csv
import readline
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from lakehouse.as_of import parse_as_of
from lakehouse.catalog import CatalogUnavailableError
from lakehouse.query import Lake
from lakehouse.running import Cancellation, QueryTimeoutError
from lakehouse.settings import LakehouseSettings
from lakehouse.snapshots import SnapshotUnknownError
from lakehouse.tables import TABLES

SHOWN_ROWS = 100
"""A terminal shows no more of a result; CSV has all of it."""
HISTORY_LINES = 1_000
READING = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
"""Kinds of statements that change nothing; DESCRIBE, SHOW, SUMMARIZE and FROM are of the first."""
HELP = "Statements end with ;  \\d lists the tables, \\d TABLE its columns, \\q leaves, Ctrl-C stops a statement."
FAILURES = (duckdb.Error, QueryTimeoutError, SnapshotUnknownError)


class RefusedError(ValueError):
    """The statement is of a kind that is not run here."""


def run(lake: Lake, text: str, out: Callable[[pa.RecordBatchReader], None]) -> None:
    """Give the rows of one statement to ``out``.

    Both run in a thread of their own, so that this one hears Ctrl-C at once: DuckDB looks for signals between its
    tasks, and a task can last as long as the statement.

    Raises:
        RefusedError: several statements, none, or one that does more than read.
        KeyboardInterrupt: Ctrl-C; the statement has ended.
        Exception: one of :data:`FAILURES`.
    """
    statements = duckdb.extract_statements(text)
    if len(statements) != 1:
        raise RefusedError(f"one statement at a time, not {len(statements)}")
    if statements[0].type not in READING:
        raise RefusedError(f"{statements[0].type.name} is not run here: the lakehouse is only read")
    cancellation = Cancellation()

    def answer() -> None:
        with lake.batches(text, cancellation=cancellation) as rows:
            out(rows)

    with ThreadPoolExecutor(1) as thread:
        answered = thread.submit(answer)
        try:
            answered.result()
        except KeyboardInterrupt:
            cancellation.cancel()
            raise


def show(rows: pa.RecordBatchReader, console: Console) -> None:
    """Print the first rows as a table, and how many came."""
    table = Table(*rows.schema.names)
    shown, more = 0, False
    for batch in rows:
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            more = shown == SHOWN_ROWS
            if more:
                break
            table.add_row(*("" if value is None else str(value) for value in row))
            shown += 1
        if more:
            break
    console.print(table)
    console.print(f"the first {shown} rows; --csv prints all" if more else f"{shown} rows")


def print_csv(rows: pa.RecordBatchReader) -> None:
    """Print all rows as CSV with a header."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(rows.schema.names)
    for batch in rows:
        writer.writerows(zip(*(column.to_pylist() for column in batch.columns), strict=True))


def converse(lake: Lake, console: Console, settings: LakehouseSettings) -> None:
    """Read statements and answer them until the input ends."""
    _remember(settings.lakehouse_dir / "sql_history")
    console.print(f"{len(TABLES)} tables. {HELP}")
    typed = ""
    while True:
        try:
            typed += input("… " if typed else "sql> ") + "\n"
            statement = _command(typed.strip())
            if statement is None:
                return
            if statement.endswith(";"):
                typed = ""
                run(lake, statement, lambda rows: show(rows, console))
        except EOFError:
            return
        except KeyboardInterrupt:
            typed = ""
            console.print("stopped")
        except (RefusedError, *FAILURES) as error:
            typed = ""
            console.print(str(error), style="red", markup=False, highlight=False)


def _command(typed: str) -> str | None:
    r"""What ``\d`` and the like mean in SQL; None: leave."""
    word, _, rest = typed.rstrip(";").partition(" ")
    if word in ("\\q", "exit", "quit"):
        return None
    if word == "\\d" and rest:
        return f"describe {rest};"
    if word == "\\d":
        listed = ", ".join(
            "('{}', '{}')".format(name, spec.doc.replace("'", "''")) for name, spec in TABLES.items()
        )
        return f"select * from (values {listed}) t(name, meaning);"
    return typed


def _remember(history: Path) -> None:
    """Keep what was typed for the next time."""
    history.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        readline.read_history_file(history)
    readline.set_history_length(HISTORY_LINES)
    atexit.register(readline.write_history_file, history)


def main() -> int:
    parser = argparse.ArgumentParser(prog="just sql", description="SQL on the lakehouse; it is only read.")
    parser.add_argument("statement", nargs="?", help="run this one and leave; without it, a prompt")
    parser.add_argument("--csv", action="store_true", help="all rows as CSV")
    parser.add_argument("--as-of", type=parse_as_of, help="snapshot id, date or time: tables as they were then")
    arguments = parser.parse_args()
    console = Console()
    settings = LakehouseSettings()
    try:
        # What DuckDB has open at the end of a process can abort it.
        with contextlib.closing(Lake(settings)) as lake:
            shown = lake if arguments.as_of is None else lake.at(arguments.as_of)
            if arguments.statement is None:
                converse(shown, console, settings)
            else:
                run(shown, arguments.statement, print_csv if arguments.csv else lambda rows: show(rows, console))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except (CatalogUnavailableError, RefusedError, *FAILURES) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
