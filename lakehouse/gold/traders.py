"""Gold of the traders: what each earned on a day, and what each held at its end.

In: ``silver.trades``, and the open lots in ``gold.portfolio_positions`` of the day before. Out:
``gold.trader_performance``, ``gold.portfolio_positions``.

A day goes on from the lots that the day before left open, so when a day changes, that day and every later one are
computed anew, up to one whose open lots come out as they were. On a crash: the days are committed one by one,
oldest first, performance before positions; their snapshots carry how far silver was read, which moves on with the
last day, and until then which day is next and what commit of silver those before it are of. So the next run goes
on where the last commit stands.

Days are UTC dates. A day is worked on for some agents at a time, and its positions, which hold all open lots, go
from file to file: so memory grows neither with the day nor with what is open, but with what one agent has open.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import zip_longest

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.table import Table

from lakehouse.batch import BatchSession, compare_and_swap
from lakehouse.days import (
    all_days,
    computed_until,
    day_files,
    day_sql,
    read_until,
    replace_days,
    replacing,
    touched_days,
)
from lakehouse.duck import data_files_sql, files_sql, sql_file
from lakehouse.memory import give_back
from lakehouse.quality.gate import require
from lakehouse.quality.layer import require_sound
from lakehouse.snapshots import SnapshotFiles
from lakehouse.state import STATE_PREFIX, carried, read_state
from lakehouse.tables import arrow_schema

log = logging.getLogger(__name__)

SOURCE = "silver.trades"
PERFORMANCE, POSITIONS = "gold.trader_performance", "gold.portfolio_positions"
PROGRESS = STATE_PREFIX + "progress"
"""Summary property of the positions: JSON; null when all days are done. ``day``: whose turn it is; ``until``:
sequence number of the commit of silver that the days before it are of; ``also``: days that are due though silver
added nothing to them since :func:`~lakehouse.days.read_until`."""
PART_TRADES = 250_000
"""Trades and open lots worked on at once, roughly: a CPU second, and some 250 MB where all lots stay open."""
EPOCH_DAY = date(1970, 1, 1)
OPEN = pa.schema([arrow_schema(POSITIONS).field(name) for name in ("agent_id", "symbol", "last_price", "lots")])


@dataclass(frozen=True, slots=True)
class TradersResult:
    """What a run did."""

    days: tuple[date, ...] = ()
    """UTC dates computed anew."""
    rows: dict[str, int] | None = None
    """Table → rows written; None when there was nothing to do."""
    source_snapshot_id: int | None = None


def publish_traders(
    session: BatchSession, days: Sequence[date] = (), part_trades: int = PART_TRADES, least_growth: float = 0.0
) -> TradersResult:
    """Bring the traders' tables up to date, and compute ``days`` anew whether they changed or not.

    Args:
        least_growth: nothing is done before the trades of a day have grown by this part since they were read. A
            day is computed as a whole: what that costs a trade then does not depend on how many the day has.

    Raises:
        ContractViolationError: a day breaks a data contract; that day and later ones were not changed.
        CommitFailedException: other writers won every race; nothing is lost, run it again.
    """
    return compare_and_swap(POSITIONS, lambda: _publish(session, days, part_trades, least_growth))


def _publish(session: BatchSession, also: Sequence[date], part_trades: int, least_growth: float) -> TradersResult:
    positions = session.catalog.load_table(POSITIONS)
    snapshot = session.manifests.files(SOURCE, session.catalog.load_table(SOURCE))
    since = read_until(positions)
    touched = set(touched_days(snapshot, since))
    grown = any(_growth(snapshot, day, since) >= least_growth for day in touched)
    interrupted = json.loads(read_state(positions).get(PROGRESS, "null"))
    due = {*touched, *also}
    if interrupted is not None:
        next_day = date.fromisoformat(interrupted["day"])
        due = {day for day in touched if day >= next_day} | {*touched_days(snapshot, interrupted["until"]), *also}
        due |= set(map(date.fromisoformat, interrupted["also"]))
    if not (grown or interrupted or also) or snapshot.snapshot_id is None:
        return TradersResult()
    require_sound(session, SOURCE)
    performance = session.catalog.load_table(PERFORMANCE)
    run = _Run(session, performance, positions, snapshot, part_trades, touched, due)
    run.work_off()
    log.info("traders: %s computed anew, %s", ", ".join(map(str, run.done)), run.rows)
    return TradersResult(tuple(run.done), run.rows, snapshot.snapshot_id)


@dataclass(slots=True)
class _Run:
    """Days computed anew, one after the other."""

    session: BatchSession
    performance: Table
    positions: Table
    snapshot: SnapshotFiles
    """Of silver.trades."""
    part_trades: int
    touched: set[date]
    """Days that silver added to since the tables were complete."""
    due: set[date]
    done: list[date] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=lambda: {PERFORMANCE: 0, POSITIONS: 0})
    """Table → rows written."""

    def work_off(self) -> None:
        """Compute the days that are due, and those that become so: after one that left other lots open."""
        every = sorted({*all_days(self.snapshot), *self.due})
        for day, following in zip_longest(every, every[1:]):
            if day in self.due:
                self._replace(day, following)
                self.done.append(day)

    def _replace(self, day: date, following: date | None) -> None:
        """Compute a day anew and replace it in both tables."""
        now = self.session.clock()
        held = self.session.manifests.files(POSITIONS, self.positions)
        trades = day_sql(self.snapshot, day) if day in all_days(self.snapshot) else None
        computed = _Computed()
        with replacing(self.session, self.positions, [day]) as commit:
            with self.session.connection.cursor() as cursor:
                files = commit.write(computed.positions(cursor, trades, day, held, now, self.part_trades))
            performances = pa.concat_tables(computed.performances)
            if trades is not None:
                found = {PERFORMANCE: performances, POSITIONS: data_files_sql(held, files)}
                require(self.session, found, now, {SOURCE: trades}, self.snapshot.snapshot_id)
            if computed.changed and following is not None:
                self.due.add(following)
            state = self._state(sorted(later for later in self.due if later > day))
            self.rows[PERFORMANCE] += replace_days(self.session, self.performance, [day], [performances], state)
            commit.append_files(files, carried(self.positions, state))
        self.rows[POSITIONS] += sum(file.record_count for file in files)

    def _state(self, left: Sequence[date]) -> dict[str, str]:
        """Of the tables when the days ``left`` are still to be done."""
        until = self.snapshot.sequence_number
        if not left:
            return {PROGRESS: json.dumps(None)} | computed_until(until)
        also = [day.isoformat() for day in left if day not in self.touched]
        return {PROGRESS: json.dumps({"day": left[0].isoformat(), "until": until, "also": also})}


@dataclass(slots=True)
class _Computed:
    """What becomes of a day while its positions go into a file."""

    performances: list[pa.Table] = field(default_factory=lambda: [arrow_schema(PERFORMANCE).empty_table()])
    changed: bool = False
    """Whether other lots are open at its end than stood there."""

    def positions(
        self,
        cursor: duckdb.DuckDBPyConnection,
        trades: str | None,
        day: date,
        held: SnapshotFiles,
        now: datetime,
        part_trades: int,
    ) -> Iterator[pa.Table]:
        """The day's positions, part by part.

        Args:
            trades: select statement over the day's; None: there are none any more.
            held: positions as they stand.
        """
        stood = day_sql(held, day)
        if trades is None:
            self.changed = bool(cursor.execute(f"select 1 from ({stood}) limit 1").fetchall())
            return
        last = max((known for known in all_days(held) if known < day), default=None)
        before = files_sql(held, ()) if last is None else day_sql(held, last)
        open_lots = f"select coalesce(sum(len(lots)), 0) from ({before})"
        sized = cursor.execute(f"select (select count(*) from ({trades})) + ({open_lots})").fetchall()
        parts = 1 + int(sized[0][0]) // part_trades
        for part, computed in enumerate(compute_day(cursor, trades, day, before, now, parts)):
            as_it_was = cursor.execute(f"select * from ({stood}) where {_of_part(part, parts)}").to_arrow_table()
            self.changed |= not open_positions(computed[POSITIONS]).equals(open_positions(as_it_was))
            self.performances.append(computed[PERFORMANCE])
            yield computed[POSITIONS]
            give_back()  # else the C library keeps a part's lists, and takes new memory for the next one's


def compute_day(
    cursor: duckdb.DuckDBPyConnection, trades: str, day: date, before: str, now: datetime, parts: int = 1
) -> Iterator[dict[str, pa.Table]]:
    """Rows of both tables for one day, part by part.

    Args:
        cursor: a cursor of its own; temporary tables are made in it.
        trades: select statement over the day's rows of silver.trades.
        before: select statement over the positions at the end of the day before.
        now: written to ``_aggregated_at``.
        parts: into so many the agents are divided, to be worked on one after the other.
    """
    cursor.execute(f"create or replace temp view trades as {trades}")
    cursor.execute(f"create or replace temp table closes as {sql_file('gold', 'closes.sql')}")
    parameters = {"day": (day - EPOCH_DAY).days, "aggregated_at": now}
    for part in range(parts):
        mine = _of_part(part, parts)
        cursor.execute(
            "create or replace temp table carried as select agent_id, symbol, last_price, lots "
            f"from ({before}) where quantity <> 0 and {mine}"
        )
        cursor.execute(
            "create or replace temp table agents as select agent_id from ("
            "select buyer_agent_id as agent_id from trades union select seller_agent_id from trades) "
            f"where {mine}"
        )
        cursor.execute(sql_file("gold", "fifo.sql"))
        found = {}
        for name in (PERFORMANCE, POSITIONS):
            rows = cursor.execute(sql_file("gold", f"{name.split('.')[1]}_rows.sql"), parameters).to_arrow_table()
            found[name] = rows.cast(arrow_schema(name))
        yield found


def _of_part(part: int, parts: int) -> str:
    return f"hash(agent_id) % {parts} = {part}"


def _growth(snapshot: SnapshotFiles, day: date, since: int) -> float:
    """Rows of the day that were committed after sequence number ``since``, as a part of those before."""
    files = day_files(snapshot, day)
    new = sum(file.rows for file in files if file.sequence_number > since)
    before = sum(file.rows for file in files) - new
    return new / before if before else math.inf


def open_positions(rows: pa.Table) -> pa.Table:
    """What the next day needs of a day's positions: agent_id, symbol, last_price, lots; in a fixed order."""
    needed = rows.filter(pc.not_equal(rows["quantity"], 0))
    return (
        needed.select(OPEN.names)
        .cast(OPEN)
        .sort_by([("agent_id", "ascending"), ("symbol", "ascending")])
        .combine_chunks()
    )
