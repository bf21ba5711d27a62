from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.io import InputFile
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.types import StringType

from lakehouse.append import append_exactly_once, expire_snapshots
from lakehouse.catalog import CatalogUnavailableError, open_catalog, s3_properties
from lakehouse.settings import LakehouseSettings
from lakehouse.tables import TABLES
from tests.lakehouse.test_append import NAME, TOPIC, rows


def test_the_embedded_catalog_lets_readers_go_on_while_one_writes(
    settings: LakehouseSettings, catalog: Catalog
) -> None:
    connection = sqlite3.connect(settings.lakehouse_dir / "catalog.db")
    assert connection.execute("pragma journal_mode").fetchone() == ("wal",)
    connection.close()


def test_processes_that_start_together_all_find_every_table(tmp_path: Path) -> None:
    environment = {"TICKHOUSE_DATA_DIR": str(tmp_path)}
    processes = [
        subprocess.Popen([sys.executable, "-m", "lakehouse", "init"], env=environment, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
    catalog = open_catalog(LakehouseSettings(data_dir=tmp_path))
    assert all(catalog.table_exists(name) for name in TABLES)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Metadata files that were read."""
    read, read_metadata = list[str](), FromInputFile.table_metadata

    def reading(file: InputFile, *others: str) -> TableMetadata:
        read.append(file.location)
        return read_metadata(file, *others)

    monkeypatch.setattr(FromInputFile, "table_metadata", staticmethod(reading))
    return read


def test_a_head_is_read_once_and_every_commit_of_others_is_seen(
    settings: LakehouseSettings, catalog: Catalog, read: list[str]
) -> None:
    opened = open_catalog(settings)
    read.clear()
    first, again = opened.load_table("silver.trades"), opened.load_table("silver.trades")
    assert read == [first.metadata_location]
    with catalog.load_table("silver.trades").transaction() as changes:
        changes.set_properties(owner="somebody")
    read.clear()
    assert opened.load_table("silver.trades").properties["owner"] == "somebody"
    assert len(read) == 1
    assert first.name() == again.name()
    assert first.properties == again.properties


def test_a_head_is_what_its_file_says_also_where_it_was_never_read(
    settings: LakehouseSettings, catalog: Catalog, read: list[str]
) -> None:
    def keep(table: Table) -> None:
        append_exactly_once(table, rows(range(table.metadata.last_sequence_number, 9)), {TOPIC: {0: 9}})

    def forget(table: Table) -> None:
        expire_snapshots(table, at=2, keep=1)

    def evolve(table: Table) -> None:
        with table.update_schema() as change:
            change.add_column("venue", StringType())

    for work in (keep, keep, evolve, forget, lambda table: table.delete("symbol = 'AAPL'")):
        work(catalog.load_table(NAME))
        read.clear()
        head = catalog.load_table(NAME)
        assert read == []
        fresh = open_catalog(settings).load_table(NAME)
        assert (head.metadata_location, head.metadata) == (fresh.metadata_location, fresh.metadata)
        assert head.metadata.model_dump_json() == fresh.metadata.model_dump_json()


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("not an address", "TICKHOUSE_CATALOG_URI"),
        ("sqlite:///:memory:", "plain file"),
        ("sqlite:////proc/nothing/catalog.db", "TICKHOUSE_DATA_DIR"),
        ("nosuchdb://user:secret@host/db", "nosuchdb"),  # pragma: allowlist secret
    ],
)
def test_a_catalog_that_cannot_be_opened_says_what_to_do_and_no_password(
    tmp_path: Path, uri: str, said: str
) -> None:
    with pytest.raises(CatalogUnavailableError, match=said) as error:
        open_catalog(LakehouseSettings(data_dir=tmp_path, catalog_uri=uri))
    assert "secret" not in str(error.value)


def test_a_rest_catalog_that_is_away_is_unavailable() -> None:
    settings = LakehouseSettings(catalog_type="rest", catalog_uri="http://127.0.0.1:9", warehouse="s3://lake")
    with pytest.raises(CatalogUnavailableError, match=r"127\.0\.0\.1:9"):
        open_catalog(settings)


def test_s3_is_reached_with_what_the_settings_say() -> None:
    settings = LakehouseSettings(s3_endpoint="http://h:8333", s3_access_key_id="k", s3_secret_access_key="s")  # type: ignore[arg-type]
    assert s3_properties(settings) == {
        "s3.endpoint": "http://h:8333",
        "s3.path-style-access": "true",
        "s3.access-key-id": "k",
        "s3.secret-access-key": "s",
        "s3.region": "us-east-1",
    }
    assert s3_properties(LakehouseSettings()) == {}
