from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from lakehouse.settings import LakehouseSettings


def test_the_embedded_addresses_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = LakehouseSettings(data_dir=Path("data"))
    assert settings.effective_catalog_uri == f"sqlite:///{tmp_path}/data/lakehouse/catalog.db"
    assert settings.effective_warehouse == f"file://{tmp_path}/data/lakehouse/warehouse"


def test_every_field_comes_from_its_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKHOUSE_CATALOG_TYPE", "rest")
    monkeypatch.setenv("TICKHOUSE_CATALOG_URI", "http://127.0.0.1:8181")
    monkeypatch.setenv("TICKHOUSE_WAREHOUSE", "s3://lake")
    monkeypatch.setenv("TICKHOUSE_CATALOG_CREDENTIAL", "key:very-secret")
    settings = LakehouseSettings()
    assert settings.catalog_type == "rest"
    assert settings.effective_catalog_uri == "http://127.0.0.1:8181"
    assert settings.effective_warehouse == "s3://lake"
    assert "very-secret" not in repr(settings)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"catalog_type": "rest"}, "TICKHOUSE_CATALOG_URI"),
        ({"catalog_type": "rest", "catalog_uri": "http://h"}, "TICKHOUSE_WAREHOUSE"),
        ({"snapshots_kept": 10, "snapshots_expire_at": 10}, "TICKHOUSE_SNAPSHOTS_EXPIRE_AT"),
        ({"data_dir": "what?"}, "TICKHOUSE_DATA_DIR"),
    ],
)
def test_a_contradiction_is_an_error_that_names_the_variable(values: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        LakehouseSettings(**values)  # type: ignore[arg-type]
