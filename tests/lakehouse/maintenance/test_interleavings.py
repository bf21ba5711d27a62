"""Any order of appends, steps and upkeep, crashes included: every row stands in bronze and in silver, once."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pyiceberg.catalog import Catalog

from lakehouse import retention
from lakehouse.batch import BatchSession
from lakehouse.gold.step import publish
from lakehouse.maintenance import compaction
from lakehouse.maintenance.compaction import compact
from lakehouse.maintenance.expiry import expire
from lakehouse.maintenance.orphans import remove_orphans
from lakehouse.silver.events import TRADES
from lakehouse.silver.step import refine
from tests.lakehouse.conftest import MARKET_OPEN, Bronze, CommitFaults
from tests.lakehouse.maintenance.test_expiry import needed, on_disk

TABLES = ("bronze.trades", "silver.trades")
NEXT_YEAR = datetime(2030, 1, 1, tzinfo=UTC)


class Day:
    """What may happen in a day of the lakehouse, one thing after the other and some in the midst of another."""

    def __init__(self, seed: int, session: BatchSession, bronze: Bronze, faults: CommitFaults) -> None:
        self.draw = random.Random(seed)
        self.session = session
        self.catalog = session.catalog
        self.bronze = bronze
        self.faults = faults
        self.happened: Counter[str] = Counter()

    def append(self) -> None:
        days = [self.draw.choice((0, 0, 0, 1, 2)) for _ in range(self.draw.randint(1, 4))]
        self.bronze.trades(*({"timestamp": MARKET_OPEN - timedelta(days=day)} for day in days))

    def silver(self) -> None:
        result = refine(self.session, TRADES, portion_rows=self.draw.choice((2, 100_000)))
        self.happened["duplicates"] += result.duplicates

    def gold(self) -> None:
        publish(self.session)

    def compact(self) -> None:
        name = self.draw.choice(TABLES)
        report = compact(self.session, name, fewest_files=3)
        self.happened["compacted"] += report.groups

    def expire(self) -> None:
        name = self.draw.choice(TABLES)
        known = self.draw.choice((None, self.session.known[name]))
        self.happened["expired"] += expire(self.catalog, name, keep=2, known=known).snapshots

    def orphans(self) -> None:
        name = self.draw.choice(TABLES)
        table = self.catalog.load_table(name)
        for path in on_disk(table):
            os.utime(path, (0, 0))
        report = remove_orphans(self.catalog, name, now=NEXT_YEAR)
        self.happened["orphans"] += len(report.paths)
        assert needed(table) <= on_disk(table)

    def crash(self) -> None:
        """The next commit of a table is its writer's last act, just before or just after it happened."""
        name, when = self.draw.choice(TABLES), self.draw.choice(("before", "after"))
        self.faults.at_next_commit(name, when)  # type: ignore[arg-type]
        try:
            self.draw.choice((self.compact, self.silver, self.expire))()
        except ProcessLookupError:
            self.happened["crashes"] += 1
        self.faults.forget()

    def steps(self) -> list[Callable[[], None]]:
        """Everything several times, in any order; at the end enough for each kind of upkeep to have work."""
        steps = [self.append] * 10 + [self.silver] * 4 + [self.compact] * 5 + [self.expire] * 3 + [self.crash] * 3
        steps += [self.gold, self.gold, self.orphans]
        self.draw.shuffle(steps)
        return [*steps, self.append, self.silver, self.gold, self.compact, self.compact, self.expire, self.orphans]


@pytest.mark.parametrize("seed", range(2))
def test_every_row_stands_once_in_each_layer(
    session: BatchSession,
    catalog: Catalog,
    bronze: Bronze,
    commit_faults: CommitFaults,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    day = Day(seed, session, bronze, commit_faults)
    monkeypatch.setattr(retention, "READERS", timedelta(0))
    replace_files = compaction._replace

    def with_others_in_between(*arguments: Any) -> bool:
        if day.draw.random() < 0.5:
            with monkeypatch.context() as patched:
                patched.setattr(compaction, "_replace", replace_files)
                day.draw.choice((day.append, day.silver, day.compact, day.expire))()
        return replace_files(*arguments)

    monkeypatch.setattr(compaction, "_replace", with_others_in_between)
    for step in day.steps():
        step()
    refine(session, TRADES)
    publish(session)
    written = [f"trade-{number}" for number in range(bronze.next_offset["raw.trades"])]
    for name in TABLES:
        rows = catalog.load_table(name).scan().to_arrow()
        assert sorted(rows["trade_id"].to_pylist()) == sorted(written), name
    summary = catalog.load_table("gold.daily_trading_summary").scan().to_arrow()
    assert sum(summary["trade_count"].to_pylist()) == len(written)
    assert min(day.happened[what] for what in ("compacted", "expired", "crashes")) > 0, day.happened
    assert day.happened["duplicates"] == 0, "compaction made silver read a row again"
