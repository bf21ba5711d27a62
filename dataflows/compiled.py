"""Loops over columns as machine code.

In: a function of numbers and numpy arrays. Out: the same function, compiled by numba when it is first called. The
result is kept beside the module that has it, or in NUMBA_CACHE_DIR, so that the next process only loads it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    return cast("Callable[P, R]", numba.njit(cache=True)(function))
