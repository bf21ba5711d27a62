"""dimensions.dim_symbol: symbols and their companies, with history (slowly changing dimension, type 2).

In: ``symbols.csv`` beside this file, or other :class:`SymbolInfo`. Out: one row per version of a symbol, valid for
valid_from ≤ t < valid_to; the version that holds has valid_to null. ``python -m lakehouse.dimensions.dim_symbol``
brings the table in line with the file.

The first version of a symbol is valid from 1970-01-01, so that old captures find their company too. Seeding again
changes nothing. All changes of a run are one commit: a crash leaves the table before it or after it.
"""

from __future__ import annotations

import csv
import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table

from lakehouse.append import transaction
from lakehouse.catalog import open_catalog
from lakehouse.settings import LakehouseSettings
from lakehouse.tables import arrow_schema, create_tables

log = logging.getLogger(__name__)

NAME = "dimensions.dim_symbol"
SYMBOLS_CSV = Path(__file__).with_name("symbols.csv")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_COMMIT_ATTEMPTS = 5
"""Seeders that start together take turns; there is never a sixth."""


@dataclass(frozen=True, slots=True)
class SymbolInfo:
    """What is known of a symbol."""

    symbol: str
    company_name: str
    sector: str
    market_cap_category: str

    @property
    def row_hash(self) -> str:
        """SHA-256 of the attributes: equal hashes, equal versions."""
        attributes = "\x1f".join((self.symbol, self.company_name, self.sector, self.market_cap_category))
        return hashlib.sha256(attributes.encode()).hexdigest()


def read_symbols(path: Path = SYMBOLS_CSV) -> list[SymbolInfo]:
    """Read reference data: a CSV with the columns symbol, company_name, sector, market_cap_category.

    Raises:
        ValueError: a missing column, an empty field or a symbol that stands twice; names file and line.
    """
    columns = SymbolInfo.__dataclass_fields__
    symbols: dict[str, SymbolInfo] = {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if missing := set(columns) - set(reader.fieldnames or ()):
            raise ValueError(f"{path}: no column {', '.join(sorted(missing))}")
        for row in reader:
            values = {name: (row[name] or "").strip() for name in columns}
            if empty := [name for name, value in values.items() if not value]:
                raise ValueError(f"{path}, line {reader.line_num}: {', '.join(empty)} is empty")
            if values["symbol"] in symbols:
                raise ValueError(f"{path}, line {reader.line_num}: {values['symbol']} stands twice")
            symbols[values["symbol"]] = SymbolInfo(**values)
    return list(symbols.values())


def next_versions(
    rows: Sequence[Mapping[str, Any]], symbols: Iterable[SymbolInfo], as_of: datetime
) -> list[dict[str, Any]] | None:
    """All rows of the table after ``symbols`` took effect at ``as_of``; None when nothing changes.

    A changed symbol's row is closed at ``as_of`` and a new one opened there; a symbol no longer listed is closed.

    Raises:
        ValueError: ``as_of`` is not after the start of a version that it would close.
    """
    listed = {info.symbol: info for info in symbols}
    known = {row["symbol"] for row in rows}
    current = {row["symbol"]: row for row in rows if row["is_current"]}
    closed = {s for s, row in current.items() if s not in listed or listed[s].row_hash != row["row_hash"]}
    opened = [s for s in listed if s not in current or s in closed]
    if not closed and not opened:
        return None
    for symbol in sorted(closed):
        if current[symbol]["valid_from"] >= as_of:
            raise ValueError(
                f"{symbol}: a change at {as_of.isoformat()} is not after the start of the version it would close, "
                f"{current[symbol]['valid_from'].isoformat()}"
            )
    after = [
        {**row, "valid_to": as_of, "is_current": False}
        if row["is_current"] and row["symbol"] in closed
        else dict(row)
        for row in rows
    ]
    next_key = max((row["symbol_key"] for row in rows), default=0) + 1
    for key, symbol in enumerate(opened, next_key):
        info = listed[symbol]
        after.append(
            {
                "symbol_key": key,
                "symbol": symbol,
                "company_name": info.company_name,
                "sector": info.sector,
                "market_cap_category": info.market_cap_category,
                "valid_from": as_of if symbol in known else EPOCH,
                "valid_to": None,
                "is_current": True,
                "row_hash": info.row_hash,
            }
        )
    return after


def seed_dim_symbol(catalog: Catalog, symbols: Sequence[SymbolInfo], *, as_of: datetime) -> bool:
    """Bring the table in line with ``symbols``; False when it already was.

    Raises:
        NoSuchTableError: the table does not exist yet (``python -m lakehouse init``).
        ValueError: see :func:`next_versions`.
    """
    for attempt in range(1, _COMMIT_ATTEMPTS + 1):
        table = catalog.load_table(NAME)
        rows = _rows(table)
        after = next_versions(rows, symbols, as_of)
        if after is None:
            return False
        try:
            with transaction(table) as changes:
                content = pa.Table.from_pylist(after, schema=arrow_schema(NAME))
                if rows:
                    changes.overwrite(content)
                else:
                    changes.append(content)
        except CommitFailedException:
            if attempt == _COMMIT_ATTEMPTS:
                raise
            log.info("%s: another process committed first; looking again", NAME)
            continue
        return True
    raise AssertionError("unreachable: the last attempt returns or raises")


def current_symbols(catalog: Catalog) -> dict[str, SymbolInfo]:
    """Symbol → what holds now; empty before the first seeding.

    Raises:
        NoSuchTableError: the table does not exist yet.
    """
    return {
        row["symbol"]: SymbolInfo(row["symbol"], row["company_name"], row["sector"], row["market_cap_category"])
        for row in _rows(catalog.load_table(NAME))
        if row["is_current"]
    }


def _rows(table: Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.scan().to_arrow().to_pylist()
    return sorted(rows, key=lambda row: row["symbol_key"])


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    catalog = open_catalog(LakehouseSettings())
    create_tables(catalog)
    symbols = read_symbols()
    changed = seed_dim_symbol(catalog, symbols, as_of=datetime.now(UTC))
    log.info("%s: %d symbols, %s", NAME, len(symbols), "changed" if changed else "nothing to change")


if __name__ == "__main__":
    main()
