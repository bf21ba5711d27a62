"""The lakehouse as the flows of this process share it: opened once, at the first run."""

from __future__ import annotations

import functools

from lakehouse.batch import BatchSession
from lakehouse.settings import LakehouseSettings


@functools.cache
def lake_session() -> BatchSession:
    """Catalog, DuckDB and decoded manifests, opened from the environment's settings and kept.

    Raises:
        CatalogUnavailableError: the catalog cannot be reached; the next call tries again.
    """
    return BatchSession.open(LakehouseSettings())
