"""CPU time of one small batch from bronze to silver, on a table and on one ten times as large.

    python -m tests.benchmarks.incremental [--rows N] [--batch B] [--batches K]

The large table has ten times N rows. A batch is B new trades committed to bronze; what is measured is the silver
step that reads them, the median of K. Both cases run in processes of their own. Fails when not all of a batch is
accounted for.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from lakehouse.quality.contract import load_soda
from lakehouse.silver.events import refine_trades
from tests.benchmarks.lake import Run, fill, in_a_process, measured, report, session

MODULE = "tests.benchmarks.incremental"
TARGET = 1.2
GROWTH = 10


def batches(home: Path, rows: int, batch: int, count: int) -> Run:
    """Median CPU seconds of a batch, on a table of ``rows``."""
    load_soda()
    fill(home, rows)
    lake = session(home)
    refine_trades(lake)
    costs = []
    for number in range(count):
        fill(home, batch, first=rows + number * batch)
        run = measured(lambda: refine_trades(lake))
        if run.result.new + run.result.duplicates != batch:
            raise RuntimeError(f"of {batch} trades came {run.result}")
        costs.append(run)
    return Run(statistics.median(run.cpu_s for run in costs), max(run.peak_mb for run in costs), count)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--batch", type=int, default=10_000)
    parser.add_argument("--batches", type=int, default=9)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        report(batches(given.home, given.rows, given.batch, given.batches))
        return 0
    costs = {}
    for size in (given.rows, GROWTH * given.rows):
        with tempfile.TemporaryDirectory() as folder:
            sizes = ("--rows", str(size), "--batch", str(given.batch), "--batches", str(given.batches))
            costs[size] = in_a_process(MODULE, "batches", Path(folder), (), *sizes)
        print(
            f"bench incremental.{size} value={1000 * costs[size].cpu_s:.1f} unit=ms a batch "
            f"peak={costs[size].peak_mb:.0f} MB"
        )
    ratio = costs[GROWTH * given.rows].cpu_s / costs[given.rows].cpu_s
    print(f"{GROWTH} times the table / the table: {ratio:.2f} (target at most {TARGET})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
