"""Exact rounding for SQL: half to even, in decimals, no floats."""

from __future__ import annotations

import importlib.resources

import duckdb


def define_rounding(cursor: duckdb.DuckDBPyConnection) -> None:
    """Make the macros of ``rounding.sql`` known to the cursor: ``value_8(x)``, ``vwap_8(value, volume)``."""
    cursor.execute((importlib.resources.files("lakehouse") / "rounding.sql").read_text(encoding="utf-8"))
