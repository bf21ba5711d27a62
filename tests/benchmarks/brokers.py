"""A broker for one benchmark."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.brokers import local_broker

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def a_broker(wanted: str = "auto") -> Iterator[str]:
    """Address of an empty broker that is stopped, and its data removed, at the end.

    Args:
        wanted: kafka, embedded or auto.
    """
    with (
        tempfile.TemporaryDirectory(prefix="tickhouse-bench-") as home,
        local_broker(wanted, Path(home)) as broker,
    ):
        yield broker.address
