"""Errors with a code: raised anywhere in the API, answered as JSON with one shape."""

from __future__ import annotations


class ApiError(Exception):
    """A request that cannot be answered, through the caller's doing or the service's state."""

    def __init__(self, status: int, code: str, message: str) -> None:
        """``status``: HTTP status; ``code``: constant for programs; ``message``: for people, safe to show."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
