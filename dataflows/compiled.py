"""Loops over columns as machine code.

In: a function of numbers and numpy arrays. Out: the same function, compiled by numba when it is first called,
which takes seconds. The result is kept beside the function's module, or in NUMBA_CACHE_DIR, and the next process
loads it. It is made anew when that module changes; constants of other modules must not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    return cast("Callable[P, R]", numba.njit(cache=True)(function))
