"""Events a second of the whole exchange as fast as it goes, and whether its memory stays flat.

The hot path is everything but the wire: agents decide, orders meet in 24 books, frames are formatted. The market
is the default one at activity 1, so that a million events is about a quarter of an hour of market time.

    python -m tests.benchmarks.exchange [--events N] [--seed S]

CPU seconds of one process on one core; the rate of the slowest tenth is printed too. Memory is what the process
keeps in RAM, read after each tenth. Fails when a sequence is missing, when the first events come out otherwise a
second time, or when memory at the end is more than a tenth above that after the first tenth.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from hashlib import blake2b
from itertools import islice
from pathlib import Path

from simulator.events import parse_frame
from simulator.exchange import Exchange
from simulator.market import load_market

TARGET = 100_000
START_US = 1_771_425_000_000_000
CHECKED = 50_000
PAGE = resource.getpagesize()


def exchange(seed: int) -> Exchange:
    return Exchange(load_market(), seed=seed, start_us=START_US)


def memory() -> int:
    """Bytes of this process in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def digest(seed: int) -> str:
    state = blake2b(digest_size=16)
    for _, frame in islice(exchange(seed).events(), CHECKED):
        state.update(frame)
    return state.hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    tenth = options.events // 10
    if tenth < 1:
        raise SystemExit("--events: at least 10")

    session = exchange(options.seed)
    events = session.events()
    spent: list[float] = []
    kept: list[int] = []
    size = 0
    frame = b""
    for _ in range(10):
        start = time.process_time()
        for _, frame in islice(events, tenth):
            size += len(frame)
        spent.append(time.process_time() - start)
        kept.append(memory())
    if (last := parse_frame(frame).data.sequence) != 10 * tenth:
        raise SystemExit(f"{10 * tenth} events, but the last sequence is {last}")
    if digest(options.seed) != digest(options.seed):
        raise SystemExit("the same seed gave other events the second time")

    rate = 10 * tenth / sum(spent)
    minutes = (session.now_us - START_US) / 60e6
    print(f"{10 * tenth:,} events, {minutes:.1f} minutes of market, {size / (10 * tenth):.0f} bytes a frame")
    print(f"exchange {rate:10,.0f} events/s   {rate / TARGET:.2f} of the target of {TARGET:,}")
    print(f"slowest tenth {tenth / max(spent):,.0f}, fastest {tenth / min(spent):,.0f} events/s")
    print("memory after each tenth, MiB: " + " ".join(f"{bytes_ / 2**20:.1f}" for bytes_ in kept))
    if kept[-1] > 1.1 * kept[0]:
        raise SystemExit("memory grows")
    print(f"bench exchange value={rate:.0f} unit=events/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
