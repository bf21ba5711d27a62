"""Gold of the traders: what each earned on a day, and what each held at its end.

In: ``silver.trades``, and the open lots in ``gold.portfolio_positions`` of the day before. Out:
``gold.trader_performance``, ``gold.portfolio_positions``.

A day goes on from the lots that the day before left open, so when a day changes, that day and every later one are
computed anew, up to one whose open lots come out as they were. On a crash: the days are committed one by one,
oldest first, performance before positions; their snapshots carry how far silver was read, which moves on with the
last day, and which day is next. So the next run goes on where the last commit stands.

Days are UTC dates. A day is worked on for some agents at a time, so that memory does not grow with it.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.table import Table

from lakehouse.batch import BatchSession, compare_and_swap
from lakehouse.days import all_days, computed_until, day_files, day_sql, read_until, replace_days, touched_days
from lakehouse.duck import sql_file
from lakehouse.quality.gate import require
from lakehouse.quality.layer import require_sound
from lakehouse.snapshots import SnapshotFiles
from lakehouse.state import STATE_PREFIX, read_state
from lakehouse.tables import arrow_schema

log = logging.getLogger(__name__)

SOURCE = "silver.trades"
PERFORMANCE, POSITIONS = "gold.trader_performance", "gold.portfolio_positions"
NEXT_DAY = STATE_PREFIX + "next-day"
"""Summary property of the positions: JSON, day whose turn it is; null when none is left."""
PART_TRADES = 250_000
"""Trades worked on at once, roughly: a CPU second, and some 250 MB where all lots stay open."""
EPOCH_DAY = date(1970, 1, 1)


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
    performance = session.catalog.load_table(PERFORMANCE)
    source = session.catalog.load_table(SOURCE)
    head = source.current_snapshot()
    snapshot = session.manifests.files(SOURCE, source)
    text = read_state(positions).get(NEXT_DAY)
    interrupted = [] if text is None or json.loads(text) is None else [date.fromisoformat(json.loads(text))]
    since = read_until(positions)
    touched = touched_days(snapshot, since)
    grown = any(_growth(snapshot, day, since) >= least_growth for day in touched)
    if not (grown or interrupted or also) or head is None:
        return TradersResult()
    due = {*touched, *interrupted, *also}
    require_sound(session, SOURCE)
    with_trades = set(all_days(snapshot))
    every = sorted(with_trades | due)
    carried, done = arrow_schema(POSITIONS).empty_table(), list[date]()
    rows = {PERFORMANCE: 0, POSITIONS: 0}
    with session.connection.cursor() as cursor:
        for number, day in enumerate(every):
            if day not in due:
                continue
            if not done or every[number - 1] != done[-1]:
                carried = _carried(session, positions, day)
            before = open_positions(_rows_of(session, positions, day))
            computed = {name: arrow_schema(name).empty_table() for name in rows}
            if day in with_trades:
                parts = 1 + sum(file.rows for file in day_files(snapshot, day)) // part_trades
                trades, now = day_sql(snapshot, day), session.clock()
                computed = compute_day(cursor, trades, day, carried, now, parts)
                require(session, computed, now, {SOURCE: trades}, head.snapshot_id)
                carried = open_positions(computed[POSITIONS])
            if not carried.equals(before) and number + 1 < len(every):
                due.add(every[number + 1])
            left = min((later for later in due if later > day), default=None)
            state = {NEXT_DAY: json.dumps(None if left is None else left.isoformat())}
            if left is None:
                state |= computed_until(head.sequence_number or 0)
            rows[PERFORMANCE] += replace_days(session, performance, [day], [computed[PERFORMANCE]], state.copy)
            rows[POSITIONS] += replace_days(session, positions, [day], [computed[POSITIONS]], state.copy)
            done.append(day)
    log.info("traders: %s computed anew, %s", ", ".join(map(str, done)), rows)
    return TradersResult(tuple(done), rows, head.snapshot_id)


def compute_day(
    cursor: duckdb.DuckDBPyConnection,
    trades: str,
    day: date,
    carried: pa.Table,
    now: datetime,
    parts: int = 1,
) -> dict[str, pa.Table]:
    """Rows of both tables for one day.

    Args:
        cursor: a cursor of its own; temporary tables are made in it.
        trades: select statement over the day's rows of silver.trades.
        carried: what :func:`open_positions` says of the day before.
        now: written to ``_aggregated_at``.
        parts: into so many the agents are divided, to be worked on one after the other.
    """
    cursor.execute(f"create or replace temp view trades as {trades}")
    cursor.execute(f"create or replace temp table closes as {sql_file('gold', 'closes.sql')}")
    cursor.register("all_carried", carried)
    parameters = {"day": (day - EPOCH_DAY).days, "aggregated_at": now}
    found: dict[str, list[pa.Table]] = {PERFORMANCE: [], POSITIONS: []}
    for part in range(parts):
        mine = f"hash(agent_id) % {parts} = {part}"
        cursor.execute(f"create or replace temp view carried as select * from all_carried where {mine}")
        cursor.execute(
            "create or replace temp table agents as select agent_id from ("
            "select buyer_agent_id as agent_id from trades union select seller_agent_id from trades) "
            f"where {mine}"
        )
        cursor.execute(sql_file("gold", "fifo.sql"))
        for name, tables in found.items():
            rows = cursor.execute(sql_file("gold", f"{name.split('.')[1]}_rows.sql"), parameters).to_arrow_table()
            tables.append(rows.cast(arrow_schema(name)))
    return {name: pa.concat_tables(tables) for name, tables in found.items()}


def _growth(snapshot: SnapshotFiles, day: date, since: int) -> float:
    """Rows of the day that were committed after sequence number ``since``, as a part of those before."""
    files = day_files(snapshot, day)
    new = sum(file.rows for file in files if file.sequence_number > since)
    before = sum(file.rows for file in files) - new
    return new / before if before else math.inf


def _carried(session: BatchSession, positions: Table, day: date) -> pa.Table:
    """Positions open at the end of the last day before ``day``."""
    before = [known for known in all_days(session.manifests.files(POSITIONS, positions)) if known < day]
    return open_positions(
        _rows_of(session, positions, max(before)) if before else arrow_schema(POSITIONS).empty_table()
    )


def _rows_of(session: BatchSession, positions: Table, day: date) -> pa.Table:
    snapshot = session.manifests.files(POSITIONS, positions)
    with session.connection.cursor() as cursor:
        return cursor.execute(day_sql(snapshot, day)).to_arrow_table().cast(arrow_schema(POSITIONS))


def open_positions(rows: pa.Table) -> pa.Table:
    """What the next day needs of a day's positions: agent_id, symbol, last_price, lots; in a fixed order."""
    needed = rows.filter(pc.not_equal(rows["quantity"], 0))
    return (
        needed.select(["agent_id", "symbol", "last_price", "lots"])
        .sort_by([("agent_id", "ascending"), ("symbol", "ascending")])
        .combine_chunks()
    )
