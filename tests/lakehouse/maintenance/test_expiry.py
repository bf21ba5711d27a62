"""Expiry: files go with the snapshots that alone needed them, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import ManifestFile
from pyiceberg.table import Table

from lakehouse import retention
from lakehouse.batch import BatchSession
from lakehouse.maintenance import expiry
from lakehouse.maintenance.compaction import compact
from lakehouse.maintenance.expiry import Expired, expire
from lakehouse.maintenance.reachable import Known, files_of, named_by
from lakehouse.settings import LakehouseSettings
from lakehouse.silver.events import refine_trades
from lakehouse.snapshots import local_path
from lakehouse.state import committed_offsets
from tests.lakehouse.conftest import Bronze, CommitFaults

NAME = "bronze.trades"


def on_disk(table: Table) -> set[str]:
    root = Path(local_path(table.location()))
    return {str(path) for path in root.rglob("*") if path.is_file()}


def needed(table: Table) -> set[str]:
    """What the table's metadata names, as paths."""
    named = files_of(table.io, table.metadata.snapshots).all() | named_by(table.metadata)
    return {local_path(path) for path in named | {table.metadata_location}}


def trade_ids(table: Table, snapshot_id: int | None = None) -> list[str]:
    return sorted(table.scan(snapshot_id=snapshot_id).to_arrow()["trade_id"].to_pylist())


@pytest.fixture
def compacted(alone: None, session: BatchSession, catalog: Catalog, bronze: Bronze) -> Table:
    """Five commits, compacted; two commits after that."""
    for _ in range(5):
        bronze.trades({})
    assert compact(session, NAME, fewest_files=5).files_before == 5
    bronze.trades({})
    bronze.trades({})
    return catalog.load_table(NAME)


@pytest.fixture
def readers_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "READERS", retention.READERS * 0)


@pytest.mark.usefixtures("readers_are_done")
def test_what_only_old_snapshots_needed_is_deleted_and_nothing_else(catalog: Catalog, compacted: Table) -> None:
    before, rows = on_disk(compacted), trade_ids(compacted)
    planned = expire(catalog, NAME, keep=2, dry_run=True)
    assert on_disk(compacted) == before
    report = expire(catalog, NAME, keep=2)
    assert report == planned
    assert (report.snapshots, report.kept, report.data_files) == (6, 2, 5)
    assert report.data_bytes > 0
    table = catalog.load_table(NAME)
    assert on_disk(table) == needed(table), "neither too much nor too little is left"
    assert trade_ids(table) == rows
    assert committed_offsets(table) == {"raw.trades": {0: 7}}
    assert expire(catalog, NAME, keep=2) == Expired(NAME, kept=2)


@pytest.mark.usefixtures("readers_are_done")
def test_a_manifest_is_read_by_one_run_and_known_to_the_next(
    catalog: Catalog, bronze: Bronze, compacted: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, read = Known(), list[str]()
    fetch = ManifestFile.fetch_manifest_entry

    def fetched(manifest: ManifestFile, *others: Any, **named: Any) -> Any:
        read.append(manifest.manifest_path)
        return fetch(manifest, *others, **named)

    monkeypatch.setattr(ManifestFile, "fetch_manifest_entry", fetched)
    assert expire(catalog, NAME, keep=2, known=known).snapshots == 6
    bronze.trades({})
    bronze.trades({})
    before = set(read)
    read.clear()
    report = expire(catalog, NAME, keep=2, known=known)
    assert report.snapshots == 2
    assert len(read) == 2, "of the two commits"
    assert not before & set(read)
    table = catalog.load_table(NAME)
    assert on_disk(table) == needed(table)
    assert known.lists.keys() == {snapshot.manifest_list for snapshot in table.metadata.snapshots}
    assert known.manifests.keys() == {path for paths in known.lists.values() for path in paths}


def test_files_that_a_query_may_still_read_stay(catalog: Catalog, compacted: Table) -> None:
    report = expire(catalog, NAME, keep=2)
    assert (report.snapshots, report.kept, report.data_files) == (5, 3, 0)
    parent = sorted(catalog.load_table(NAME).metadata.snapshots, key=lambda s: s.sequence_number or 0)[0]
    assert len(trade_ids(compacted, parent.snapshot_id)) == 5


@pytest.mark.usefixtures("readers_are_done")
def test_a_step_that_lags_far_behind_finds_every_row(
    session: BatchSession, catalog: Catalog, bronze: Bronze
) -> None:
    for _ in range(5):
        bronze.trades({})
    refine_trades(session)
    assert compact(session, NAME, fewest_files=5).groups == 1
    for _ in range(5):
        bronze.trades({})
    assert expire(catalog, NAME, keep=1).snapshots == 10
    result = refine_trades(session)
    assert (result.new, result.duplicates) == (5, 0)
    assert len(trade_ids(catalog.load_table("silver.trades"))) == 10


@pytest.mark.usefixtures("readers_are_done")
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_around_the_commit_costs_no_row(
    catalog: Catalog, compacted: Table, commit_faults: CommitFaults, when: Any
) -> None:
    rows, before = trade_ids(compacted), on_disk(compacted)
    commit_faults.at_next_commit(NAME, when)
    with pytest.raises(ProcessLookupError):
        expire(catalog, NAME, keep=2)
    table = catalog.load_table(NAME)
    assert before - on_disk(table) <= {local_path(m.metadata_file) for m in compacted.metadata.metadata_log}
    assert len(table.metadata.snapshots) == (2 if when == "after" else 8)
    assert needed(table) <= on_disk(table)
    assert trade_ids(table) == rows


@pytest.mark.usefixtures("readers_are_done")
def test_a_crash_between_deletions_costs_no_row(
    catalog: Catalog, compacted: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = trade_ids(compacted)
    delete = type(compacted.io).delete
    deleted: list[str] = []

    def die_at_the_fifth(self: Any, location: Any) -> None:
        if len(deleted) == 5:
            raise ProcessLookupError("killed")
        deleted.append(str(location))
        delete(self, location)

    with monkeypatch.context() as patched:
        patched.setattr(type(compacted.io), "delete", die_at_the_fifth)
        with pytest.raises(ProcessLookupError):
            expire(catalog, NAME, keep=2)
    table = catalog.load_table(NAME)
    assert trade_ids(table) == rows
    assert needed(table) < on_disk(table), "the rest are orphans"


@pytest.mark.usefixtures("readers_are_done")
def test_a_commit_that_comes_first_is_honoured(
    catalog: Catalog, bronze: Bronze, compacted: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget = expiry.expire_snapshots

    def after_an_append(*arguments: Any, **more: Any) -> int:
        bronze.trades({})
        return forget(*arguments, **more)

    monkeypatch.setattr(expiry, "expire_snapshots", after_an_append)
    expire(catalog, NAME, keep=2)
    table = catalog.load_table(NAME)
    assert needed(table) <= on_disk(table)
    assert len(trade_ids(table)) == 8


def test_the_setting_says_how_many_stay(settings: LakehouseSettings, catalog: Catalog, compacted: Table) -> None:
    assert expire(catalog, NAME, keep=settings.snapshots_kept) == Expired(NAME, kept=8)
