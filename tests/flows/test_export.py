"""The daily summary as files: the newest week, each day as it is by now."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from pyarrow import parquet

from flows.export import NEWEST, export_days
from lakehouse.batch import BatchSession
from lakehouse.gold.step import publish
from lakehouse.settings import LakehouseSettings
from lakehouse.silver.events import refine_trades
from lakehouse.tables import create_tables
from tests.lakehouse.conftest import Bronze

NOON = datetime(2026, 3, 9, 12, tzinfo=UTC)


def test_a_day_exported_before_its_end_is_whole_after_the_next_run(tmp_path: Path) -> None:
    session = BatchSession.open(LakehouseSettings(data_dir=tmp_path))
    create_tables(session.catalog)
    bronze, out = Bronze(session.catalog), tmp_path / "exports"

    def export() -> dict[date, Decimal]:
        """Closing prices in the files that were written now."""
        refine_trades(session)
        publish(session)
        paths, rows = export_days(session, None, out)
        tables = [parquet.read_table(path) for path in paths if path.suffix == ".parquet"]
        texts = [path.read_text() for path in paths if path.suffix == ".csv"]
        closes = {table["trading_date"][0].as_py(): table["close_price"][0].as_py() for table in tables}
        assert all(str(close) in text for close, text in zip(closes.values(), texts, strict=True))
        assert len(paths) == 2 * rows
        return closes

    with pytest.raises(ValueError, match="no rows of any day"):
        export()
    days = [NOON.date() + timedelta(days=number) for number in range(NEWEST + 1)]
    bronze.trades(*({"timestamp": NOON + timedelta(days=number), "price": 10} for number in range(NEWEST)))
    assert export() == dict.fromkeys(days[:-1], Decimal(10))
    evening = NOON + timedelta(days=NEWEST - 1, hours=8)
    bronze.trades({"timestamp": evening, "price": 11}, {"timestamp": evening + timedelta(hours=8), "price": 12})
    assert export() == {**dict.fromkeys(days[1:-2], Decimal(10)), days[-2]: Decimal(11), days[-1]: Decimal(12)}
    assert len(list(out.iterdir())) == 2 * len(days), "older files stay"
