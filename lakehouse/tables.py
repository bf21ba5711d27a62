"""Every table of the lakehouse, declared once: columns with their meaning, partitions, key, owner, tags.

In: nothing but this file. Out: :data:`TABLES`, :func:`arrow_schema`, :func:`create_tables`, and
``python -m lakehouse.tables``, which creates what is missing. Safe to run at any time, by several processes at
once: an existing table is left as it is, and a crash between two tables is mended by running it again.
"""

from __future__ import annotations

import logging

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NamespaceAlreadyExistsError, TableAlreadyExistsError
from pyiceberg.io.pyarrow import schema_to_pyarrow
from sqlalchemy.exc import IntegrityError

from lakehouse.catalog import open_catalog
from lakehouse.layers import bronze, dimensions, gold, quality, silver
from lakehouse.settings import LakehouseSettings
from lakehouse.spec import TableSpec

log = logging.getLogger(__name__)

NAMESPACES = ("bronze", "silver", "gold", "dimensions", "quality", "governance")


TABLES: dict[str, TableSpec] = {
    spec.name: spec for layer in (bronze, silver, gold, dimensions, quality) for spec in layer.TABLES
}
"""Every table, by its full name: ``"bronze.trades"``."""


def arrow_schema(name: str) -> pa.Schema:
    """Arrow schema for rows to append to the table: types, nullability and order of its columns.

    Raises:
        KeyError: no such table.
    """
    return schema_to_pyarrow(TABLES[name].schema, include_field_ids=False)


def create_tables(catalog: Catalog) -> list[str]:
    """Create the namespaces and tables that do not exist yet; returns the names of the tables created."""
    for namespace in NAMESPACES:
        if not catalog.namespace_exists(namespace):
            _create_namespace(catalog, namespace)
    created = []
    for spec in TABLES.values():
        if catalog.table_exists(spec.name):
            continue
        try:
            catalog.create_table(
                spec.name, spec.schema, partition_spec=spec.partition_spec, properties=spec.properties
            )
        except TableAlreadyExistsError:
            continue  # another process was faster
        created.append(spec.name)
    return created


def _create_namespace(catalog: Catalog, namespace: str) -> None:
    try:
        catalog.create_namespace(namespace)
    except NamespaceAlreadyExistsError:
        return  # another process was faster
    except IntegrityError:
        # The SQL catalog's own check and insert are two steps; the database refuses the second of two inserts.
        if not catalog.namespace_exists(namespace):
            raise


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    settings = LakehouseSettings()
    created = create_tables(open_catalog(settings))
    log.info("%s: %d tables, %d created now", settings.effective_warehouse, len(TABLES), len(created))


if __name__ == "__main__":
    main()
