"""Seconds that the data contracts of a day of trades take, layer by layer: every check, on all rows.

    python -m tests.benchmarks.quality [--rows N]

The day goes from bronze through silver to gold first, with one trade in fifty delivered twice. Each layer is
checked in a process of its own; what is measured is CPU time of all threads and wall time of the whole check,
results and scores written, without the process's start and Soda's import. Fails when a critical check does, when
the duplicates are not found to the row, or when silver's contract was not evaluated on every row.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from lakehouse.gold.step import publish
from lakehouse.gold.traders import publish_traders
from lakehouse.quality.contract import load_soda
from lakehouse.quality.layer import check
from lakehouse.silver.activity import refine_activity
from lakehouse.silver.events import refine_trades
from tests.benchmarks.lake import START_US, Run, fill, in_a_process, measured, report, session

MODULE = "tests.benchmarks.quality"
LAYERS = ("bronze", "silver", "gold")
TARGET_S = 10.0
DAY_US = 86_400_000_000


def prepare(home: Path) -> Run:
    lake = session(home)

    def work() -> dict[str, int]:
        done = refine_trades(lake)
        refine_activity(lake)
        publish(lake)
        publish_traders(lake)
        return {"new": done.new, "duplicates": done.duplicates}

    return measured(work)


def layer(name: str, home: Path) -> Run:
    load_soda()
    lake = session(home)
    day = datetime.fromtimestamp(START_US / 1e6, UTC).date()

    def work() -> dict[str, object]:
        began = time.perf_counter()
        result = check(lake, name, day)
        seconds = time.perf_counter() - began
        result.require()
        failing = {f"{t} {o.rule}": o.failing_rows for t, found in result.tables.items() for o in found.failing}
        rows = {table: found.partition.rows for table, found in result.tables.items()}
        return {"seconds": seconds, "failing": failing, "rows": rows}

    return measured(work)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--side", choices=["prepare", *LAYERS], help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        report(prepare(given.home) if given.side == "prepare" else layer(given.side, given.home))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        fill(home, given.rows, step_us=DAY_US // given.rows)
        made = in_a_process(MODULE, "prepare", home).result
        runs = {name: in_a_process(MODULE, name, home) for name in LAYERS}
    for name, run in runs.items():
        print(f"{name}: failing {run.result['failing']}")
        print(
            f"bench quality.{name} value={run.cpu_s:.2f} unit=cpu-s wall={run.result['seconds']:.2f} s "
            f"peak={run.peak_mb:.0f} MB"
        )
    total = sum(run.cpu_s for run in runs.values())
    slowest = max(run.cpu_s for run in runs.values())
    print(f"all layers: {total:.2f} cpu-s; target / slowest layer: {TARGET_S / slowest:.2f}")
    found = runs["bronze"].result["failing"].get("bronze.trades event_once")
    if found != made["duplicates"] or runs["silver"].result["rows"]["silver.trades"] != made["new"]:
        print(f"made {made}, found {found} duplicates and {runs['silver'].result['rows']}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
