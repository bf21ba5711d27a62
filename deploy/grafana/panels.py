"""Reading a dashboard back: which queries does each panel run?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def panel_queries(dashboard_json: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(panel title, PromQL) of every query of a dashboard, in the order shown; rows are opened."""
    return [
        (str(panel["title"]), str(target["expr"]))
        for panel in _panels(dashboard_json.get("panels", []))
        for target in panel.get("targets", [])
    ]


def _panels(listed: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for panel in listed:
        if panel["type"] == "row":
            yield from _panels(panel.get("panels", []))
        else:
            yield panel
