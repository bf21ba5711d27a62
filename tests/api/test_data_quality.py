"""What the data contracts found is told over GraphQL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lakehouse.batch import BatchSession
from lakehouse.dimensions.step import seed_dimensions
from lakehouse.quality.layer import check
from lakehouse.query import Lake
from lakehouse.settings import LakehouseSettings
from lakehouse.tables import arrow_schema, create_tables

QUERY = """{
  layers: dataQuality(layer: "dimensions") {
    tableName score grade failingChecks checks { tableName checkName outcome message }
  }
  one: dataQuality(table: "dimensions.dim_account", history: true) {
    day checkedRows completeness grade checks(failedOnly: false) { checkName severity outcome }
  }
}"""


@pytest.fixture
def session(tmp_path: Path) -> BatchSession:
    session = BatchSession.open(LakehouseSettings(data_dir=tmp_path, query_refresh_seconds=0))
    create_tables(session.catalog)
    seed_dimensions(session)
    return session


@pytest.fixture
def lake(session: BatchSession) -> Iterator[Lake]:
    lake = Lake(session.settings)
    yield lake
    lake.close()


def test_scores_and_the_checks_behind_them_are_told(served: Any, session: BatchSession) -> None:
    check(session, "dimensions")
    exchanges = session.catalog.load_table("dimensions.dim_exchange")
    faulty = exchanges.scan().to_arrow().to_pylist()[0] | {"exchange_code": "X", "country": "USA"}
    exchanges.append(pa.Table.from_pylist([faulty], schema=arrow_schema("dimensions.dim_exchange")))
    check(session, "dimensions")
    told = served.data(QUERY)
    of = {row["tableName"]: row for row in told["layers"]}
    assert (of["dimensions.dim_time"]["score"], of["dimensions.dim_time"]["grade"]) == (1.0, "A")
    exchange = of["dimensions.dim_exchange"]
    assert (exchange["score"], exchange["grade"], exchange["failingChecks"]) == (0.925, "B", ["codes_formed"])
    (failed,) = exchange["checks"]
    assert failed["outcome"] == "failed"
    assert "country=USA" in failed["message"]
    assert of["dimensions"]["failingChecks"] == ["dimensions.dim_exchange: codes_formed"]
    assert of["dimensions"]["checks"] == exchange["checks"]
    assert len(told["one"]) == 2
    assert {row["day"] for row in told["one"]} == {None}
    passed = {"checkName": "columns.tier.checks.missing", "severity": "critical", "outcome": "passed"}
    assert passed in told["one"][0]["checks"]


def test_the_readmes_query_is_one(served: Any) -> None:
    (query,) = re.findall(r"`(\{ dataQuality[^`]+)`", (Path(__file__).parents[2] / "README.md").read_text())
    assert served.data(query) == {"dataQuality": []}
