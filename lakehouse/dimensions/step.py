"""All dimensions, brought in line with their reference files.

In: ``symbols.csv``, ``traders.csv``, ``accounts.csv``, ``exchanges.csv`` in ``TICKHOUSE_REFERENCE_DIR``, or beside
this file, and the agents seen in ``bronze.orders`` since the last run. Out: the tables of ``dimensions``. On a
crash: each table is as before or as it should be; running again does the rest. A faulty file is an error before
any table is changed, and a table whose rows break their data contract is not committed.

An agent that trades without standing in ``traders.csv`` becomes a member too, of the kind that its orders tell and
with an unknown strategy (an "inferred member"), so that no fact is without its trader.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from lakehouse.batch import BatchSession
from lakehouse.dimensions.dim_symbol import read_symbols, seed_dim_symbol
from lakehouse.dimensions.reference import read_reference
from lakehouse.dimensions.scd2 import Scd2
from lakehouse.dimensions.table import Row, bring_in_line
from lakehouse.dimensions.versions import scd3_rows
from lakehouse.incremental import appended_since, read_watermark
from lakehouse.quality.gate import require
from lakehouse.state import WATERMARK

log = logging.getLogger(__name__)

FOLDER = Path(__file__).parent
UNKNOWN = "unknown"
TRADERS = Scd2("trader_key", "agent_id", ("agent_type", "strategy"), closes=False)
AGENT_TYPES = ("RetailTrader", "InstitutionalInvestor", "MarketMaker", "HighFrequencyTrader")
ACCOUNT_COLUMNS = ("account_id", "agent_id", "tier", "status")
ACCOUNT_VALUES = {
    "tier": ("retail", "professional", "institutional"),
    "status": ("active", "suspended", "closed"),
}
EXCHANGE_COLUMNS = ("exchange_code", "exchange_name", "country", "time_zone", "currency")

PRE_MARKET, REGULAR, AFTER_HOURS, CLOSED_AGAIN = 4 * 60, 9 * 60 + 30, 16 * 60, 20 * 60
"""Minutes of the day at which a session begins: New York Stock Exchange, core and extended hours."""


@dataclass(frozen=True, slots=True)
class DimensionResult:
    """What a run did to a dimension."""

    changed: bool
    rows: int
    snapshot_id: int | None


def seed_dimensions(session: BatchSession) -> dict[str, DimensionResult]:
    """Bring every dimension in line with its file; table → what was done.

    Raises:
        ReferenceFileError: a file is faulty; no table was changed.
        ContractViolationError: rows break their data contract; their table and those after it were not changed.
        ValueError: a change cannot take effect now; see :meth:`lakehouse.dimensions.scd2.Scd2.after`.
        CommitFailedException: other writers won every race; run it again.
    """
    as_of, catalog = session.clock(), session.catalog
    folder = session.settings.reference_dir or FOLDER
    symbols = read_symbols(folder / "symbols.csv")
    traders = read_reference(
        folder / "traders.csv",
        ("agent_id", *TRADERS.attributes),
        "agent_id",
        allowed={"agent_type": AGENT_TYPES},
        dated=True,
    )
    accounts = read_reference(folder / "accounts.csv", ACCOUNT_COLUMNS, "account_id", allowed=ACCOUNT_VALUES)
    exchanges = read_reference(folder / "exchanges.csv", EXCHANGE_COLUMNS, "exchange_code")

    def gate(name: str, *others: str) -> Callable[[pa.Table], None]:
        def approve(rows: pa.Table) -> None:
            sources = {other: catalog.load_table(other).scan().to_arrow() for other in others}
            require(session, {name: rows}, as_of, sources)

        return approve

    def seed(short: str, after: Callable[[list[Row]], list[Row]], *others: str) -> bool:
        name = f"dimensions.{short}"
        return bring_in_line(catalog, name, after, approve=gate(name, *others))

    def accounts_after(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
        return scd3_rows(rows, accounts, "account_id", ("tier", "status"), as_of)

    changed = {
        "dim_symbol": seed_dim_symbol(catalog, symbols, as_of=as_of, approve=gate("dimensions.dim_symbol")),
        "dim_trader": _seed_traders(session, traders, as_of, gate("dimensions.dim_trader")),
        "dim_account": seed("dim_account", accounts_after, "dimensions.dim_trader"),
        "dim_exchange": seed("dim_exchange", lambda _: list(exchanges)),
        "dim_time": seed("dim_time", lambda _: minutes_of_the_day()),
    }
    results = {}
    for short, done in changed.items():
        name = f"dimensions.{short}"
        head = catalog.load_table(name).current_snapshot()
        rows = 0 if head is None or head.summary is None else int(head.summary["total-records"] or 0)
        results[name] = DimensionResult(done, rows, None if head is None else head.snapshot_id)
        if done:
            log.info("%s: changed, %d rows", name, rows)
    return results


def minutes_of_the_day() -> list[Row]:
    """Rows of dim_time."""
    rows: list[Row] = []
    for number in range(24 * 60):
        hour, minute = divmod(number, 60)
        rows.append(
            {
                "time_key": hour * 100 + minute,
                "hour": hour,
                "minute": minute,
                "time_of_day": f"{hour:02}:{minute:02}",
                "trading_session": _session_at(number),
                "is_market_hours": REGULAR <= number < AFTER_HOURS,
            }
        )
    return rows


def _session_at(minute: int) -> str:
    if not PRE_MARKET <= minute < CLOSED_AGAIN:
        return "closed"
    if minute < REGULAR:
        return "pre-market"
    return "regular" if minute < AFTER_HOURS else "after-hours"


def _seed_traders(
    session: BatchSession, listed: Sequence[dict[str, str]], as_of: datetime, approve: Callable[[pa.Table], None]
) -> bool:
    name, source = "dimensions.dim_trader", "bronze.orders"
    appended = appended_since(
        source,
        session.catalog.load_table(source),
        read_watermark(session.catalog.load_table(name)),
        session.manifests,
    )
    with session.connection.cursor() as cursor:
        seen = cursor.execute(
            f"select agent_id, max(agent_type) from ({appended.sql()}) where agent_type is not null "
            "group by agent_id order by agent_id"
        ).fetchall()

    def after(rows: list[Row]) -> list[Row]:
        known = {row["agent_id"] for row in rows} | {row["agent_id"] for row in listed}
        inferred = [
            {"agent_id": agent, "agent_type": kind, "strategy": UNKNOWN}
            for agent, kind in seen
            if agent not in known
        ]
        return TRADERS.after(rows, [*listed, *inferred], as_of)

    state = {} if appended.snapshot.snapshot_id is None else {WATERMARK: appended.watermark.to_json()}
    return bring_in_line(session.catalog, name, after, state, approve)
