"""What was quoted on a UTC day: the sums that the market's spread is made of.

In: ``silver.quotes``. Out: of each symbol the sum of its quoted spreads and their number, exact, so that it does
not depend on which quotes came first. A process keeps the sums of the newest days, and adds the quotes that came
since.
"""

from __future__ import annotations

from datetime import date

import pyarrow as pa

from lakehouse.batch import BatchSession
from lakehouse.days import day_sums
from lakehouse.snapshots import SnapshotFiles

SPREADS = pa.schema(
    [
        ("symbol", pa.string()),
        ("trading_date", pa.date32()),
        ("total_bps", pa.decimal128(38, 8)),
        ("quotes", pa.int64()),
    ]
)


def quoted_spreads(quotes: str) -> str:
    """Select statement: of each quote with both sides (ask - bid) / mid in basis points, rounded to 8 places.

    Args:
        quotes: select statement over rows of silver.quotes.
    """
    return (
        "select symbol, "
        "date '1970-01-01' + cast(epoch_us(timestamp) // 86400000000 as integer) as trading_date, "
        "cast(20000 * cast(spread as double) / cast(best_bid + best_ask as double) as decimal(18, 8)) as total_bps"
        f", 1 as quotes from ({quotes}) where spread is not null"
    )


def day_spreads(session: BatchSession, snapshot: SnapshotFiles, day: date, *, anew: bool = False) -> pa.Table:
    """Sums of a day's :func:`quoted_spreads`, see :data:`SPREADS`.

    Args:
        snapshot: of silver.quotes.
        anew: read all quotes of the day, whatever was read before.
    """
    return day_sums(session, "spreads", snapshot, day, SPREADS, quoted_spreads, anew=anew)
