"""The one kind of error that the launcher shows to a person: a single line, without a traceback."""


class LaunchError(Exception):
    """Something outside the code is in the way. The message says what, where, and what to do next."""
