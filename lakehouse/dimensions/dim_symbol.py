"""dimensions.dim_symbol: symbols and their companies, with history (slowly changing dimension, type 2).

In: a ``symbols.csv``, or other :class:`SymbolInfo`. Out: one row per version of a symbol, see
:mod:`lakehouse.dimensions.scd2`. On a crash: the table is as before or as listed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
from pyiceberg.catalog import Catalog

from lakehouse.dimensions.reference import read_reference
from lakehouse.dimensions.scd2 import Scd2
from lakehouse.dimensions.table import bring_in_line, dimension_rows

NAME = "dimensions.dim_symbol"
SYMBOLS_CSV = Path(__file__).with_name("symbols.csv")
DIMENSION = Scd2("symbol_key", "symbol", ("company_name", "sector", "market_cap_category"))


@dataclass(frozen=True, slots=True)
class SymbolInfo:
    """What is known of a symbol."""

    symbol: str
    company_name: str
    sector: str
    market_cap_category: str
    valid_from: str = ""
    """ISO 8601; empty: from now on, or from the beginning where the symbol is new."""


def read_symbols(path: Path = SYMBOLS_CSV) -> list[SymbolInfo]:
    """Read reference data: a CSV with the columns symbol, company_name, sector, market_cap_category[, valid_from].

    Raises:
        ReferenceFileError: names file, line and column.
    """
    columns = ("symbol", *DIMENSION.attributes)
    categories = {"market_cap_category": ("large", "mid", "small")}
    rows = read_reference(path, columns, "symbol", allowed=categories, dated=True)
    return [SymbolInfo(**row) for row in rows]


def seed_dim_symbol(
    catalog: Catalog,
    symbols: Sequence[SymbolInfo],
    *,
    as_of: datetime,
    approve: Callable[[pa.Table], None] | None = None,
) -> bool:
    """Bring the table in line with ``symbols``; False when it already was.

    ``approve``: see :func:`~lakehouse.dimensions.table.bring_in_line`.

    Raises:
        NoSuchTableError: the table does not exist yet (``python -m lakehouse init``).
        ValueError: see :meth:`lakehouse.dimensions.scd2.Scd2.after`.
    """
    listed = [asdict(info) for info in symbols]
    return bring_in_line(catalog, NAME, lambda rows: DIMENSION.after(rows, listed, as_of), approve=approve)


def current_symbols(catalog: Catalog) -> dict[str, SymbolInfo]:
    """Symbol → what holds now; empty before the first seeding.

    Raises:
        NoSuchTableError: the table does not exist yet.
    """
    return {
        row["symbol"]: SymbolInfo(row["symbol"], row["company_name"], row["sector"], row["market_cap_category"])
        for row in dimension_rows(catalog, NAME)
        if row["is_current"]
    }
