"""The flow ``export``: days of the daily summary as files for people without SQL.

In: ``gold.daily_trading_summary``. Out: ``<data_dir>/exports/daily_trading_summary_<day>.csv`` and ``.parquet``.
Without a day it writes the newest :data:`NEWEST` days: one that was exported before its end, or had late trades,
is right with the next run. On a crash: a file is there whole or not at all; running it again replaces it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pyarrow as pa
from pyarrow import csv, parquet

from flows.asset import Outcome, asset, report
from flows.batch_flow import batch_flow
from flows.session import lake_session
from lakehouse.batch import BatchSession
from lakehouse.days import all_days, day_sql

SOURCE = "gold.daily_trading_summary"
NEWEST = 7
"""Days: those of a week's end are written on Monday."""
WRITERS: dict[str, Callable[[pa.Table, Path], None]] = {
    "csv": lambda rows, path: csv.write_csv(rows, path),
    "parquet": lambda rows, path: parquet.write_table(rows, path, compression="zstd"),
}


def export_days(session: BatchSession, day: date | None, directory: Path) -> tuple[list[Path], int]:
    """Write the files of ``day`` (None: of the newest) into ``directory``; returns them and the number of rows.

    Raises:
        ValueError: there are no rows of that day; nothing was written.
    """
    table = session.catalog.load_table(SOURCE)
    snapshot = session.manifests.files(SOURCE, table)
    known = all_days(snapshot)
    if not known or (day is not None and day not in known):
        raise ValueError(f"{SOURCE} has no rows of {day or 'any day'}; compute them: just backfill DAY..DAY")
    directory.mkdir(parents=True, exist_ok=True)
    paths, count = [], 0
    for each in known[-NEWEST:] if day is None else [day]:
        with session.connection.cursor() as cursor:
            statement = f"select * from ({day_sql(snapshot, each)}) where trading_date = ? order by symbol"
            rows = cursor.execute(statement, [each]).to_arrow_table()
        count += rows.num_rows
        for suffix, write in WRITERS.items():
            path = directory / f"daily_trading_summary_{each}.{suffix}"
            draft = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
            write(rows, draft)
            paths.append(draft.rename(path))
    return paths, count


@asset("export.daily_trading_summary", layer="gold", reads=(SOURCE,))
def export_summary(day: date | None = None) -> list[Outcome]:
    """Write the summary of ``day`` to files; None: of the newest days."""
    session = lake_session()
    paths, rows = export_days(session, day, session.settings.data_dir / "exports")
    return [Outcome(SOURCE, rows_in=rows, note=", ".join(map(str, paths)))]


EXPORT = (export_summary,)


@batch_flow("export", timeout_s=600)
def export(day: date | None = None) -> object:
    """Export the daily summary."""
    return report([export_summary.run(day=day)])
