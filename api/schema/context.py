"""What resolvers may use while one request is answered."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime

from api.errors import ApiError
from api.live.hub import Hub
from lakehouse.query import Lake
from lakehouse.snapshots import SnapshotUnknownError


@dataclass(frozen=True, slots=True)
class RequestContext:
    """The data, and the moment until which the whole request has to be answered."""

    lakehouse: Lake
    hub: Hub
    deadline: float
    """On the clock of :func:`time.monotonic`."""

    @property
    def lake(self) -> Lake:
        """The lakehouse.

        Raises:
            ApiError: QUERY_TIMEOUT, the request's time is up; a single query has its own limit.
        """
        if time.monotonic() > self.deadline:
            raise ApiError(504, "QUERY_TIMEOUT", "the request took too long; ask for less at once")
        return self.lakehouse

    def lake_at(self, as_of: datetime | int | None, table: str) -> Lake:
        """The lakehouse as of a moment, or of a snapshot of ``table``; None: as it is now.

        Raises:
            ApiError: BAD_USER_INPUT, there is no such snapshot; QUERY_TIMEOUT, as :attr:`lake`.
        """
        if as_of is None:
            return self.lake
        try:
            return self.lake.at(as_of, [table])
        except SnapshotUnknownError as error:
            raise ApiError(400, "BAD_USER_INPUT", f"asOf: {error}") from None
