"""Exact rounding for SQL: half to even, in decimals and integers, no floats.

Columns at a time in Python, because DuckDB divides 128-bit integers bit by bit: a value and a mean cost it 7 µs.
"""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from duckdb.func import PythonUDFType
from numpy.typing import NDArray

from lakehouse.buffers import decimal_column


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
    (high, low), (more, parts) = _halves(total), _halves(weight)
    divisor = parts.view(np.int64)
    with np.errstate(all="ignore"):  # rows that do not fit are computed as well, and not used
        # By doubles the mean is wrong by 2**-51 of itself at most. What it leaves is then less than 2**63, so that
        # 64 bits hold it, although of total and product they hold the low half only.
        about = (high * 2.0**64 + low) / parts
        means = about.astype(np.int64)
        more_of_it, rest = np.divmod((low - means.view(np.uint64) * parts).view(np.int64), divisor)
        means += more_of_it
        means += (2 * rest > divisor) | ((2 * rest == divisor) & (means % 2 == 1))
    fits = (high >= 0) & (high < 1 << 49) & (more == 0) & (divisor > 0) & (divisor < 1 << 62) & (about < 2.0**61)
    for row in np.flatnonzero(~fits).tolist():
        sum_, by = (int(high[row]) << 64) + int(low[row]), (int(more[row]) << 64) + int(parts[row])
        means[row] = _mean(sum_, by)
    return decimal_column(pa.decimal128(18, 8), means)


def _mean(units: int, parts: int) -> int:
    mean, rest = divmod(units, parts)
    return mean + (2 * rest > parts or (2 * rest == parts and mean % 2 == 1))


def _halves(decimals: pa.ChunkedArray) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Decimals as integers, counting their last digit: the high and the low 64 bits of each."""
    column = decimals.combine_chunks()
    halves = np.frombuffer(column.buffers()[1], np.int64).reshape(-1, 2)[column.offset :][: len(column)]
    return halves[:, 1], np.ascontiguousarray(halves[:, 0]).view(np.uint64)
