"""The company of a row, without SQL, is the one that SQL finds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import duckdb
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.silver.companies import Companies

START = datetime(2026, 3, 2, tzinfo=UTC)
TIME = pa.timestamp("us", "UTC")
JOIN = """
left join dim_symbol
    on dim_symbol.symbol = silver.symbol
    and dim_symbol.valid_from <= silver.timestamp
    and silver.timestamp < dim_symbol.valid_to
"""

symbols = st.sampled_from(["", "A", "B", "C", "Ä"])
hours = st.integers(0, 6)


def at(hour: int) -> datetime:
    return START + timedelta(hours=hour)


@given(st.lists(st.tuples(symbols, hours, hours), max_size=8), st.lists(st.tuples(symbols, hours), max_size=8))
def test_companies_are_those_of_the_join(
    versions: list[tuple[str, int, int]], events: list[tuple[str, int]]
) -> None:
    free: set[tuple[str, int]] = set()
    known = []
    for number, (symbol, first, hours_long) in enumerate(versions):
        held = {(symbol, hour) for hour in range(first, first + hours_long)}
        if not held & free:  # else two hold for the same time
            free |= held
            known.append((symbol, at(first), at(first + hours_long), f"name {number}", "sector", "large"))
    names = ("symbol", "valid_from", "valid_to", "company_name", "sector", "market_cap_category")
    kinds = (pa.large_string(), TIME, TIME, *[pa.large_string()] * 3)
    dimension = pa.table(
        [pa.array([row[i] for row in known], kind) for i, kind in enumerate(kinds)], names=list(names)
    ).sort_by("symbol")
    rows = pa.table(
        {
            "symbol": pa.array([symbol for symbol, _ in events], pa.large_string()),
            "timestamp": pa.array([at(hour) for _, hour in events], TIME),
            "row": pa.array(range(len(events)), pa.int64()),
        }
    )
    found = Companies("1", dimension.combine_chunks()).join(rows)
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("dim_symbol", dimension)
        connection.register("silver", rows)
        expected = connection.execute(
            "select row, company_name, dim_symbol.sector, market_cap_category "
            f"from silver {JOIN} order by silver.row"
        ).fetchall()
    assert list(zip(*(found[name].to_pylist() for name in ("row", *names[3:])), strict=True)) == expected


def test_a_row_comes_twice_where_two_versions_hold() -> None:
    company = {"company_name": "A Inc.", "sector": "s", "market_cap_category": "c"}
    version = {"symbol": "A", "valid_from": at(0), "valid_to": at(2), **company}
    dimension = pa.Table.from_pylist([version, version])
    rows = pa.table({"symbol": ["A", "B"], "timestamp": pa.array([at(1)] * 2, TIME)})
    assert sorted(Companies("1", dimension).join(rows)["symbol"].to_pylist()) == ["A", "A", "B"]
