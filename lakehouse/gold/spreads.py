"""What was quoted on a UTC day: the sums that the market's spread is made of.

In: ``silver.quotes``. Out: of each symbol the sum of its quoted spreads and their number, exact, so that it does
not depend on which quotes came first. A process keeps the sums of the newest days, and adds the quotes that came
since.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import pyarrow as pa

from lakehouse.batch import BatchSession
from lakehouse.days import accumulated
from lakehouse.duck import files_sql
from lakehouse.snapshots import DataFileEntry, SnapshotFiles

SPREADS = pa.schema(
    [
        ("symbol", pa.string()),
        ("trading_date", pa.date32()),
        ("total_bps", pa.decimal128(38, 8)),
        ("quotes", pa.int64()),
    ]
)
_QUOTED = """
    select
        symbol,
        date '1970-01-01' + cast(epoch_us(timestamp) // 86400000000 as integer) as trading_date,
        cast(20000 * cast(spread as double) / cast(best_bid + best_ask as double) as decimal(18, 8)) as total_bps,
        1 as quotes
    from ({quotes})
    where spread is not null
"""


def day_spreads(session: BatchSession, snapshot: SnapshotFiles, day: date, *, anew: bool = False) -> pa.Table:
    """Quoted spreads of a day, see :data:`SPREADS`: of quotes with both sides, (ask - bid) / mid in basis points,
    each rounded to 8 places.

    Args:
        snapshot: of silver.quotes.
        anew: read all quotes of the day, whatever was read before.
    """

    def add(sums: pa.Table, files: Sequence[DataFileEntry]) -> pa.Table:
        if not files:
            return sums
        with session.connection.cursor() as cursor:
            cursor.register("sums", sums)
            added = cursor.execute(
                "select symbol, trading_date, sum(total_bps) as total_bps, cast(sum(quotes) as bigint) as quotes "
                f"from (from sums union all {_QUOTED.format(quotes=files_sql(snapshot, files))}) "
                "group by symbol, trading_date"
            )
            return added.to_arrow_table().cast(SPREADS)

    with accumulated(session, "spreads", snapshot, day, SPREADS.empty_table, add, anew=anew) as sums:
        return sums
