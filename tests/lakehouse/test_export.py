"""Exports: whole files with the right rows, in bounded memory, or an error that says what is wrong."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import Catalog

from lakehouse.as_of import find_as_of
from lakehouse.export import ExportError, export
from lakehouse.settings import LakehouseSettings

NAME = "bronze.trades"


@pytest.fixture
def trades(catalog: Catalog, bronze: Any) -> Catalog:
    bronze.trades({"symbol": "AAPL"}, {"symbol": "MSFT", "price": Decimal("0.00000001")}, {"symbol": "O'Neil"})
    return catalog


def test_parquet_holds_the_rows_that_match_exactly(
    settings: LakehouseSettings, trades: Catalog, tmp_path: Path
) -> None:
    out = tmp_path / "it's here.parquet"
    assert export(settings, trades, NAME, out, where="symbol <> 'AAPL' and price < 200") == 2
    found = pq.read_table(out)
    assert found["price"].to_pylist() == [Decimal("0.00000001"), Decimal("185.25")]
    assert found.schema.names == list(trades.load_table(NAME).schema().column_names)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [out.name]


def test_csv_has_a_header_and_times_in_utc(settings: LakehouseSettings, trades: Catalog, tmp_path: Path) -> None:
    out = tmp_path / "trades.csv"
    out.write_text("an older export")
    assert export(settings, trades, NAME, out, file_format="csv") == 3
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["symbol"] for row in rows) == ["AAPL", "MSFT", "O'Neil"]
    assert {row["timestamp"] for row in rows} == {"2026-03-13 14:30:00+00"}


def test_a_table_is_exported_as_it_was(
    settings: LakehouseSettings, trades: Catalog, bronze: Any, tmp_path: Path
) -> None:
    snapshot = trades.load_table(NAME).current_snapshot()
    bronze.trades({"symbol": "KO"})
    out = tmp_path / "out.parquet"
    assert export(settings, trades, NAME, out) == 4
    assert snapshot is not None
    assert export(settings, trades, NAME, out, then=find_as_of(trades, snapshot.snapshot_id, [NAME])) == 3


@pytest.mark.parametrize(
    ("table", "where", "out", "complaint"),
    [
        ("bronze.nothing", "true", "a.csv", "there is no table bronze.nothing; there are bronze.trades"),
        (NAME, "sybol = 'AAPL'", "a.csv", 'is no condition on bronze.trades: .*"sybol" not found'),
        (NAME, "true) to 'x' (", "a.csv", "is no condition"),
        (NAME, "true; drop table x", "a.csv", "is no condition"),
        (NAME, "symbol", "a.csv", "is no condition|fails on a row"),
        (NAME, "cast(symbol as integer) = 1", "a.csv", "fails on a row of bronze.trades: .*Could not convert"),
        (NAME, "true", "no/such/directory/a.csv", "could not be exported to .*a.csv: .*directory"),
    ],
)
def test_what_cannot_be_exported_says_why_and_leaves_no_file(
    table: str, where: str, out: str, complaint: str, settings: LakehouseSettings, trades: Catalog, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=complaint):
        export(settings, trades, table, tmp_path / out, file_format="csv", where=where)
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_the_command_exports_and_says_so_or_what_is_wrong(
    settings: LakehouseSettings, trades: Catalog, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    here.mkdir()

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        root = Path(__file__).parents[2]
        environment = {
            **os.environ,
            "PYTHONPATH": str(root),
            "TICKHOUSE_DATA_DIR": str(settings.data_dir),
            "COLUMNS": "200",
        }
        return subprocess.run(
            [sys.executable, "-m", "lakehouse", "export", *arguments],
            env=environment,
            cwd=here,
            capture_output=True,
            text=True,
            check=False,
        )

    out = tmp_path / "aapl.csv"
    done = command(NAME, str(out), "--format", "csv", "--where", "symbol = 'AAPL'", "--as-of", "9998-01-01")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("1 rows of bronze.trades in")
    assert len(out.read_text().splitlines()) == 2
    assert command(NAME, "--format", "csv").stdout == f"3 rows of {NAME} in {NAME}.csv\n"
    assert len((here / f"{NAME}.csv").read_text().splitlines()) == 4
    wrong = command(NAME, str(out), "--where", "sybol = 'AAPL'")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert '"sybol" not found' in wrong.stderr
