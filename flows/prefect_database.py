"""Prefect's database, made ready in milliseconds instead of by its 112 migrations.

In: the directory of Prefect's state. Out: an empty SQLite database at the schema that ``prefect_schema.sql``
holds: what the migrations of the pinned Prefect leave behind. Prefect's server still looks for migrations
when it starts, so a newer Prefect brings it up to date from there, as it would any older database.

On a crash: the file appears complete, by a rename, or not at all. An existing database is never touched.

``python -m flows.prefect_database DATABASE > flows/prefect_schema.sql`` writes the schema anew, from a
database that a server without this shortcut has made.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.resources
import os
import sqlite3
import sys
from pathlib import Path

DATABASE = "prefect.db"


def prepare_database(prefect_home: Path) -> bool:
    """Create ``prefect_home/prefect.db`` unless it exists; returns whether it was created now."""
    database = prefect_home / DATABASE
    if database.exists():
        return False
    prefect_home.mkdir(parents=True, exist_ok=True)
    unfinished = prefect_home / f"{DATABASE}.{os.getpid()}.unfinished"
    unfinished.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(unfinished)) as connection:
        connection.executescript(schema())
        # The mode that Prefect would set; it lets the interface read while runs are written.
        connection.execute("pragma journal_mode = wal")
    unfinished.rename(database)
    return True


def schema() -> str:
    """SQL that makes the database."""
    return (importlib.resources.files("flows") / "prefect_schema.sql").read_text(encoding="utf-8")


def dump_schema(database: Path) -> str:
    """The schema of ``database`` as SQL, and the row that says which migration it is at; nothing else of it.

    Raises:
        ValueError: the database holds no migration, so it is none of Prefect's.
    """
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        revision = connection.execute("select version_num from alembic_version").fetchone()
        if revision is None:
            raise ValueError(f"{database} is no migrated Prefect database")
        statements = [
            statement
            for statement in connection.iterdump()
            if not statement.startswith(("INSERT INTO", "BEGIN", "COMMIT", "DELETE FROM"))
        ]
    return "\n".join(
        [
            f"-- Schema of Prefect {importlib.metadata.version('prefect')}'s database (Apache-2.0),",
            "-- as its migrations leave it.",
            "-- Written by python -m flows.prefect_database; not to be edited.",
            "BEGIN;",
            *statements,
            f"INSERT INTO alembic_version VALUES ('{revision[0]}');",
            "COMMIT;",
            "",
        ]
    )


if __name__ == "__main__":
    sys.stdout.write(dump_schema(Path(sys.argv[1])))
