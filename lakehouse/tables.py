"""Every table of the lakehouse, declared once: columns with their meaning, partitions, key, owner, tags.

In: :mod:`lakehouse.layers`. Out: :data:`TABLES`, :func:`arrow_schema`, and :func:`create_tables`, which creates
what is missing and evolves what was declared anew (:mod:`lakehouse.evolution` says what may change). Safe to run
at any time, by several processes at once; a crash between two tables is mended by running it again.
"""

from __future__ import annotations

import logging

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NamespaceAlreadyExistsError, NoSuchTableError, TableAlreadyExistsError
from pyiceberg.io.pyarrow import schema_to_pyarrow
from sqlalchemy.exc import IntegrityError

from lakehouse.evolution import EvolutionRefusedError, evolve
from lakehouse.layers import bronze, dimensions, gold, governance, quality, silver
from lakehouse.spec import TableSpec

log = logging.getLogger(__name__)

NAMESPACES = ("bronze", "silver", "gold", "dimensions", "quality", "governance")


TABLES: dict[str, TableSpec] = {
    spec.name: spec for layer in (bronze, silver, gold, dimensions, quality, governance) for spec in layer.TABLES
}
"""Every table, by its full name: ``"bronze.trades"``."""


def arrow_schema(name: str) -> pa.Schema:
    """Arrow schema for rows to append to the table: types, nullability and order of its columns.

    Raises:
        KeyError: no such table.
    """
    return schema_to_pyarrow(TABLES[name].schema, include_field_ids=False)


def create_tables(catalog: Catalog) -> dict[str, tuple[str, ...]]:
    """Create the tables that do not exist yet, and bring the others in line with their declaration.

    Returns: table → what was done to it, in words; empty when all tables were as declared.

    Raises:
        EvolutionRefusedError: declarations ask for what cannot be done. These tables are as they were, the others
            are as declared.
    """
    for namespace in NAMESPACES:
        if not catalog.namespace_exists(namespace):
            _create_namespace(catalog, namespace)
    done: dict[str, tuple[str, ...]] = {}
    refused = []
    for spec in TABLES.values():
        try:
            changes = _create_or_evolve(catalog, spec)
        except EvolutionRefusedError as error:
            refused.append(str(error))
            continue
        if changes:
            done[spec.name] = changes
            log.info("%s: %s", spec.name, "; ".join(changes))
    if refused:
        raise EvolutionRefusedError("\n".join(refused))
    return done


def _create_or_evolve(catalog: Catalog, spec: TableSpec) -> tuple[str, ...]:
    try:
        return evolve(catalog.load_table(spec.name), spec)
    except NoSuchTableError:
        pass
    try:
        catalog.create_table(
            spec.name,
            spec.schema,
            partition_spec=spec.partition_spec,
            sort_order=spec.sort_order,
            properties=spec.properties,
        )
    except TableAlreadyExistsError:
        return ()  # another process was faster
    return ("created",)


def _create_namespace(catalog: Catalog, namespace: str) -> None:
    try:
        catalog.create_namespace(namespace)
    except NamespaceAlreadyExistsError:
        return  # another process was faster
    except IntegrityError:
        # The SQL catalog's own check and insert are two steps; the database refuses the second of two inserts.
        if not catalog.namespace_exists(namespace):
            raise
