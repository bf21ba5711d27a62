"""Exact rounding for SQL: half to even, in decimals and integers, no floats.

Columns at a time in Python, because DuckDB divides 128-bit integers bit by bit: a value and a mean cost it 7 µs.
"""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from duckdb.func import PythonUDFType


def define_rounding(connection: duckdb.DuckDBPyConnection) -> None:
    """Make :func:`value_8` and :func:`mean_8` known to the connection and its cursors, once."""
    exact, sums = "DECIMAL(38, 16)", "DECIMAL(38, 8)"
    connection.create_function("value_8", value_8, [exact], sums, type=PythonUDFType.ARROW)
    connection.create_function("mean_8", mean_8, [exact, sums], "DECIMAL(18, 8)", type=PythonUDFType.ARROW)


def value_8(exact: pa.ChunkedArray) -> pa.ChunkedArray:
    """Sums of prices times quantities, with 16 places, rounded to 8."""
    return pc.round(exact, 8, "half_to_even").cast(pa.decimal128(38, 8))


def mean_8(total: pa.ChunkedArray, weight: pa.ChunkedArray) -> pa.Array:
    """total / weight, 8 places, weight above 0: a volume-weighted price, or a mean size.

    Args:
        total: with 16 places.
        weight: with 8 places.
    """
    means = []
    for units, parts in zip(_units(total), _units(weight), strict=True):
        mean, rest = divmod(units, parts)
        means.append(mean + (2 * rest > parts or (2 * rest == parts and mean % 2 == 1)))
    low = np.array(means, np.int64)
    halves = np.stack([low, low >> 63], axis=1)
    return pa.Array.from_buffers(pa.decimal128(18, 8), len(low), [None, pa.py_buffer(halves)])


def _units(decimals: pa.ChunkedArray) -> list[int]:
    """Decimals as integers, counting their last digit."""
    column = decimals.combine_chunks()
    halves = np.frombuffer(column.buffers()[1], np.int64).reshape(-1, 2)[column.offset :][: len(column)]
    low, high = halves[:, 0].view(np.uint64).tolist(), halves[:, 1].tolist()
    return [(more << 64) + units for units, more in zip(low, high, strict=True)]
