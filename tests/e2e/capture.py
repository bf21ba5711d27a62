"""The oracle: what a recorded capture holds, by SQL on the file itself.

Nothing of the project is used: DuckDB reads the lines, takes the JSON apart and sums exact decimals.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb

from tests.e2e.figures import Bar, Totals, vwap

# Decimals of 19 digits, so that a product of two has 38: products of 18 digits overflow.
_TRADES = """
create temp view trades as
with lines as (
    select substr(line, strpos(line, ' ') + 1) as message
    from read_csv(
        ?, columns = {'line': 'varchar'}, header = false, auto_detect = false, delim = '\x1f', quote = '',
        escape = '', new_line = '\\n', max_line_size = 8000000
    )
)
select
    json_extract_string(message, '$.data.t')::bigint as trade_id,
    json_extract_string(message, '$.data.T')::bigint as time_ms,
    json_extract_string(message, '$.data.p')::decimal(19, 8) as price,
    json_extract_string(message, '$.data.q')::decimal(19, 8) as quantity
from lines
where json_valid(message) and json_extract_string(message, '$.data.e') = 'trade'
"""

_BARS = """
select
    time_ms // 60000 as minute,
    arg_min(price, (time_ms, trade_id)) as open,
    max(price) as high,
    min(price) as low,
    arg_max(price, (time_ms, trade_id)) as close,
    sum(quantity)::decimal(38, 8) as volume,
    count(*) as trade_count,
    sum(price * quantity)::decimal(38, 16) as notional
from trades
where price > 0 and quantity > 0
group by minute
order by minute
"""


def _read(path: Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    # A view cannot take a parameter, so the path is quoted by hand.
    connection.execute(_TRADES.replace("?", "'" + str(path).replace("'", "''") + "'", 1))
    return connection


def totals(path: Path) -> Totals:
    """Number and quantity of the trades in the file; entries of price or quantity zero are no trades."""
    with _read(path) as connection:
        row = connection.execute(
            "select count(*), coalesce(sum(quantity), 0)::decimal(38, 8) from trades "
            "where price > 0 and quantity > 0"
        ).fetchone()
    assert row is not None
    return Totals(*row)


def minute_bars(path: Path) -> dict[datetime, Bar]:
    """Start of the minute (UTC) → bar of the file's trades; open and close by transaction time, then trade id."""
    with _read(path) as connection:
        rows = connection.execute(_BARS).fetchall()
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return {
        epoch + timedelta(minutes=minute): Bar(first, high, low, last, volume, trade_count, vwap(notional, volume))
        for minute, first, high, low, last, volume, trade_count, notional in rows
    }
