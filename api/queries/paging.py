"""Keyset paging: a cursor holds a row's sort key, so that pages neither repeat nor skip when rows are added."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from api.errors import ApiError

MAX_ROWS = 1000
Row = dict[str, Any]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_CURSOR = 512


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of one page with a cursor for each, and what lies beyond it."""

    rows: list[Row]
    cursors: list[str]
    has_next: bool
    has_previous: bool
    count: Callable[[], int]
    """All rows that match; asked only when a client wants to know, as it costs a query."""


def checked_first(first: int, limit: int = MAX_ROWS) -> int:
    """The number of rows asked for.

    Raises:
        ApiError: BAD_USER_INPUT, not within 1 and ``limit``.
    """
    if not 1 <= first <= limit:
        raise ApiError(400, "BAD_USER_INPUT", f"first is {first}; it must be from 1 to {limit}: page with `after`")
    return first


def make_page(
    rows: list[Row], first: int, after: object, key: Callable[[Row], Sequence[Any]], count: Callable[[], int]
) -> Page:
    """Cut ``rows``, read one more than asked for, to a page; ``key`` gives a row's cursor values."""
    kept = rows[:first]
    return Page(kept, [encode_cursor(key(row)) for row in kept], len(rows) > first, after is not None, count)


def encode_cursor(key: Sequence[Any]) -> str:
    """Sort key (strings and integers) → opaque text."""
    return base64.urlsafe_b64encode(json.dumps(list(key)).encode()).decode()


def decode_cursor(cursor: str | None, *types: type) -> list[Any] | None:
    """Opaque text → sort key; None stays None.

    Raises:
        ApiError: BAD_CURSOR, not a cursor of this list.
    """
    if cursor is None:
        return None
    try:
        if len(cursor) > _MAX_CURSOR:
            raise ValueError
        key = json.loads(base64.b64decode(cursor, altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        key = None
    if not isinstance(key, list) or [type(part) for part in key] != list(types):
        raise ApiError(400, "BAD_CURSOR", "after is not a cursor of this list; take it from an edge or pageInfo")
    if any(isinstance(part, int) and not 0 <= part < 1 << 62 for part in key):
        raise ApiError(400, "BAD_CURSOR", "after is not a cursor of this list; take it from an edge or pageInfo")
    return key


def to_us(moment: datetime) -> int:
    """Aware datetime → microseconds since the epoch, exactly."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_us(microseconds: int) -> datetime:
    """Microseconds since the epoch → datetime in UTC.

    Raises:
        ApiError: BAD_USER_INPUT, beyond the year 9999.
    """
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        raise ApiError(400, "BAD_USER_INPUT", "a time lies beyond the year 9999") from None
