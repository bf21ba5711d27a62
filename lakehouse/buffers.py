"""Columns of numpy as Arrow keeps them in memory."""

from __future__ import annotations

import numpy as np
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
