"""Opening the Iceberg catalog.

In: :class:`~lakehouse.settings.LakehouseSettings`. Out: a ready pyiceberg ``Catalog``: SQLite or Postgres
(``sql``), or REST; tables on files or S3.

On a crash: a commit is one compare-and-swap of the catalog's pointer, so a table is before it or after it,
never between. The SQLite catalog runs in WAL mode and waits for its lock, so that many processes read and
commit at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from pyiceberg.exceptions import OAuthError, RESTError
from pyiceberg.io import FileIO
from pyiceberg.table import CommitTableResponse, StagedTable, Table
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import (
    TableRequirement,
    TableUpdate,
    _apply_table_update,
    _TableMetadataUpdateContext,
    _update_table_metadata_log,
)
from pyiceberg.typedef import Identifier
from pyiceberg.utils.datetime import datetime_to_millis
from requests.exceptions import RequestException  # type: ignore[import-untyped]
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, ProgrammingError, SQLAlchemyError

from lakehouse.settings import LakehouseSettings

CATALOG_NAME = "tickhouse"
"""Part of the SQL catalog's key: every process must use the same."""

SQLITE_BUSY_SECONDS = 30
"""How long a process waits for another's commit; one takes milliseconds, so this means the disk is in trouble."""


class HeadsKept(SqlCatalog):
    """Reads a metadata file once, not each time that its table is loaded, and never one that it wrote itself. It
    never changes, and reading one with a hundred snapshots takes as long as a small commit. So does copying what
    it says, which pyiceberg does at each commit; nobody changes that in place.
    """

    def __init__(self, name: str, **properties: str) -> None:
        super().__init__(name, **properties)
        self._heads: dict[tuple[str, str], tuple[str, TableMetadata, FileIO]] = {}
        """(namespace, table) → its metadata file, what that says, and access to the table's files."""

    def _convert_orm_to_iceberg(self, orm_table: IcebergTables) -> Table:
        namespace, name = orm_table.table_namespace, orm_table.table_name
        kept = self._heads.get((namespace, name))
        if kept is None or kept[0] != orm_table.metadata_location:
            table = super()._convert_orm_to_iceberg(orm_table)
            self._heads[namespace, name] = table.metadata_location, table.metadata, table.io
            return table
        location, metadata, io = kept
        return Table((*self.identifier_to_tuple(namespace), name), metadata, location, io, self)

    def commit_table(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        """See :meth:`SqlCatalog.commit_table`."""
        done = super().commit_table(table, requirements, updates)
        *namespace, name = table.name()
        self._heads[".".join(namespace), name] = done.metadata_location, done.metadata, table.io
        return done

    def _update_and_stage_table(
        self,
        current_table: Table | None,
        table_identifier: Identifier,
        requirements: tuple[TableRequirement, ...],
        updates: tuple[TableUpdate, ...],
    ) -> StagedTable:
        if current_table is None:
            return super()._update_and_stage_table(current_table, table_identifier, requirements, updates)
        before, context = current_table.metadata, _TableMetadataUpdateContext()
        for requirement in requirements:
            requirement.validate(before)
        after = before
        for update in updates:
            after = _apply_table_update(update, after, context)
        if context.has_changes():
            after = _update_table_metadata_log(after, current_table.metadata_location, before.last_updated_ms)
            if after.last_updated_ms == before.last_updated_ms:
                now = datetime_to_millis(datetime.now(UTC))
                after = after.model_copy(update={"last_updated_ms": now})
        after.spec().check_compatible(after.schema())
        after.sort_order().check_compatible(after.schema())
        version = self._parse_metadata_version(current_table.metadata_location) + 1
        locations = load_location_provider(after.location, after.properties)
        location = locations.new_table_metadata_file_location(version)
        io = self._load_file_io(properties=after.properties, location=location)
        return StagedTable(table_identifier, after, location, io, self)


class CatalogUnavailableError(RuntimeError):
    """The catalog cannot be opened; the message says which one, why, and what to do."""


def open_catalog(settings: LakehouseSettings) -> Catalog:
    """Open the catalog that the settings name, creating the embedded one when it does not exist.

    Raises:
        CatalogUnavailableError: not reachable, not writable, a wrong address or credential, or a missing driver.
    """
    uri = settings.effective_catalog_uri
    try:
        sqlite_path = _sqlite_path(settings, uri)
        if sqlite_path is not None:
            with _only_one_process(sqlite_path.with_suffix(".lock")):
                _prepare_sqlite(sqlite_path)
                return HeadsKept(CATALOG_NAME, **_properties(settings, f"{uri}?timeout={SQLITE_BUSY_SECONDS}"))
        return _load(settings.catalog_type, _properties(settings, uri))
    except (OSError, sqlite3.Error) as error:
        raise CatalogUnavailableError(
            f"cannot open the catalog {_shown(uri)}: {error}; check that the directory exists, is writable and "
            f"its disk is not full (TICKHOUSE_DATA_DIR, TICKHOUSE_CATALOG_URI)"
        ) from error
    except ModuleNotFoundError as error:
        raise CatalogUnavailableError(
            f"the catalog {_shown(uri)} needs a database driver that is not installed: {error}"
        ) from error
    except (SQLAlchemyError, RESTError, OAuthError, RequestException, ValueError) as error:
        raise CatalogUnavailableError(
            f"cannot open the catalog {_shown(uri)}: {type(error).__name__}: {error}; check "
            f"TICKHOUSE_CATALOG_URI, TICKHOUSE_CATALOG_CREDENTIAL and that the catalog runs"
        ) from error


def _load(kind: str, properties: dict[str, str]) -> Catalog:
    """Of processes that start together on an empty Postgres all but one lose the race to create each of the
    catalog's two tables; a database says so only when the winner has committed, so that they are there then."""

    def load() -> Catalog:
        if kind == "sql":
            return HeadsKept(CATALOG_NAME, **properties)
        return load_catalog(CATALOG_NAME, type=kind, **properties)

    for _ in range(2):
        try:
            return load()
        except (IntegrityError, ProgrammingError):
            continue
    return load()


def s3_properties(settings: LakehouseSettings) -> dict[str, str]:
    """What pyiceberg needs to reach S3; empty where no S3 is set."""
    properties: dict[str, str] = {}
    if settings.s3_endpoint:
        properties |= {"s3.endpoint": settings.s3_endpoint, "s3.path-style-access": "true"}
    if settings.s3_access_key_id:
        properties["s3.access-key-id"] = settings.s3_access_key_id
    if settings.s3_secret_access_key is not None:
        properties["s3.secret-access-key"] = settings.s3_secret_access_key.get_secret_value()
    if properties:
        properties["s3.region"] = settings.s3_region
    return properties


def _properties(settings: LakehouseSettings, uri: str) -> dict[str, str]:
    properties = {"uri": uri, "warehouse": settings.effective_warehouse}
    if settings.catalog_credential is not None:
        properties["credential"] = settings.catalog_credential.get_secret_value()
        # The Iceberg specification's own place for it; pyiceberg's default too, which it warns of.
        properties["oauth2-server-uri"] = f"{uri.rstrip('/')}/v1/oauth/tokens"
    return properties | s3_properties(settings)


def _sqlite_path(settings: LakehouseSettings, uri: str) -> Path | None:
    if settings.catalog_type != "sql":
        return None
    try:
        url = make_url(uri)
    except ArgumentError as error:
        raise CatalogUnavailableError(
            f"TICKHOUSE_CATALOG_URI is no database address: {_shown(uri)}; examples: sqlite:////path/catalog.db, "
            f"postgresql+psycopg2://USER:PASSWORD@HOST/DATABASE"  # pragma: allowlist secret
        ) from error
    if url.get_backend_name() != "sqlite":
        return None
    if not url.database or url.database == ":memory:" or url.query:
        raise CatalogUnavailableError(
            f"the SQLite catalog must be a plain file, shared by all processes: sqlite:////path/catalog.db, "
            f"not {_shown(uri)}"
        )
    return Path(url.database).absolute()


def _prepare_sqlite(path: Path) -> None:
    """WAL lets readers go on while a writer commits; the mode is stored in the file."""
    with contextlib.closing(sqlite3.connect(path, timeout=SQLITE_BUSY_SECONDS)) as connection:
        if connection.execute("pragma journal_mode").fetchone()[0] != "wal":
            connection.execute("pragma journal_mode=wal")


@contextlib.contextmanager
def _only_one_process(lock: Path) -> Iterator[None]:
    """Processes that start together would race to create the catalog's own tables."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _shown(uri: str) -> str:
    """The address without its password."""
    try:
        return make_url(uri).render_as_string(hide_password=True)
    except ArgumentError:
        return uri.split("@")[-1]
