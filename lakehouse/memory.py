"""Memory that was let go, given back to the system."""

from __future__ import annotations

import ctypes

import pyarrow as pa

_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""glibc's; other C libraries have no such function, and need none."""


def give_back() -> None:
    """Free memory of the C library and of Arrow goes back to the system; what is in use stays.

    glibc has an arena for each thread and keeps what the thread let go, so that a process in which DuckDB and
    Arrow work in ever new threads grows by hundreds of megabytes an hour, all of them free. Takes milliseconds.
    """
    if _trim is not None:
        _trim(0)
    for backend in pa.supported_memory_backends():  # Arrow uses its own default beside the one it is told to
        getattr(pa, f"{backend}_memory_pool")().release_unused()
