"""``python -m lakehouse COMMAND``, as a user runs it."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from pyiceberg.catalog import Catalog

from lakehouse.__main__ import main
from lakehouse.settings import LakehouseSettings
from lakehouse.tables import TABLES
from tests.lakehouse.conftest import Bronze

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
    assert lake("describe", "bronze.trades")[::2] == (1, "bronze.trades does not exist yet: just lake init\n")
    status, out, _ = lake("init")
    assert (status, out.count(": created")) == (0, len(TABLES))
    assert f"{len(TABLES)} tables, 0 created or evolved now" in lake("init")[1].replace("\n", " ")


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
