"""The whole system with its tables in object storage, by the commands of the README."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploy.local import leftovers
from deploy.local.object_storage import PORTS
from tests.e2e import layers
from tests.e2e.instance import Instance, listening, until

pytestmark = pytest.mark.e2e

CANDLE_SECONDS = 240


def test_a_candle_comes_from_s3_and_a_killed_storage_comes_back(
    new_instance: Callable[..., Instance], tmp_path: Path
) -> None:
    instance = new_instance()
    said = instance.up("storage=s3")
    assert f"http://127.0.0.1:{instance.settings.s3_port}" in said

    def candles() -> object:
        today = f"{datetime.now(UTC):%Y-%m-%d}"
        return layers.candles(instance.api, "AAPL", today, today)

    until(candles, bool, CANDLE_SECONDS, "a candle over GraphQL")
    assert not (instance.data_dir / "lakehouse" / "catalog.db").exists()
    assert list((instance.data_dir / "object-storage" / "data").iterdir())

    def trades() -> int:
        said = instance.just("sql", "--csv", "select count(*) from bronze.trades", seconds=60)
        return int(said.split()[-1])

    before = trades()
    assert before > 0
    storage = instance.health()["storage"].pid
    os.kill(storage, signal.SIGKILL)
    until(
        lambda: instance.health()["storage"], lambda row: row.ready and row.pid != storage, 60, "storage is back"
    )
    until(trades, lambda count: count > before, 60, "bronze goes on")

    instance.down()
    assert leftovers.leftovers(instance.settings.root) == []
    assert not [name for name in PORTS if listening(instance.settings.ports()[name])]
