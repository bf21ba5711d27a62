"""The database that Prefect's server finds at its first start."""

from __future__ import annotations

import re
import sqlite3
from importlib.util import find_spec
from pathlib import Path

import pytest

from flows.prefect_database import dump_schema, prepare_database, schema


def test_the_schema_is_that_of_the_installed_prefect() -> None:
    spec = find_spec("prefect")
    assert spec is not None
    assert spec.origin is not None
    versions = Path(spec.origin).parent / "server/database/_migrations/versions/sqlite"
    text = "\n".join(path.read_text(encoding="utf-8") for path in versions.glob("*.py"))
    revisions = set(re.findall(r'^revision\b.*?=\s*"(\w+)"', text, re.MULTILINE))
    earlier = set(re.findall(r'^down_revision\b.*?=\s*"(\w+)"', text, re.MULTILINE))
    (newest,) = revisions - earlier
    assert f"INSERT INTO alembic_version VALUES ('{newest}');" in schema()


def test_the_database_is_made_once_and_then_left_alone(tmp_path: Path) -> None:
    assert prepare_database(tmp_path / "prefect")
    database = tmp_path / "prefect" / "prefect.db"
    with sqlite3.connect(database) as connection:
        connection.execute("create table mine (x)")
    assert not prepare_database(tmp_path / "prefect")
    with sqlite3.connect(database) as connection:
        assert connection.execute("select count(*) from mine").fetchone() == (0,)
    assert [path.name for path in (tmp_path / "prefect").glob("*.unfinished")] == []


def test_a_dump_makes_the_same_database_again(tmp_path: Path) -> None:
    prepare_database(tmp_path)
    assert dump_schema(tmp_path / "prefect.db") == schema()


def test_a_database_of_somebody_else_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("create table alembic_version (version_num)")
    with pytest.raises(ValueError, match="no migrated Prefect database"):
        dump_schema(tmp_path / "other.db")
