"""Limits of a running query: its time, and a caller who does not want it any more.

In: a DuckDB cursor that is about to run a query. Out: the query's result, or an error that says why it was
stopped. The cursor stays usable.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import duckdb

AGAIN_SECONDS = 0.05
"""DuckDB forgets an interrupt that comes just before a query starts: it is repeated until the query has ended."""


class QueryTimeoutError(TimeoutError):
    """The query ran longer than TICKHOUSE_QUERY_TIMEOUT_SECONDS and was stopped."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"the query took longer than {seconds:g} s and was stopped; ask for less, or raise "
            f"TICKHOUSE_QUERY_TIMEOUT_SECONDS"
        )


class QueryCancelledError(RuntimeError):
    """The query was stopped by whoever asked for it."""


class Cancellation:
    """Stops queries from another thread: give it to a query, then call :meth:`cancel`.

    It stays cancelled: a query that gets it later does not start.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._stops: list[Callable[[], None]] = []

    def cancel(self) -> None:
        """Stop the queries that have it; returns at once."""
        with self._lock:
            self._cancelled = True
            stops = list(self._stops)
        for stop in stops:
            stop()

    @contextlib.contextmanager
    def calling(self, stop: Callable[[], None]) -> Iterator[None]:
        """Call ``stop`` when cancelled within the context.

        Raises:
            QueryCancelledError: it was cancelled before.
        """
        with self._lock:
            if self._cancelled:
                raise QueryCancelledError("the query was cancelled before it started")
            self._stops.append(stop)
        try:
            yield
        finally:
            with self._lock:
                self._stops.remove(stop)


class _Running:
    """A query on a cursor; stopping it never stops the one after it."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._cursor = cursor
        self._lock = threading.Lock()
        self._ended = False
        self.reason: Exception | None = None

    def stop(self, reason: Exception) -> None:
        with self._lock:
            if self._ended:
                return
            self.reason = self.reason or reason
            self._cursor.interrupt()
        _timer(AGAIN_SECONDS, lambda: self.stop(reason))

    def end(self) -> None:
        with self._lock:
            self._ended = True


@contextlib.contextmanager
def limited(
    cursor: duckdb.DuckDBPyConnection, seconds: float, begun: float, cancellation: Cancellation | None = None
) -> Iterator[None]:
    """Stop what runs on ``cursor`` within the context ``seconds`` after ``begun`` (monotonic), or when cancelled.

    Raises:
        QueryTimeoutError: it took too long.
        QueryCancelledError: ``cancellation`` was used.
    """
    running = _Running(cursor)
    timer = _timer(begun + seconds - time.monotonic(), lambda: running.stop(QueryTimeoutError(seconds)))
    try:
        with contextlib.ExitStack() as stack:
            if cancellation is not None:
                cancelled = QueryCancelledError("the query was cancelled")
                stack.enter_context(cancellation.calling(lambda: running.stop(cancelled)))
            yield
    except duckdb.InterruptException as error:
        if running.reason is None:
            raise
        raise running.reason from error
    finally:
        running.end()
        timer.cancel()


def _timer(seconds: float, action: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(max(0.0, seconds), action)
    timer.daemon = True
    timer.start()
    return timer
