"""Loops over columns as machine code.

In: a function of numbers and numpy arrays. Out: the same function, compiled by numba when it is first called,
which takes seconds. The result is kept beside the function's module, or in NUMBA_CACHE_DIR, and the next process
loads it. It is made anew when that module changes, or that of a compiled function which it calls; constants of
other modules must not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba
from numba.core.caching import InTreeCacheLocator, UserProvidedCacheLocator, UserWideCacheLocator
from numba.core.dispatcher import Dispatcher

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    return cast("Callable[P, R]", numba.njit(cache=True)(function))


class _AllSources:
    """numba by itself looks at a function's own module only."""

    def __init__(self, function: Any, file: str) -> None:
        super().__init__(function, file)  # type: ignore[call-arg]
        self._files = sorted(set(_files(function)))

    def get_source_stamp(self) -> list[str]:
        return [_digest(file) for file in self._files]


def _files(function: Any) -> Iterator[str]:
    """Where a function, and the compiled ones that it calls, are written."""
    yield function.__code__.co_filename
    for name in function.__code__.co_names:
        called = function.__globals__.get(name)
        if isinstance(called, Dispatcher):
            yield from _files(called.py_func)


@lru_cache
def _digest(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


class Provided(_AllSources, UserProvidedCacheLocator):
    """NUMBA_CACHE_DIR."""


class InTree(_AllSources, InTreeCacheLocator):
    """Beside the module."""


class UserWide(_AllSources, UserWideCacheLocator):
    """In the user's cache directory, where the module's is not writable."""


numba.config.CACHE_LOCATOR_CLASSES = ",".join(  # type: ignore[attr-defined]
    f"{__name__}.{kind.__name__}" for kind in (Provided, InTree, UserWide)
)
