"""Operations a second of the order book, beside two others in pure Python on the same operations.

The hot path is placing and cancelling: of a hundred operations 55 place a passive limit order, 35 cancel a
random resting one, 10 place a limit order that trades at once with one to three levels. The book holds some
thousands of orders over some 60 prices a side, as a busy symbol's does. Orders are made from numbers within the
timed part, because that is a part of an exchange's work; each engine makes its own kind of order, and what drives
it forgets an order that is done.

    python -m tests.benchmarks.book [--operations N] [--rounds R]

CPU seconds of one process, best of R rounds, engines in turn. Fails when the engines' fills (maker, price, lots)
differ. The peers are installed for the run alone, beside the project's environment.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable
from random import Random
from typing import Any

from simulator.book import Book, Order

PEERS = {"lightmatchingengine": "2019.1.4", "pyorderbook": "0.4.9"}
TARGET = 400_000
TARGET_RATIO = {"lightmatchingengine": 2.0, "pyorderbook": 5.0}

Operation = tuple[int, bool, int, int]
"""(number, is_buy, price, quantity) places order ``number``; quantity 0 cancels it. Prices in ticks."""
Fills = list[tuple[int, int, int]]
"""(maker's number, price, lots)"""


def operations(count: int, seed: int = 1) -> list[Operation]:
    """The stream, made with a book at hand so that every cancel names a resting order."""
    rng = Random(seed)
    book, made = Book(), list[Operation]()
    resting: list[Order] = []
    mid = 10_000
    while len(made) < count:
        number = len(made)
        if rng.random() < 0.35:
            while resting:
                place = rng.randrange(len(resting))
                resting[place], resting[-1] = resting[-1], resting[place]
                order = resting.pop()
                if book.cancel(order):
                    made.append((order.number, order.is_buy, 0, 0))
                    break
            continue
        is_buy = rng.random() < 0.5
        top = book.top()
        if rng.random() < 0.10 / 0.65 and top.bid is not None and top.ask is not None:
            reach = rng.randrange(3)
            price = top.ask + reach if is_buy else top.bid - reach
            quantity = rng.randrange(1, 60) * 10
        else:
            away = 1 + int(rng.expovariate(1 / 12))
            price = min(mid - away, (top.ask or mid) - 1) if is_buy else max(mid + away, (top.bid or mid) + 1)
            quantity = rng.randrange(1, 40) * 10
        made.append((number, is_buy, price, quantity))
        order = Order(number, number, is_buy, price, quantity)
        book.submit(order)
        if order.resting:
            resting.append(order)
    return made


def run_tickhouse(stream: list[Operation]) -> Fills:
    book = Book()
    orders: dict[int, Order] = {}
    fills: Fills = []
    for number, is_buy, price, quantity in stream:
        if not quantity:
            book.cancel(orders.pop(number))
            continue
        order = Order(number, number, is_buy, price, quantity)
        for maker, at, lots, _, _ in book.submit(order):
            fills.append((maker.number, at, lots))
            if not maker.quantity:
                del orders[maker.number]
        if order.quantity:
            orders[number] = order
    return fills


def run_lightmatchingengine(stream: list[Operation]) -> Fills:
    module: Any = importlib.import_module("lightmatchingengine.lightmatchingengine")
    engine, buy, sell = module.LightMatchingEngine(), module.Side.BUY, module.Side.SELL
    numbers: dict[int, int] = {}
    ids: dict[int, int] = {}
    fills: Fills = []
    for number, is_buy, price, quantity in stream:
        if not quantity:
            engine.cancel_order(ids.pop(number), "X")
            continue
        side = buy if is_buy else sell
        order, trades = engine.add_order("X", price, quantity, side)
        ids[number] = order.order_id
        numbers[order.order_id] = number
        for trade in trades:
            if trade.trade_side != side:
                fills.append((numbers[trade.order_id], trade.trade_price, trade.trade_qty))
    return fills


def run_pyorderbook(stream: list[Operation]) -> Fills:
    module: Any = importlib.import_module("pyorderbook")
    book, new, buy, sell = module.Book(), module.Order, module.Side.BID, module.Side.ASK
    numbers: dict[Any, int] = {}
    orders: dict[int, Any] = {}
    fills: Fills = []
    for number, is_buy, price, quantity in stream:
        if not quantity:
            order = orders.pop(number)
            del numbers[order.id]
            book.cancel(order)
            continue
        order = new(buy if is_buy else sell, "X", price, quantity)
        for trade in book.match(order).trades:
            maker = numbers[trade.standing_order_id]
            fills.append((maker, int(trade.fill_price), trade.fill_quantity))
            if not orders[maker].quantity:
                del orders[maker], numbers[trade.standing_order_id]
        if order.quantity:
            orders[number] = order
            numbers[order.id] = number
    return fills


ENGINES: dict[str, Callable[[list[Operation]], Fills]] = {
    "tickhouse": run_tickhouse,
    "lightmatchingengine": run_lightmatchingengine,
    "pyorderbook": run_pyorderbook,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    if not all(importlib.util.find_spec(name) for name in PEERS):
        extra = [part for name, version in PEERS.items() for part in ("--with", f"{name}=={version}")]
        command = ["uv", "run", "--no-sync", *extra, "python", "-m", "tests.benchmarks.book", *sys.argv[1:]]
        return subprocess.run(command, check=False).returncode

    stream = operations(options.operations)
    counts = [sum(q > 0 for _, _, _, q in stream), sum(not q for _, _, _, q in stream)]
    best: dict[str, float] = {}
    results: dict[str, Fills] = {}
    for _ in range(options.rounds):
        for name, engine in ENGINES.items():
            gc.collect()
            start = time.process_time()
            results[name] = engine(stream)
            spent = time.process_time() - start
            best[name] = min(best.get(name, spent), spent)
    fills = results["tickhouse"]
    print(f"{len(stream):,} operations: {counts[0]:,} orders, {counts[1]:,} cancels, {len(fills):,} fills")
    own = len(stream) / best["tickhouse"]
    for name, spent in best.items():
        if results[name] != fills:
            raise SystemExit(f"{name} gave other fills: {len(results[name])} against {len(fills)}")
        rate = len(stream) / spent
        if name == "tickhouse":
            print(f"{name:20} {rate:10,.0f} operations/s   {rate / TARGET:.2f} of the target of {TARGET:,}")
        else:
            print(
                f"{name:20} {rate:10,.0f} operations/s   tickhouse is {own / rate:.1f} times as fast "
                f"(target {TARGET_RATIO[name]:.0f})"
            )
    print(f"bench book value={own:.0f} unit=operations/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
