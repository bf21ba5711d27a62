"""Columns of Arrow as numpy's, and the reverse, where both keep them alike. A decimal counts its last digit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lakehouse.texts import Integers


def packed(flags: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Flags as bits, the first one lowest."""
    return np.packbits(flags, bitorder="little")


def decimal_words(low: Integers, high: Integers | None = None) -> Integers:
    """Integers as the sixteen bytes of a decimal128, (rows, 2): the low 64 bits first.

    Args:
        high: the upper 64 bits, where the numbers need them.
    """
    words = np.empty((len(low), 2), np.int64)
    words[:, 0], words[:, 1] = low, low >> 63 if high is None else high
    return words


def units(decimals: pa.Array) -> Integers:
    """Decimals of at most 18 digits as integers. They share the memory; what stands for null is any number."""
    if not len(decimals):
        return np.empty(0, np.int64)
    words = np.frombuffer(decimals.buffers()[1], np.int64)[::2]
    return words[decimals.offset : decimals.offset + len(decimals)]


def micros(times: pa.Array | pa.ChunkedArray) -> Integers:
    """Timestamps, none null, as microseconds since the epoch."""
    since_epoch: Integers = times.cast(pa.int64()).to_numpy()
    return since_epoch


def decimal_column(
    kind: pa.DataType, low: Integers, valid: NDArray[np.bool_] | None = None, high: Integers | None = None
) -> pa.Array:
    """Integers as decimals; null where not ``valid``. ``high``: as in :func:`decimal_words`."""
    return column(kind, decimal_words(low, high), valid=valid)


def halves_added(kind: pa.DataType, above: Integers, below: Integers) -> pa.Array:
    """Decimals of ``above`` times 2**32 plus ``below``: sums of many numbers, taken in two parts."""
    above = above + (below >> 32)
    return decimal_column(kind, (above << 32) | (below & 0xFFFFFFFF), high=above >> 32)


def column(
    kind: pa.DataType, values: NDArray[Any], rows: int | None = None, valid: NDArray[np.bool_] | None = None
) -> pa.Array:
    """An array of what lies in memory as Arrow has it. ``rows``: where that is not the number of ``values``."""
    nulls = None if valid is None or valid.all() else pa.py_buffer(packed(valid))
    return pa.Array.from_buffers(kind, len(values) if rows is None else rows, [nulls, pa.py_buffer(values)])
