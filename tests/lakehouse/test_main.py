"""``python -m lakehouse COMMAND``, as a user runs it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from pyiceberg.catalog import Catalog

from lakehouse.__main__ import main
from lakehouse.batch import BatchSession
from lakehouse.settings import LakehouseSettings
from lakehouse.silver.events import refine_trades
from lakehouse.tables import TABLES
from tests.lakehouse.conftest import MARKET_OPEN, Bronze, reference_files

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def lake(settings: LakehouseSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command; returns exit status, stdout and stderr."""
    monkeypatch.setenv("TICKHOUSE_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lakehouse", *arguments])
        status = main()
        return (status, *capsys.readouterr())

    return run


def test_init_creates_every_table_once(lake: Run) -> None:
    status, _, errors = lake("describe", "bronze.trades")
    assert (status, errors) == (1, "Table does not exist: bronze.trades; create the tables: just lake init\n")
    status, out, _ = lake("init")
    assert (status, out.count(": created")) == (0, len(TABLES))
    assert f"{len(TABLES)} tables, 0 created or evolved now" in lake("init")[1].replace("\n", " ")


def test_seed_brings_the_dimensions_in_line_with_files_of_the_user(
    catalog: Catalog, lake: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = reference_files(tmp_path / "reference")
    monkeypatch.setenv("TICKHOUSE_REFERENCE_DIR", str(files))
    status, out, _ = lake("seed")
    assert status == 0
    assert "dimensions.dim_symbol: changed, 24 rows" in out
    symbols = files / "symbols.csv"
    text = symbols.read_text()
    symbols.write_text(f"{text.rstrip()}\nNEW,New Inc.,Energy,huge\n")
    status, _, errors = lake("seed")
    assert status == 1
    assert re.search(r"symbols\.csv, line 26, column market_cap_category: .*huge.*large", errors)
    symbols.write_text(f"{text.rstrip()}\nNEW,New Inc.,Energy,mid\n")
    out = lake("seed")[1]
    assert "dimensions.dim_symbol: changed, 25 rows" in out
    assert "dimensions.dim_trader: as it was" in out


def test_a_table_is_described_from_its_metadata(catalog: Catalog, lake: Run) -> None:
    status, out, _ = lake("describe", "bronze.orders")
    assert status == 0
    for said in (
        "Orders placed and cancelled",
        "Order, just cancelled as Replaced, whose place it takes",
        "decimal(18, 8)",
        "day(timestamp)",
        "symbol, timestamp",
        '["_kafka_topic", "_kafka_partition", "_kafka_offset"]',
        "market-data",
        '["Bronze", "Confidential"]',
        "commit.manifest-merge.enabled",
    ):
        assert said in out


def test_history_and_files_show_what_commits_left(bronze: Bronze, lake: Run) -> None:
    bronze.trades({"symbol": "AAPL"}, {"symbol": "TSLA"})
    bronze.trades({"symbol": "MSFT"})
    out = lake("history", "bronze.trades")[1]
    assert [line.split()[0] for line in out.splitlines() if "append" in line] == ["2", "1"]
    assert 'offsets={"raw.trades":{"0":3}}' in out
    out = lake("files", "bronze.trades")[1]
    assert [line.split()[:3] for line in out.splitlines() if ".parquet" in line] == [
        ["1", "timestamp_day=2026-03-13", "2"],
        ["2", "timestamp_day=2026-03-13", "1"],
    ]
    assert "symbol: AAPL … TSLA" in out
    assert "2026-03-13T14:30:00+00:00" in out


def test_a_table_that_is_not_declared_is_an_error(lake: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        lake("files", "bronze.nothing")
    assert "bronze.nothing" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        lake("stats", "bronze.nothing")
    assert "no such table: bronze.nothing" in capsys.readouterr().err


def test_upkeep_says_what_it_did(bronze: Bronze, session: BatchSession, lake: Run) -> None:
    for _ in range(8):
        bronze.trades({"timestamp": MARKET_OPEN - timedelta(days=1)})
    bronze.trades({})
    refine_trades(session)
    status, out, _ = lake("compact", "bronze.trades", "silver.trades")
    assert status == 0
    assert re.search(r"bronze.trades: 8 files, [\d.]+ KiB → 1 files, [\d.]+ KiB, 8 rows", out)
    assert "silver.trades: 0 files" in out
    out = lake("stats", "bronze.trades")[1]
    assert re.search(r"timestamp_day=2026-03-12 +1 +1 +0 +8 ", out)
    assert re.search(r"all +2 +9 ", out)
    assert re.search(r"rows without _received_at +9", out)
    out = lake("expire", "--dry-run", "bronze.trades")[1]
    assert "bronze.trades: 0 snapshots would be forgotten, 10 kept" in out


def test_orphans_are_shown_before_they_are_deleted(bronze: Bronze, settings: LakehouseSettings, lake: Run) -> None:
    bronze.trades({})
    orphan = settings.lakehouse_dir / "warehouse/bronze/trades/data/left.parquet"
    orphan.touch()
    os.utime(orphan, (0, 0))
    assert str(orphan) in lake("orphans", "--dry-run", "bronze.trades")[1]
    assert orphan.exists()
    assert "bronze.trades: 1 orphans (0 B) deleted, 0 too young" in lake("orphans", "bronze.trades")[1]
    assert not orphan.exists()
    status, _, errors = lake("orphans", "--older-than-hours", "0", "bronze.trades")
    assert (status, "commit that is going on" in errors) == (1, True)
