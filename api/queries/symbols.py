"""Symbols and their companies, from dimensions.dim_symbol."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from api.queries.paging import Page, Row, checked_first, decode_cursor, make_page
from lakehouse.query import Lake

_SELECT = """select symbol_key, symbol, company_name, sector, market_cap_category, is_current
from dimensions.dim_symbol"""


@dataclass(frozen=True, slots=True)
class SymbolFilter:
    """Conditions that all have to hold; None asks for nothing. ``search`` finds part of a symbol or company."""

    sector: str | None = None
    market_cap_category: str | None = None
    is_current: bool | None = True
    search: str | None = None

    def where(self) -> tuple[str, list[Any]]:
        """SQL condition and its parameters."""
        conditions, parameters = ["true"], list[Any]()
        for column, value in (
            ("sector", self.sector),
            ("market_cap_category", self.market_cap_category),
            ("is_current", self.is_current),
        ):
            if value is not None:
                conditions.append(f"{column} = ?")
                parameters.append(value)
        if self.search is not None:
            conditions.append("(contains(lower(symbol), lower(?)) or contains(lower(company_name), lower(?)))")
            parameters += [self.search, self.search]
        return " and ".join(conditions), parameters


def symbol_page(lake: Lake, wanted: SymbolFilter, first: int, after: str | None) -> Page:
    """Symbols by name; versions of one symbol by age.

    Raises:
        ApiError: BAD_USER_INPUT for a wrong ``first``; BAD_CURSOR.
    """
    checked_first(first)
    where, parameters = wanted.where()
    page_where, page_parameters = where, list(parameters)
    cursor = decode_cursor(after, str, int)
    if cursor is not None:
        page_where += " and (symbol > ? or (symbol = ? and symbol_key > ?))"
        page_parameters += [cursor[0], cursor[0], cursor[1]]
    rows = lake.rows(
        f"{_SELECT} where {page_where} order by symbol, symbol_key limit ?", [*page_parameters, first + 1]
    )

    def count() -> int:
        counted = lake.rows(f"select count(*) as n from dimensions.dim_symbol where {where}", parameters)
        return int(counted[0]["n"])

    return make_page(rows, first, after, lambda row: [row["symbol"], row["symbol_key"]], count)


def current_symbols(lake: Lake, symbols: Iterable[str]) -> dict[str, Row]:
    """Current row per symbol; symbols without one are left out."""
    rows = lake.rows(f"{_SELECT} where is_current and list_contains(?::varchar[], symbol)", [sorted(set(symbols))])
    return {row["symbol"]: row for row in rows}
