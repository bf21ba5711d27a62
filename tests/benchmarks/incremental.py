"""CPU time of one small batch through silver and gold, on a table and on one ten times as large.

    python -m tests.benchmarks.incremental [--rows N] [--batch B] [--batches K]

The large table has ten times N trades, in the same half of one day. A batch is B new trades committed to bronze;
what is measured are the steps that follow, the median of K: silver.trades, silver.trader_activity, and gold's bars
and summaries. Both cases run in processes of their own. Fails when a trade is not accounted for.
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
from tests.benchmarks.lake import Run, fill, in_a_process, measured, report, session

MODULE = "tests.benchmarks.incremental"
TARGET = 1.2
GROWTH = 10
SPAN_US = 12 * 3_600_000_000
STEPS: dict[str, Callable[[BatchSession], Any]] = {
    "silver": refine_trades,
    "activity": refine_activity,
    "gold": publish,
}


def batches(home: Path, rows: int, batch: int, count: int) -> Run:
    """Median CPU seconds of a batch, step by step, on a table of ``rows``."""
    apart = SPAN_US // rows
    fill(home, rows, step_us=apart)
    lake = session(home)
    costs: dict[str, list[Run]] = {name: [] for name in STEPS}
    for number in range(count + 1):
        for name, step in STEPS.items():
            costs[name].append(measured(lambda step=step: step(lake)))  # type: ignore[misc]
        fill(home, batch, first=rows + number * batch, step_us=apart)
    arrived = [run.result.arrived for run in costs["silver"]]
    accepted = sum(run.result.new for run in costs["silver"])
    (summary,) = lake.catalog.load_table("gold.market_overview").scan().to_arrow().to_pylist()
    if arrived != [rows, *[batch] * count] or summary["total_trades"] != accepted:
        raise RuntimeError(f"of {rows} and {batch} trades came {arrived}; of {accepted} gold has {summary}")
    of_batches = {name: runs[1:] for name, runs in costs.items()}
    peak = max(run.peak_mb for runs in of_batches.values() for run in runs)
    medians = {name: statistics.median(run.cpu_s for run in runs) for name, runs in of_batches.items()}
    return Run(sum(medians.values()), peak, medians)


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
        for name, seconds in costs[size].result.items():
            print(f"bench incremental.{name}.{size} value={1000 * seconds:.1f} unit=ms a batch")
    for name in STEPS:
        small, large = (costs[size].result[name] for size in (given.rows, GROWTH * given.rows))
        print(f"{name}, {GROWTH} times the table / the table: {large / small:.2f} (target at most {TARGET})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
