"""The batch side starts, whatever its reference files are like."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from flows.deployments import _open_lakehouse
from flows.session import lake_session
from tests.lakehouse.conftest import reference_files


def test_a_faulty_reference_file_is_told_and_the_dimensions_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files = reference_files(tmp_path / "reference")
    monkeypatch.setenv("TICKHOUSE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("TICKHOUSE_REFERENCE_DIR", str(files))
    lake_session.cache_clear()
    try:
        with caplog.at_level(logging.ERROR):
            _open_lakehouse()
            assert not caplog.records
            symbols = files / "symbols.csv"
            symbols.write_text(symbols.read_text().replace("AAPL,", "AAPL;"))
            session = _open_lakehouse()
        assert "symbols.csv, line 2" in caplog.text
        assert session.catalog.load_table("dimensions.dim_symbol").scan().count() == 24
    finally:
        lake_session.cache_clear()
