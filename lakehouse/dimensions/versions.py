"""Slowly changing dimensions as pure functions: rows in, rows out, no clock, no table.

Type 2 keeps every version of a member. Its history is a :data:`Timeline`: from each moment on, what held (None: it
was not listed). Versions are half-open, valid_from <= t < valid_to, so they never overlap, and the next one
begins where one ends. A change told late is one more moment in the timeline: the order in which changes are told
does not matter, and telling one again changes nothing.

Type 3 keeps the value before the last change in a column of its own; type 1 keeps nothing.

Kimball & Ross, The Data Warehouse Toolkit, 3rd edition, chapter 5.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

Row = dict[str, Any]
Attributes = tuple[str, ...]
Timeline = dict[datetime, Attributes | None]
"""Moment → what holds from then until the next moment."""


def row_hash(key: str, attributes: Attributes) -> str:
    """SHA-256 of a version's content: equal hashes, equal versions."""
    return hashlib.sha256("\x1f".join((key, *attributes)).encode()).hexdigest()


def timelines(rows: Sequence[Mapping[str, Any]], key: str, attributes: Sequence[str]) -> dict[str, Timeline]:
    """Member → its history, from the rows of a type 2 dimension."""
    found: dict[str, Timeline] = {}
    for row in sorted(rows, key=lambda row: row["valid_from"]):
        timeline = found.setdefault(row[key], {})
        timeline[row["valid_from"]] = tuple(row[name] for name in attributes)
        if row["valid_to"] is not None:
            timeline[row["valid_to"]] = None  # the next version, if one begins there, puts itself in its place
    return found


def versions(timeline: Timeline) -> list[tuple[datetime, datetime | None, Attributes]]:
    """(valid_from, valid_to, attributes) of each version, oldest first; valid_to None: still holds."""
    moments: list[datetime | None] = [*sorted(timeline), None]
    return [
        (start, end, held)
        for start, end in pairwise(moments)
        if start is not None and (held := timeline[start]) is not None
    ]


def scd2_rows(
    history: Mapping[str, Timeline],
    before: Sequence[Mapping[str, Any]],
    surrogate: str,
    key: str,
    attributes: Sequence[str],
) -> list[Row]:
    """Rows of a type 2 dimension. A version keeps the surrogate key it had in ``before``; new ones count on."""
    known = {(row[key], row["valid_from"]): row[surrogate] for row in before}
    next_number = max(known.values(), default=0) + 1
    rows = []
    for member, timeline in history.items():
        for start, end, held in versions(timeline):
            number = known.get((member, start))
            if number is None:
                number, next_number = next_number, next_number + 1
            rows.append(
                {
                    surrogate: number,
                    key: member,
                    **dict(zip(attributes, held, strict=True)),
                    "valid_from": start,
                    "valid_to": end,
                    "is_current": end is None,
                    "row_hash": row_hash(member, held),
                }
            )
    return sorted(rows, key=lambda row: row[surrogate])


def scd3_rows(
    before: Sequence[Mapping[str, Any]],
    listed: Sequence[Mapping[str, str]],
    key: str,
    tracked: Sequence[str],
    as_of: datetime,
) -> list[Row]:
    """Rows of a type 3 dimension after ``listed`` took effect; members no longer listed stay as they were.

    Args:
        tracked: columns ``x`` that have a ``previous_x`` and an ``x_changed_at``; the others are overwritten.
    """
    after: dict[str, Row] = {row[key]: dict(row) for row in before}
    for told in listed:
        old = after.get(told[key], {})
        new: Row = dict(told)
        for name in tracked:
            changed = bool(old) and old[name] != told[name]
            new[f"previous_{name}"] = old[name] if changed else old.get(f"previous_{name}")
            new[f"{name}_changed_at"] = as_of if changed else old.get(f"{name}_changed_at")
        after[told[key]] = new
    return list(after.values())
