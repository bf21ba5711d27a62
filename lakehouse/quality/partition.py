"""What a table's contract is checked on: the rows of one day, those of the tables it is compared with, and what
the days before were like.

In: the catalog's tables. Out: select statements over the data files of their snapshots, and small tables:
``observed.day`` (checked_at, rows, age_seconds, volume_deviation_percent), ``observed.nulls`` (share of nulls of
each nullable column beside the mean of the days before), ``observed.statistics`` (each statistic that the
contract asks for, with the mean of the days before and the z-score), for what is computed from silver.trades
``observed.traded`` (sums of each symbol and day, see :func:`traded`) and of silver.orderbook
``observed.misstated`` (see :func:`misstated`). Nothing is written.

A table is compared with what it was computed from, not with what has arrived since: of a bronze table, the rows
that silver has read; of silver.trades, the snapshot that gold has read.
"""

from __future__ import annotations

import statistics as stats
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa
from pyiceberg.table import Table

from lakehouse.batch import BatchSession
from lakehouse.days import all_days, day_files, day_sql, day_sums, read_until, window
from lakehouse.duck import files_sql, snapshot_sql
from lakehouse.incremental import appended_since, read_watermark
from lakehouse.quality.contract import Rows
from lakehouse.quality.definition import mentioned, statistics
from lakehouse.silver.rejected import TABLE as REJECTED
from lakehouse.snapshots import EPOCH, SnapshotFiles
from lakehouse.tables import TABLES

SCORES = "quality.scores"
TRADES, TRADED = "silver.trades", "observed.traded"
BOOKS, MISSTATED = "silver.orderbook", "observed.misstated"
DAYS_COMPARED = 7
"""Days before the one that is checked."""
DAYS_NEEDED = 3
"""Fewer say nothing of what is usual."""
LEAST_DEVIATION = 0.02
"""Of the mean: days that are all but the same would make the next one look strange."""

_NULLS = "nulls of "
"""A statistic of this name and a column: the share of its rows that are null."""

_DAY = pa.schema(
    [
        ("checked_at", pa.timestamp("us", "UTC")),
        ("rows", pa.int64()),
        ("age_seconds", pa.float64()),
        ("volume_deviation_percent", pa.float64()),
    ]
)
_TRADED = pa.schema(
    [
        ("symbol", pa.string()),
        ("trading_date", pa.date32()),
        ("traded", pa.decimal128(38, 8)),
        ("paid", pa.decimal128(38, 16)),
        ("count", pa.int64()),
    ]
)
_NULL_SHARES = pa.schema([("column", pa.string()), ("share", pa.float64()), ("mean", pa.float64())])
_STATISTICS = pa.schema([("name", pa.string()), *((n, pa.float64()) for n in ("value", "mean", "z_score"))])


@dataclass(frozen=True, slots=True)
class Partition:
    """One day of a table; all of a table that has no days."""

    table: str
    day: date | None
    snapshot_id: int | None
    rows: int
    age_seconds: float
    """Age of the table's newest event; 0 for a day that is over, to which nothing is added any more."""
    volume_deviation_percent: float
    """Of the rows, from the mean of the days before; 0 while too few are known, or the day is not over."""
    measured: Mapping[str, float | None]
    """Name of a statistic → its value; None where no row has one."""
    views: Rows
    """All that the contract names."""

    @property
    def z_scores(self) -> dict[str, float]:
        """Statistic → its z-score, where enough days are known."""
        found = self.views["observed.statistics"]
        if isinstance(found, str):
            raise TypeError("observed.statistics is a table, not a statement")
        return {row["name"]: row["z_score"] for row in found.to_pylist() if row["z_score"] is not None}


def read_partition(
    session: BatchSession, cursor: duckdb.DuckDBPyConnection, table: str, day: date | None, now: datetime
) -> Partition:
    """One day of ``table``; all of it where it has no days.

    Args:
        day: None: the newest day with rows; how old its newest row is then counts, as it does for today.

    Raises:
        NotImplementedError: the table has delete files; compact it first.
    """
    loaded = session.catalog.load_table(table)
    snapshot = session.manifests.files(table, loaded)
    dated = TABLES[table].partition_by is not None
    over = day is not None and day < now.date()
    if day is None:
        day = max(all_days(snapshot), default=now.date()) if dated else now.date()
    files = day_files(snapshot, day) if dated else snapshot.files
    views = {name: _seen_by(session, table, loaded, name, day) for name in mentioned(table) if name != table}
    views[table] = _select(snapshot, day)
    if TRADES in TABLES[table].follows:
        views[TRADED] = traded(_seen_by(session, table, loaded, TRADES, day))
    if table == BOOKS:
        views[MISSTATED] = cursor.execute(misstated(_select(snapshot, day))).to_arrow_table()
    asked = {
        f"{_NULLS}{c.name}": f'avg(cast("{c.name}" is null as integer))'
        for c in TABLES[table].columns
        if not c.required
    }
    measured = _measure(cursor, views[table], asked | statistics(table)) if files and dated else {}
    rows = sum(file.rows for file in files)
    deviation = _volume_deviation(snapshot, day, rows) if dated and day < now.date() else 0.0
    age = 0.0 if over else _age(snapshot, now)
    views |= observed(
        now, rows, age, deviation, measured, _history(session, cursor, table, day) if measured else {}
    )
    return Partition(table, day if dated else None, snapshot.snapshot_id, rows, age, deviation, measured, views)


def observed(
    now: datetime,
    rows: int = 0,
    age_seconds: float = 0.0,
    volume_deviation_percent: float = 0.0,
    measured: Mapping[str, float | None] | None = None,
    history: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, pa.Table]:
    """What a contract's checks may ask of the day beside its rows.

    Args:
        measured: statistic → its value.
        history: statistic → its values on the days before. Mean and z-score are null where fewer than
            :data:`DAYS_NEEDED` days are known, or the day has no value.
    """
    day = {
        "checked_at": now,
        "rows": rows,
        "age_seconds": age_seconds,
        "volume_deviation_percent": volume_deviation_percent,
    }
    shares, values = [], []
    for name, value in (measured or {}).items():
        before = (history or {}).get(name, ())
        mean = stats.fmean(before) if len(before) >= DAYS_NEEDED else None
        if name.startswith(_NULLS):
            shares.append({"column": name.removeprefix(_NULLS), "share": value, "mean": mean})
            continue
        z_score = None
        if value is not None and mean is not None:
            deviation = max(stats.stdev(before), LEAST_DEVIATION * abs(mean))
            z_score = (value - mean) / deviation if deviation else 0.0
        values.append({"name": name, "value": value, "mean": mean, "z_score": z_score})
    return {
        "observed.day": pa.Table.from_pylist([day], schema=_DAY),
        "observed.nulls": pa.Table.from_pylist(shares, schema=_NULL_SHARES),
        "observed.statistics": pa.Table.from_pylist(values, schema=_STATISTICS),
    }


def traded(trades: str) -> str:
    """Select statement: of each symbol of a day the quantity ``traded``, price times quantity ``paid`` (exact) and
    the ``count`` of trades. Gold's sums are held against it: it is another pass, by other statements.

    Args:
        trades: select statement over the day's rows of silver.trades.
    """
    return (
        "select symbol, "
        "date '1970-01-01' + cast(epoch_us(min(timestamp)) // 86400000000 as integer) as trading_date, "
        "sum(quantity) as traded, "
        "sum(cast(price as decimal(19, 8)) * cast(quantity as decimal(19, 8))) as paid, count(*) as count "
        f"from ({trades}) group by symbol"
    )


def day_traded(
    session: BatchSession, reader: str, snapshot: SnapshotFiles, day: date, *, anew: bool = False
) -> pa.Table:
    """What :func:`traded` says of a day of silver.trades, as ``reader`` keeps it from run to run."""
    return day_sums(session, f"{reader}: {TRADED}", snapshot, day, _TRADED, traded, anew=anew)


def misstated(books: str) -> str:
    """Select statement: the ``event_id`` of books that do not say what their levels do, and what is ``wrong`` with
    them: ``order`` (bids rise or asks fall), ``best``, ``depth`` or ``levels``.

    The step that writes the table knows them without SQL, which takes longer than all else that is asked of books
    (:func:`lakehouse.silver.books.misstated`).

    Args:
        books: select statement over rows of silver.orderbook.
    """
    bids, asks = (
        f"list_bool_or(list_transform(list_zip({side}, {side}[2:], true), x -> x[1].price {than} x[2].price))"
        for side, than in (("bids", "<"), ("asks", ">"))
    )
    rules = {
        "order": f"{bids} or {asks}",
        "best": " or ".join(
            f"best_{side}_{said} is distinct from {side}s[1].{of}"
            for side in ("bid", "ask")
            for said, of in (("price", "price"), ("qty", "quantity"))
        ),
        "depth": " or ".join(
            f"{side}_depth <> coalesce(list_sum(list_transform({side}s, level -> level.quantity)), 0)"
            for side in ("bid", "ask")
        ),
        "levels": "bid_levels <> len(bids) or ask_levels <> len(asks)",
    }
    wrong = ", ".join(f"if({rule}, '{name}', null)" for name, rule in rules.items())
    return f"from (select event_id, unnest([{wrong}]) as wrong from ({books})) where wrong is not null"


def _select(snapshot: SnapshotFiles, day: date) -> str:
    if TABLES[snapshot.name].partition_by is None:
        return snapshot_sql(snapshot, snapshot.files)
    return day_sql(snapshot, day)


def _seen_by(session: BatchSession, reader: str, reading: Table, name: str, day: date) -> str:
    """The day of table ``name`` as it was read for ``reading``, which is loaded from table ``reader``."""
    table = session.catalog.load_table(name)
    if name == REJECTED:
        return _rejected(session.manifests.files(name, table), day)
    if TABLES[reader].namespace == "silver" and TABLES[name].namespace == "bronze":
        return _bronze_read(session, reading, name, table, day)
    if name == TRADES:
        until = read_until(reading)
        seen = next((s for s in table.metadata.snapshots if s.sequence_number == until), None)
        if seen is not None:
            return _select(session.manifests.files_of(name, table, seen), day)
        # It was expired: what was committed up to it, but for days that were replaced since, for which the reader
        # is long behind and may be told so.
        head = session.manifests.files(name, table)
        files = tuple(file for file in head.files if file.sequence_number <= until)
        return _select(replace(head, files=files), day)
    return _select(session.manifests.files(name, table), day)


def _bronze_read(session: BatchSession, silver: Table, name: str, bronze: Table, day: date) -> str:
    """The day's rows of a bronze table that silver has judged."""
    read = read_watermark(silver)
    later = appended_since(name, bronze, read, session.manifests)
    files = day_files(later.snapshot, day)
    new = set(later.files)
    sql = files_sql(later.snapshot, [file for file in files if file not in new])
    unread = [file for file in files if file in new]
    if read is None or not unread:
        return sql
    return f"{sql} union all select * from ({files_sql(later.snapshot, unread)}) where not ({later.where})"


def _rejected(snapshot: SnapshotFiles, day: date) -> str:
    """Rows with event times on the day: they stand under the day of their rejection, which is not before it."""
    start, end = window(day)
    files = [file for file in snapshot.files if file.overlaps(start, None)]
    return (
        f"select * from ({files_sql(snapshot, files)}) "
        f"where timestamp >= '{start.isoformat()}' and timestamp < '{end.isoformat()}'"
    )


def _age(snapshot: SnapshotFiles, now: datetime) -> float:
    newest = max((file.last for file in snapshot.files if file.last is not None), default=EPOCH)
    return max((now - newest).total_seconds(), 0.0)


def _volume_deviation(snapshot: SnapshotFiles, day: date, rows: int) -> float:
    before = [
        sum(file.rows for file in snapshot.files if file.day == earlier)
        for earlier in (day - timedelta(days=days) for days in range(1, DAYS_COMPARED + 1))
    ]
    known = [count for count in before if count]
    return 100.0 * (rows / stats.fmean(known) - 1.0) if len(known) >= DAYS_NEEDED else 0.0


def _measure(
    cursor: duckdb.DuckDBPyConnection, rows: str, aggregates: Mapping[str, str]
) -> dict[str, float | None]:
    if not aggregates:
        return {}
    found = cursor.execute(f"select {', '.join(aggregates.values())} from ({rows})").fetchone() or ()
    return {name: None if value is None else float(value) for name, value in zip(aggregates, found, strict=True)}


def _history(
    session: BatchSession, cursor: duckdb.DuckDBPyConnection, table: str, day: date
) -> dict[str, list[float]]:
    """Statistics of the days before, as they were measured last."""
    snapshot = session.manifests.files(SCORES, session.catalog.load_table(SCORES))
    files = [
        file for file in snapshot.files if file.overlaps(window(day - timedelta(days=DAYS_COMPARED))[0], None)
    ]
    rows: list[tuple[list[dict[str, Any]]]] = cursor.execute(
        f"select arg_max(statistics, checked_at) from ({files_sql(snapshot, files)}) "
        f"where table_name = $table and day >= $first and day < $day group by day",
        {"table": table, "first": day - timedelta(days=DAYS_COMPARED), "day": day},
    ).fetchall()
    history: dict[str, list[float]] = {}
    for (measured,) in rows:
        for one in measured:
            if one["value"] is not None:
                history.setdefault(one["name"], []).append(one["value"])
    return history
