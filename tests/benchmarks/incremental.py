"""CPU time of one small batch through silver and gold, on a table and on one ten times as large.

    python -m tests.benchmarks.incremental [--rows N] [--batch B] [--batches K]

The large table has ten times N trades, in the same half of one day. A batch is B new trades committed to bronze;
what is measured are the steps that follow, the median of K: silver.trades, silver.trader_activity, and gold's bars
and summaries. Both tables get their batches in turn, so that a machine whose speed drifts slows both alike. Fails
when a trade is not accounted for.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lakehouse.batch import BatchSession
from lakehouse.gold.step import publish
from lakehouse.silver.activity import refine_activity
from lakehouse.silver.events import refine_trades
from tests.benchmarks.lake import fill, measured, session

TARGET = 1.2
GROWTH = 10
SPAN_US = 12 * 3_600_000_000
STEPS: dict[str, Callable[[BatchSession], Any]] = {
    "silver": refine_trades,
    "activity": refine_activity,
    "gold": publish,
}


class Case:
    """A table of ``rows`` trades, and batches that come to it; ``most`` trades there will be."""

    def __init__(self, home: Path, rows: int, batch: int, most: int) -> None:
        self._home, self._batch, self._apart_us = home, batch, SPAN_US // most
        self._lake = session(home)
        self._there = 0
        self._fill(rows)
        self._arrived, self._accepted = 0, 0
        self.cpu_s: dict[str, list[float]] = {name: [] for name in STEPS}

    def _fill(self, rows: int) -> None:
        fill(self._home, rows, first=self._there, step_us=self._apart_us)
        self._there += rows

    def work_off(self) -> None:
        """Bring silver and gold up to date with what is there, and let a batch come."""
        for name, step in STEPS.items():
            run = measured(lambda step=step: step(self._lake))  # type: ignore[misc]
            self.cpu_s[name].append(run.cpu_s)
            if name == "silver":
                self._arrived += run.result.arrived
                self._accepted += run.result.new
        (summary,) = self._lake.catalog.load_table("gold.market_overview").scan().to_arrow().to_pylist()
        if self._arrived != self._there or summary["total_trades"] != self._accepted:
            raise RuntimeError(
                f"of {self._there} trades {self._arrived} came; of {self._accepted} gold has {summary}"
            )
        self._fill(self._batch)

    def median_s(self, step: str) -> float:
        """CPU seconds of a batch."""
        return statistics.median(self.cpu_s[step][1:])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--batch", type=int, default=10_000)
    parser.add_argument("--batches", type=int, default=9)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sizes = (given.rows, GROWTH * given.rows)
        more = given.batch * (given.batches + 1)
        cases = {size: Case(Path(folder) / str(size), size, given.batch, size + more) for size in sizes}
        for _ in range(given.batches + 1):
            for case in cases.values():
                case.work_off()
    for name in STEPS:
        for size, case in cases.items():
            print(f"bench incremental.{name}.{size} value={1000 * case.median_s(name):.1f} unit=ms a batch")
    for name in STEPS:
        small, large = (case.median_s(name) for case in cases.values())
        print(f"{name}, {GROWTH} times the table / the table: {large / small:.2f} (target at most {TARGET})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
