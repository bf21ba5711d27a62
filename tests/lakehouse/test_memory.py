"""What was let go goes back to the system."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from lakehouse.memory import _trim, give_back

PIECE, PIECES = 100_000, 1_000
"""Bytes, and how many a thread takes: each too small to be given back by itself."""


def resident_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) / 1024


@pytest.mark.skipif(_trim is None, reason="the C library is not glibc, which alone keeps what threads let go")
def test_what_threads_let_go_goes_back_to_the_system() -> None:
    kept = []

    def work() -> None:
        pieces = [bytearray(b"x" * PIECE) for _ in range(PIECES)]
        kept.append(pieces[-1])  # above the others, so that the arena's end cannot move down

    give_back()
    before = resident_mb()
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = resident_mb() - before
    give_back()
    assert held > 100, "glibc gave it back by itself: this test shows nothing"
    assert resident_mb() - before < held / 10
