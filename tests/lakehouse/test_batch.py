"""What a batch session keeps."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.batch import BatchSession
from lakehouse.settings import LakehouseSettings


def test_nothing_is_kept_of_files_that_were_read(tmp_path: Path) -> None:
    """A step reads new files each minute; remembered, they would fill the memory it may use."""
    session = BatchSession.open(LakehouseSettings(data_dir=tmp_path))
    for number in range(20):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table({"x": list(range(1_000))}), path)
        with session.connection.cursor() as cursor:
            assert cursor.execute(f"select sum(x) from read_parquet('{path}')").fetchone() == (499_500,)
    assert session.connection.execute("select sum(memory_usage_bytes) from duckdb_memory()").fetchone() == (0,)


def test_a_step_may_use_half_of_the_memory_for_queries(tmp_path: Path) -> None:
    session = BatchSession.open(LakehouseSettings(data_dir=tmp_path, query_memory_limit="600MiB"))
    with session.connection.cursor() as cursor:
        assert cursor.execute("select current_setting('memory_limit')").fetchone() == ("300.0 MiB",)
