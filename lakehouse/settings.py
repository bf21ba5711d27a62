"""Settings of the lakehouse: where the catalog and the files are, and how hard a query may work.

In: environment variables ``TICKHOUSE_*`` (see each field). Out: one validated object; a wrong value is an error
that names the variable. Secrets are never shown in logs or error messages.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class LakehouseSettings(BaseSettings):
    """Embedded by default (SQLite and files under the data directory); the same fields point at S3 and REST."""

    model_config = SettingsConfigDict(env_prefix="TICKHOUSE_", extra="ignore")

    data_dir: Path = Field(
        default=Path(".tickhouse"), description="Directory under which everything on disk lives."
    )
    catalog_type: Literal["sql", "rest"] = Field(
        default="sql", description="Iceberg catalog: sql (SQLite, Postgres) or rest."
    )
    catalog_uri: str = Field(default="", description="Catalog address; empty: SQLite under the data directory.")
    catalog_credential: SecretStr | None = Field(
        default=None, description="REST catalog's OAuth2 credential, CLIENT:SECRET."
    )
    warehouse: str = Field(default="", description="Root of the tables' files; empty: a directory of data_dir.")
    s3_endpoint: str = Field(default="", description="S3 address, for example http://127.0.0.1:8333; empty: AWS.")
    s3_access_key_id: str = Field(default="", description="S3 access key.")
    s3_secret_access_key: SecretStr | None = Field(default=None, description="S3 secret key.")
    s3_region: str = Field(default="us-east-1", description="S3 region.")
    reference_dir: Path | None = Field(
        default=None,
        description="Directory of the reference files, symbols.csv and so on; unset: lakehouse/dimensions.",
    )
    masking_key: SecretStr | None = Field(
        default=None, description="Key of the pseudonyms in masked tables; unset: made once, kept in data_dir."
    )
    snapshots_kept: int = Field(default=50, ge=1, description="Snapshots a table keeps when old ones are expired.")
    snapshots_expire_at: int = Field(
        default=150, ge=2, description="Number of snapshots at which a writer expires old ones."
    )
    query_memory_limit: str = Field(
        default="1GB",
        description="Memory a process may use for queries, as DuckDB writes it; a batch step uses half.",
    )
    query_threads: int = Field(
        default=2, ge=1, description="Threads a process may use for queries; a batch step uses one."
    )
    query_timeout_seconds: float = Field(
        default=30.0, gt=0, description="A query is interrupted after so many seconds."
    )
    query_refresh_seconds: float = Field(
        default=1.0, ge=0, description="A query looks for new commits at most this often."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.catalog_type == "rest" and not self.catalog_uri:
            raise ValueError("TICKHOUSE_CATALOG_TYPE=rest needs TICKHOUSE_CATALOG_URI, the catalog's http address")
        if self.catalog_type == "rest" and not self.warehouse:
            raise ValueError(
                "TICKHOUSE_CATALOG_TYPE=rest needs TICKHOUSE_WAREHOUSE, for example s3://lake/warehouse"
            )
        if self.snapshots_expire_at <= self.snapshots_kept:
            raise ValueError(
                f"TICKHOUSE_SNAPSHOTS_EXPIRE_AT ({self.snapshots_expire_at}) must be above "
                f"TICKHOUSE_SNAPSHOTS_KEPT ({self.snapshots_kept})"
            )
        if not self.warehouse and any(c in str(self.data_dir) for c in "?#%"):
            raise ValueError(
                f"TICKHOUSE_DATA_DIR ({self.data_dir}) must not contain '?', '#' or '%': "
                "file addresses would break"
            )
        return self

    @property
    def lakehouse_dir(self) -> Path:
        """Absolute directory of the embedded catalog and warehouse."""
        return self.data_dir.absolute() / "lakehouse"

    @property
    def effective_catalog_uri(self) -> str:
        """The catalog's address: the one set, or the embedded SQLite file's."""
        return self.catalog_uri or f"sqlite:///{self.lakehouse_dir / 'catalog.db'}"

    @property
    def effective_warehouse(self) -> str:
        """The warehouse's address: the one set, or the embedded directory's."""
        return self.warehouse or f"file://{self.lakehouse_dir / 'warehouse'}"
