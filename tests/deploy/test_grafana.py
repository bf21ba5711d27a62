"""The dashboard: committed as built, laid out without overlap, asking for metrics that the code exports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.grafana.panels import panel_queries
from deploy.grafana.pipeline_overview import FILE, pipeline_overview
from deploy.local import probes

ROOT = Path(__file__).resolve().parents[2]
METRIC = re.compile(r"\b(?:tickhouse|kafka_bridge|graphql)_[a-z_]+")


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return dict(json.loads(FILE.read_text()))


def test_the_committed_dashboard_is_the_built_one() -> None:
    assert FILE.read_text() == pipeline_overview(), "run `just generate`"


def test_panels_have_a_description_a_unit_and_the_chosen_datasource(dashboard: dict[str, Any]) -> None:
    (variable,) = dashboard["templating"]["list"]
    assert (variable["name"], variable["type"], variable["query"]) == ("datasource", "datasource", "prometheus")
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len(panels) == len({panel["title"] for panel in panels}) >= 16
    for panel in panels:
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["targets"]
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])


def test_panels_do_not_overlap(dashboard: dict[str, Any]) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]


def test_every_metric_asked_for_is_exported_by_the_code(dashboard: dict[str, Any]) -> None:
    packages = ("simulator", "dataflows", "flows", "api")
    code = "\n".join(file.read_text() for package in packages for file in (ROOT / package).rglob("*.py"))
    exported = set(re.findall(r'"((?:tickhouse|kafka_bridge|graphql)_[a-z_]+)"', code))
    exported |= {f"{name}_total" for name in exported}  # the client adds it to a counter without
    exported |= {f"{name}_bucket" for name in exported}
    asked = {name for _, expr in panel_queries(dashboard) for name in METRIC.findall(expr)}
    assert asked - exported == set()


def test_queries_in_collapsed_rows_are_listed_too() -> None:
    inner = {"type": "stat", "title": "in", "targets": [{"expr": "b"}, {"expr": "c"}]}
    outer = {"type": "stat", "title": "out", "targets": [{"expr": "a"}]}
    board = {"panels": [outer, {"type": "row", "title": "row", "panels": [inner]}]}
    assert panel_queries(board) == [("out", "a"), ("in", "b"), ("in", "c")]


@pytest.fixture
def prometheus(
    tmp_path: Path, free_port: Callable[[], int], eventually: Callable[[Callable[[], bool]], None]
) -> Iterator[str]:
    """Address of a Prometheus that scrapes nothing."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed")
    (tmp_path / "prometheus.yml").write_text("scrape_configs: []\n")
    port = free_port()
    command = ["prometheus", f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path}"]
    process = subprocess.Popen(
        [*command, f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"], stdin=subprocess.DEVNULL
    )
    try:
        eventually(lambda: probes.serves(f"http://127.0.0.1:{port}/-/ready"))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@pytest.mark.integration
def test_prometheus_understands_every_query(dashboard: dict[str, Any], prometheus: str) -> None:
    for title, expr in panel_queries(dashboard):
        answer = probes.fetch(f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': expr})}")
        assert answer is not None, f"{title}: {expr}"
        assert json.loads(answer)["status"] == "success"
