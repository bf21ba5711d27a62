"""What resolvers may use while one request is answered."""

from __future__ import annotations

import time
from dataclasses import dataclass

from api.errors import ApiError
from api.live.hub import Hub
from lakehouse.query import Lake


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
