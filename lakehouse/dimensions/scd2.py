"""A dimension whose history is kept (slowly changing dimension, type 2), brought in line with what is listed now.

In: rows as a reference file lists them, each with an optional ``valid_from``. Out: one row per version of a
member, valid for valid_from ≤ t < valid_to; the version that holds has valid_to null. On a crash: see
:mod:`lakehouse.dimensions.table`.

A row with ``valid_from`` says what held from that moment until the next one that is known, also a moment long
past, several in one day, or one that corrects an earlier word on the same moment. A row without says what holds
now: it changes something only where that differs. The first version of a member without ``valid_from`` is valid
from 1970-01-01, so that old captures find their company too. A member no longer listed is closed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lakehouse.dimensions.reference import VALID_FROM, parse_moment
from lakehouse.dimensions.table import Row
from lakehouse.dimensions.versions import Attributes, Timeline, scd2_rows, timelines

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Scd2:
    """What differs from dimension to dimension."""

    surrogate: str
    """Column with a number for each version."""
    key: str
    """Column that names the member."""
    attributes: tuple[str, ...]
    closes: bool = True
    """Whether a member that is no longer listed is closed; else it stays as it was."""

    def after(
        self, rows: Sequence[Mapping[str, Any]], listed: Sequence[Mapping[str, str]], as_of: datetime
    ) -> list[Row]:
        """All rows of the table once ``listed`` took effect at ``as_of``.

        Raises:
            ValueError: a row begins after ``as_of``, or ``as_of`` is not after the start of a version that a row
                without ``valid_from`` would close.
        """
        history = timelines(rows, self.key, self.attributes)
        for row in listed:
            if row.get(VALID_FROM):
                moment = parse_moment(row[VALID_FROM], row[self.key])
                if moment > as_of:
                    raise ValueError(
                        f"{row[self.key]}: valid_from {moment.isoformat()} lies after {as_of.isoformat()}, now; "
                        f"add the row when it holds"
                    )
                history.setdefault(row[self.key], {})[moment] = self._attributes(row)
        for row in listed:
            if not row.get(VALID_FROM):
                member = row[self.key]
                self._change(history.setdefault(member, {}), member, self._attributes(row), as_of)
        if self.closes:
            for member in history.keys() - {row[self.key] for row in listed}:
                self._change(history[member], member, None, as_of)
        return scd2_rows(history, rows, self.surrogate, self.key, self.attributes)

    def _attributes(self, row: Mapping[str, str]) -> Attributes:
        return tuple(row[name] for name in self.attributes)

    @staticmethod
    def _change(timeline: Timeline, member: str, attributes: Attributes | None, as_of: datetime) -> None:
        if not timeline:
            timeline[EPOCH] = attributes
            return
        latest = max(timeline)
        if timeline[latest] == attributes:
            return
        if latest >= as_of:
            raise ValueError(
                f"{member}: a change at {as_of.isoformat()} is not after the start of the version it would close, "
                f"{latest.isoformat()}; check the clock, or give the change its own valid_from"
            )
        timeline[as_of] = attributes
