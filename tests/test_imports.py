"""Imports point upstream only: the layering is checked on the syntax tree, so nothing needs to be imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

PACKAGES = ("simulator", "lakehouse", "dataflows", "flows", "api", "deploy")

ALLOWED: dict[str, tuple[str, ...]] = {
    "simulator": (),
    "lakehouse": ("simulator.events",),
    "dataflows": ("simulator.events", "lakehouse"),
    "flows": ("simulator.events", "lakehouse", "dataflows"),
    "api": ("simulator.events", "lakehouse", "dataflows"),
    # deploy starts the others as processes; it reads their settings to know ports and places
    "deploy": tuple(f"{package}.settings" for package in PACKAGES if package != "deploy"),
}
"""What each package may import of ours beside itself: a module, or a package with everything below it."""


def imported_modules(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the direction; write the full name"
            assert node.module is not None
            # `from lakehouse import query` imports lakehouse.query
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def violations(package: str, source: str) -> list[str]:
    return [
        module
        for module in imported_modules(source)
        if module.split(".")[0] in (*PACKAGES, "tests")
        and module.split(".")[0] != package
        and not any(module == ok or module.startswith(f"{ok}.") for ok in ALLOWED[package])
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_upstream_only(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, f"{package}/ holds no Python file"
    broken = {
        str(file.relative_to(ROOT)): found for file in files if (found := violations(package, file.read_text()))
    }
    assert not broken


def test_an_import_against_the_stream_is_found() -> None:
    assert violations("simulator", "from lakehouse.query import Lake") == ["lakehouse.query.Lake"]
    assert violations("lakehouse", "import dataflows.kafka") == ["dataflows.kafka"]
    assert violations("lakehouse", "from simulator import book") == ["simulator.book"]
    assert violations("lakehouse", "from simulator.events import Side") == []
    assert violations("api", "def late():\n    import flows.silver") == ["flows.silver"]
