"""A flow and the bridge as services: one at a time on the same data."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("module", ["dataflows.vwap", "dataflows.bridge"])
def test_a_second_one_on_the_same_data_is_refused_and_a_killed_one_is_followed_at_once(
    module: str, service: Callable[..., Any], tmp_path: Any, until: Callable[..., Any]
) -> None:
    settings = {"ws_url": "ws://127.0.0.1:1"}
    first, second = service(module, **settings), service(module, **settings)

    def works() -> bool:
        said = first.log.read_text() if first.log.exists() else ""
        assert "runs already" not in said
        return "starts" in said or "connecting again" in said

    first.start()
    until("it works", works)
    second.start()
    assert second.wait() == 1
    assert f"{module.rpartition('.')[2]} runs already on {tmp_path}" in second.log.read_text()
    assert first.alive()

    first.kill()
    first.log.unlink()
    first.start()
    until("it works again", works)
    assert first.stop(30) == 0


@pytest.mark.parametrize("flow", ["bridge", "vwap", "alerts", "orderbook"])
def test_a_flow_without_tables_starts_without_the_lakehouse(flow: str) -> None:
    loaded = f"import sys, dataflows.{flow}; print({{'pyiceberg', 'pyarrow', 'duckdb'}} & {{*sys.modules}})"
    assert subprocess.check_output([sys.executable, "-c", loaded], text=True) == "set()\n"
