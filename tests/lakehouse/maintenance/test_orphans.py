"""Orphans: what nothing names goes when it is old enough, and nothing else ever."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from lakehouse.batch import BatchSession
from lakehouse.maintenance.compaction import compact
from lakehouse.maintenance.orphans import remove_orphans
from lakehouse.snapshots import local_path
from tests.lakehouse.conftest import Bronze
from tests.lakehouse.maintenance.test_expiry import needed, on_disk, trade_ids

NAME = "bronze.trades"
NOW = datetime(2030, 1, 1, tzinfo=UTC)
LAST_YEAR = NOW - timedelta(days=365)


@pytest.fixture
def table(alone: None, session: BatchSession, catalog: Catalog, bronze: Bronze) -> Table:
    """Commits, a compaction, and every file a year old."""
    for _ in range(5):
        bronze.trades({})
    assert compact(session, NAME, fewest_files=5).groups == 1
    table = catalog.load_table(NAME)
    age(table, LAST_YEAR)
    return table


def age(table: Table, written: datetime) -> None:
    for path in on_disk(table):
        os.utime(path, (written.timestamp(), written.timestamp()))


def leave(table: Table, path: str, written: datetime) -> str:
    """A file as a killed writer leaves it; returns its path."""
    file = Path(local_path(table.location())) / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x" * 100)
    os.utime(file, (written.timestamp(), written.timestamp()))
    return str(file)


def test_old_files_that_nothing_names_are_deleted(catalog: Catalog, table: Table) -> None:
    rows = trade_ids(table)
    data = leave(table, "data/timestamp_day=2026-03-13/left.parquet", NOW - timedelta(hours=25))
    manifest = leave(table, "metadata/left-m0.avro", NOW - timedelta(hours=25))
    young = leave(table, "data/timestamp_day=2026-03-13/going-on.parquet", NOW - timedelta(hours=23))
    before = on_disk(table)
    planned = remove_orphans(catalog, NAME, now=NOW, dry_run=True)
    assert on_disk(table) == before
    assert set(planned.paths) >= {data, manifest}
    assert planned.young == 1
    report = remove_orphans(catalog, NAME, now=NOW)
    assert (report.paths, report.size, report.young) == (planned.paths, planned.size, 1)
    assert on_disk(table) == needed(table) | {young}
    assert trade_ids(catalog.load_table(NAME)) == rows
    assert remove_orphans(catalog, NAME, now=NOW).paths == ()


def test_every_snapshot_that_is_kept_stays_readable(catalog: Catalog, table: Table) -> None:
    remove_orphans(catalog, NAME, now=NOW)
    for number, snapshot in enumerate(table.metadata.snapshots, 1):
        assert len(trade_ids(table, snapshot.snapshot_id)) == min(number, 5)


def test_a_commit_while_the_files_are_listed_is_honoured(
    catalog: Catalog, bronze: Bronze, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, loads = type(catalog).load_table, []

    def commit_before_the_second(self: Catalog, name: str) -> Table:
        if len(loads) == 1:
            loads.append("appending")
            bronze.trades({})
            age(load(self, name), LAST_YEAR)
        loads.append(name)
        return load(self, name)

    monkeypatch.setattr(type(catalog), "load_table", commit_before_the_second)
    remove_orphans(catalog, NAME, now=NOW)
    monkeypatch.undo()
    assert len(trade_ids(catalog.load_table(NAME))) == 6


@pytest.mark.usefixtures("alone")
def test_an_age_that_would_hit_commits_going_on_is_refused(catalog: Catalog) -> None:
    with pytest.raises(ValueError, match="commit that is going on"):
        remove_orphans(catalog, NAME, now=NOW, older_than=timedelta(minutes=59))


def test_a_listing_without_the_tables_own_files_deletes_nothing(
    catalog: Catalog, table: Table, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = on_disk(table)
    elsewhere = tmp_path / "elsewhere" / "data"
    elsewhere.mkdir(parents=True)
    stray = elsewhere / "stray.parquet"
    stray.touch()
    os.utime(stray, (LAST_YEAR.timestamp(), LAST_YEAR.timestamp()))
    monkeypatch.setattr(Table, "location", lambda _: f"file://{elsewhere.parent}")
    with pytest.raises(RuntimeError, match="nothing was deleted"):
        remove_orphans(catalog, NAME, now=NOW)
    monkeypatch.undo()
    assert stray.exists()
    assert on_disk(table) == before
