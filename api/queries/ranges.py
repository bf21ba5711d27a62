"""Ranges of time as clients write them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from api.errors import ApiError

_DATE = re.compile(r"\d{4}-\d\d-\d\d\Z")


@dataclass(frozen=True, slots=True)
class Moment:
    """A date (a whole UTC day) or an instant."""

    instant: datetime
    is_date: bool

    @property
    def last(self) -> datetime:
        """The last microsecond it covers."""
        return self.instant + timedelta(days=1, microseconds=-1) if self.is_date else self.instant


@dataclass(frozen=True, slots=True)
class TimeRange:
    """From ``start`` to ``end``, both inclusive; None is open. A date as end includes its whole day."""

    start: Moment | None = None
    end: Moment | None = None

    def __post_init__(self) -> None:
        if self.start is not None and self.end is not None and self.start.instant > self.end.last:
            raise ApiError(400, "BAD_USER_INPUT", "the range ends before it starts")

    @property
    def first(self) -> datetime | None:
        """The first instant within."""
        return self.start.instant if self.start is not None else None

    @property
    def last(self) -> datetime | None:
        """The last microsecond within."""
        return self.end.last if self.end is not None else None

    @property
    def first_date(self) -> date | None:
        return self.start.instant.date() if self.start is not None else None

    @property
    def last_date(self) -> date | None:
        return self.end.instant.date() if self.end is not None else None


def parse_moment(text: str) -> Moment:
    """``2024-08-08`` or an RFC 3339 time such as ``2024-08-08T12:00:00Z``; a time without zone is UTC.

    Raises:
        ApiError: BAD_USER_INPUT, neither of the two.
    """
    try:
        if _DATE.match(text):
            return Moment(datetime.fromisoformat(text).replace(tzinfo=UTC), is_date=True)
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ApiError(
            400,
            "BAD_USER_INPUT",
            f"{text[:40]!r} is neither a date (2024-08-08) nor a time (2024-08-08T12:00:00Z)",
        ) from None
    return Moment(moment, is_date=False)
