"""The other oracle: what the exchange printed, from the journal that it writes before it sends anything."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import duckdb

from tests.e2e.figures import Bar, Totals, vwap

# The number is taken from the text, so that it is exact.
_FRAMES = """
create temp view frames as
select
    regexp_extract(filename, '([^/]+)/[0-9]+[.]jsonl$', 1) as session,
    regexp_extract(line, '"event_type": ?"([A-Za-z]+)"', 1) as event_type,
    regexp_extract(line, '"sequence": ?([0-9]+)', 1)::bigint as sequence,
    regexp_extract(line, '"timestamp": ?"([^"]+)"', 1) as timestamp,
    regexp_extract(line, '"symbol": ?"([^"]+)"', 1) as symbol,
    regexp_extract(line, '"price": ?([0-9.]+)', 1) as price,
    regexp_extract(line, '"quantity": ?([0-9.]+)', 1) as quantity
from read_csv(
    '{files}', columns = {{'line': 'varchar'}}, header = false, auto_detect = false, delim = '\x1f', quote = '',
    escape = '', new_line = '\\n', max_line_size = 8000000, filename = true, compression = 'none'
)
"""


_WINDOWS = """
with trades as (
    select symbol, sequence, epoch_us(timestamp::timestamptz) as time_us, price::decimal(19, 8) as price,
        quantity::decimal(19, 8) as quantity
    from frames
    where event_type = 'TradeExecuted'
)
select
    symbol, time_us // 60000000 as minute,
    arg_min(price, (time_us, sequence)), max(price), min(price), arg_max(price, (time_us, sequence)),
    sum(quantity)::decimal(38, 8), count(*), sum(price * quantity)::decimal(38, 16)
from trades
group by symbol, minute
"""


class BrokenJournal(AssertionError):
    """The journal does not hold every event from the first of each session on: it cannot be the oracle."""


def _read(connection: duckdb.DuckDBPyConnection, data_dir: Path) -> None:
    """Raises: BrokenJournal: a session does not begin with sequence 1, or has a gap or a repetition."""
    files = str(data_dir / "exchange" / "journal" / "*" / "*.jsonl").replace("'", "''")
    connection.execute(_FRAMES.format(files=files))
    broken = connection.execute(
        "select session, min(sequence), max(sequence), count(*) from frames group by session "
        "having min(sequence) <> 1 or max(sequence) <> count(*) or count(distinct sequence) <> count(*)"
    ).fetchall()
    if broken:
        raise BrokenJournal(f"(session, first, last, events): {broken}")


def totals(data_dir: Path) -> Totals:
    """Number and quantity of all trades in all sessions of ``<data_dir>/exchange/journal``.

    Raises:
        BrokenJournal: it does not hold every event.
    """
    with duckdb.connect() as connection:
        _read(connection, data_dir)
        row = connection.execute(
            "select count(*), coalesce(sum(quantity::decimal(18, 8)), 0)::decimal(38, 8) from frames "
            "where event_type = 'TradeExecuted'"
        ).fetchone()
    assert row is not None
    return Totals(int(row[0]), Decimal(row[1]))


def events(data_dir: Path, since: str = "", before: str = "~") -> dict[str, int]:
    """Event type → number of events in all sessions, with since ≤ timestamp < before (text, as in the events).

    Raises:
        BrokenJournal: it does not hold every event.
    """
    with duckdb.connect() as connection:
        _read(connection, data_dir)
        return dict(
            connection.execute(
                "select event_type, count(*) from frames where timestamp >= ? and timestamp < ? "
                "group by event_type",
                [since, before],
            ).fetchall()
        )


def windows(data_dir: Path) -> dict[tuple[str, datetime], Bar]:
    """(symbol, start of the minute) → bar of all trades in all sessions.

    Raises:
        BrokenJournal: it does not hold every event.
    """
    with duckdb.connect() as connection:
        _read(connection, data_dir)
        rows = connection.execute(_WINDOWS).fetchall()
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return {
        (symbol, epoch + timedelta(minutes=minute)): Bar(*figures, vwap(notional, figures[4]))
        for symbol, minute, *figures, notional in rows
    }
