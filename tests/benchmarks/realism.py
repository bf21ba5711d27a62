"""Does the simulated market look like a recorded one: a scorecard, and both side by side in a picture.

Runs the default market for some minutes as fast as it goes, replays the captures of ../shared/data through the
project's own replay, computes the same statistics of both from the same events, and prints for each whether the
median of the simulated symbols lies inside, near or outside the recorded range.

    python -m tests.benchmarks.realism [--minutes N] [--seeds 1,2] [--symbols AAPL,KO] [--out DIRECTORY]

The captures are too short to give every range themselves: the ranges in the scorecard are those of several
recorded sessions, or of the literature. Where the captures are absent their columns are left out.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import NormalDist, fmean, median, pstdev

from simulator.exchange import Exchange
from simulator.market import load_market
from simulator.recorded.capture import Replay
from simulator.replay import open_replay
from tests.benchmarks.plots import Panel, document
from tests.benchmarks.scorecard import (
    LEVELS,
    MIN_WINDOWS,
    STATISTICS,
    UNITS,
    Columns,
    autocorrelation,
    depth_profile,
    mid_returns,
    read,
    window_counts,
)

DATA = Path(__file__).parents[3] / "shared/data"
BINANCE = DATA / "usdm_btcusdt_20240808.gz"
COINBASE = DATA / "coinbase_ws_capture.txt"
START_US = 1_771_425_000_000_000
WARM_UP_US = 60_000_000
"""Left out: the books fill first."""


class Session:
    """One simulated session after its warm-up; ``events()`` counts what the scorecard does not."""

    def __init__(self, seed: int, minutes: float, symbols: Sequence[str]) -> None:
        market = load_market()
        if symbols:
            known = {symbol.ticker: symbol for symbol in market.symbols}
            market = market.model_copy(update={"symbols": [known[symbol] for symbol in symbols]})
        self._exchange = Exchange(
            market, seed=seed, start_us=START_US, duration_us=WARM_UP_US + int(minutes * 60_000_000)
        )
        self.by_second: Counter[int] = Counter()
        self.halts = 0
        self.cpu_seconds = 0.0

    def events(self) -> Iterator[tuple[int, bytes]]:
        events = self._exchange.events()
        while True:
            begin = time.process_time()
            chunk = [event for event, _ in zip(events, range(10_000), strict=False)]
            self.cpu_seconds += time.process_time() - begin
            if not chunk:
                return
            for time_us, frame in chunk:
                if time_us >= START_US + WARM_UP_US:
                    self.by_second[time_us // 1_000_000] += 1
                    self.halts += frame.startswith(b'{"event_type":"TradingHalt"')
                    yield time_us, frame

    def rates(self) -> str:
        """Events a second, the busiest hundredth of the seconds, halts, and the exchange's own speed."""
        seconds = sorted(self.by_second.values())
        mean = fmean(seconds)
        busy = seconds[len(seconds) * 99 // 100]
        return (
            f"{mean:,.0f} events/s, p99 second {busy / mean:.1f} x the mean, {self.halts} halts; "
            f"{sum(seconds) / self.cpu_seconds:,.0f} events per CPU-second"
        )


def replayed() -> dict[str, Columns]:
    """The captures' symbols that trade; those of too few events for a statistic show a dash."""
    markets: dict[str, Columns] = {}
    for path in (BINANCE, COINBASE):
        if not path.exists():
            print(f"{path} is not there: its column is left out")
            continue
        replay: Replay = open_replay(path)
        found = read(replay.events())
        symbol = max(found, key=lambda name: len(found[name].trade_times))
        markets[symbol] = found[symbol]
    if "BTCUSDT" in markets:
        markets["BTCUSDT"].order_messages = book_changes(BINANCE)
    return markets


def book_changes(path: Path) -> int:
    """Changed price levels in a Binance capture: the venue does not print orders, and one that changes a level is
    the nearest thing to an order message."""
    changes = 0
    with gzip.open(path) as lines:
        for line in lines:
            if b'"depthUpdate"' in line:
                data = json.loads(line[line.index(b"{") :])["data"]
                changes += len(data["b"]) + len(data["a"])
    return changes


def print_scorecard(simulated: Sequence[Columns], recorded: dict[str, Columns]) -> int:
    """The table; returns how many statistics lie outside."""
    names = list(recorded)
    print(f"\n{'statistic':46}{'simulated':>10}  {'all symbols':^19}{'range':>11}  ", end="")
    print("".join(f"{name:>10}" for name in names), " verdict")
    outside = 0
    for statistic in STATISTICS:
        values = sorted(value for columns in simulated if (value := statistic.measure(columns)) is not None)
        found = [statistic.measure(recorded[name]) for name in names]
        if not values:
            print(f"{statistic.name:46}{'too few events':>10}")
            continue
        verdict = statistic.verdict(median(values))
        outside += verdict == "outside"
        print(
            f"{statistic.name:46}{median(values):10.2f}  {f'[{values[0]:.2f} .. {values[-1]:.2f}]':^19}"
            f"{f'{statistic.low:g} .. {statistic.high:g}':>11}  "
            + "".join(f"{'-' if value is None else f'{value:.2f}':>10}" for value in found),
            f" {verdict}",
        )
    return outside


def panels(name: str, style: str, columns: Columns, others: Sequence[Columns] = ()) -> list[Panel]:
    """A column of charts of one symbol; the ``others`` are drawn thin behind it where they compare."""
    returns = mid_returns(columns)
    spread = pstdev(returns)
    scaled = [value / spread for value in returns]
    edges = [-6.25 + 0.5 * step for step in range(25)]  # zero in the middle of a bin
    shares = [sum(low <= value < low + 0.5 for value in scaled) / len(scaled) for low in edges]
    normal = [NormalDist().cdf(low + 0.5) - NormalDist().cdf(low) for low in edges]
    middles = [low + 0.25 for low in edges]
    begin = columns.quote_times[0]
    minutes = [(at - begin) / 60e6 for at in columns.quote_times]
    mids = [(bid + ask) / 2 / UNITS for bid, ask in zip(columns.bids, columns.asks, strict=True)]
    thin = max(1, len(mids) // 3000)
    counts = window_counts(columns.trade_times)
    lags = range(1, 51)
    short = range(1, 21)
    signs = [(f"line {style}", lags, _memory(columns.trade_signs, lags))]
    for other in others:
        signs.insert(0, ("many", lags, _memory(other.trade_signs, lags)))
    floor = 1e-4
    return [
        Panel(f"{name}: middle of the best prices, by minute", [(style, minutes[::thin], mids[::thin])]),
        Panel(f"{name}: trades in each second", [(style, range(len(counts)), counts)], bars=True, floor=0.0),
        Panel(f"{name}: autocorrelation of trade signs", [*signs, ("reference", [1, 50], [0, 0])]),
        Panel(
            f"{name}: log10 share of 1 s returns by deviations",
            [
                (style, middles, [math.log10(max(floor, share)) for share in shares]),
                ("reference", middles, [math.log10(max(floor, share)) for share in normal]),
            ],
            floor=math.log10(floor),
        ),
        Panel(
            f"{name}: autocorrelation of |1 s returns|, returns",
            [
                (style, short, _memory([abs(value) for value in returns], short)),
                ("reference", short, _memory(returns, short)),
            ],
        ),
        Panel(
            f"{name}: share of the depth, by level from the best",
            [(style, range(1, LEVELS + 1), depth_profile(columns))],
            bars=True,
            floor=0.0,
        ),
    ]


def _memory(values: Sequence[float], lags: range) -> list[float]:
    return [autocorrelation(values, lag) for lag in lags]


def main() -> int:
    parser = argparse.ArgumentParser(prog="just realism", description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="market minutes a seed, after the warm-up")
    parser.add_argument("--seeds", default="1", help="comma-separated")
    parser.add_argument("--symbols", default="", help="comma-separated; all when absent")
    parser.add_argument("--out", type=Path, default=Path(".tickhouse/realism"), help="where the picture goes")
    arguments = parser.parse_args()
    if arguments.minutes * 60 <= MIN_WINDOWS:
        parser.error(f"--minutes {arguments.minutes:g}: the returns need more than {MIN_WINDOWS // 60} minutes")
    chosen = [symbol for symbol in arguments.symbols.split(",") if symbol]
    listed = [symbol.ticker for symbol in load_market().symbols]
    if unknown := sorted(set(chosen) - set(listed)):
        parser.error(f"--symbols {','.join(unknown)}: not listed; choose from {','.join(listed)}")
    simulated: list[Columns] = []
    first: dict[str, Columns] = {}
    for seed in arguments.seeds.split(","):
        session = Session(int(seed), arguments.minutes, chosen)
        markets = read(session.events())
        print(f"seed {seed}: {len(markets)} symbols, {arguments.minutes:g} minutes: {session.rates()}")
        simulated += markets.values()
        first = first or markets
    recorded = replayed()
    outside = print_scorecard(simulated, recorded)
    shown = (chosen or listed)[0]
    others = [market for symbol, market in first.items() if symbol != shown]
    columns = [panels(f"simulated {shown}", "simulated", first[shown], others)]
    columns += [
        panels(f"recorded {name}", "recorded", market)
        for name, market in recorded.items()
        if len(mid_returns(market)) >= MIN_WINDOWS
    ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    picture = arguments.out / "realism.svg"
    picture.write_text(
        document("Simulated and recorded market", list(zip(*columns, strict=True))), encoding="utf-8"
    )
    print(f"\npicture: {picture}")
    print(f"realism value={len(STATISTICS) - outside} unit=statistics_inside_or_near_of_{len(STATISTICS)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
