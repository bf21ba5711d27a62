"""The README names only what exists: recipes, modules, settings, ports, files."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

from deploy.local.settings import LocalSettings

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
CODE = "\n".join([*re.findall(r"```\n(.*?)```", README, re.S), *re.findall(r"`([^`\n]+)`", README)])


def found(pattern: str, text: str = CODE) -> list[str]:
    """Distinct matches; a README without any would make the test below it pass for nothing."""
    matches = sorted(set(re.findall(pattern, text)))
    assert matches, f"the README has nothing like {pattern}"
    return matches


@pytest.fixture(scope="module")
def recipes() -> set[str]:
    done = subprocess.run(["just", "--summary"], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_every_recipe_exists(recipes: set[str]) -> None:
    assert set(found(r"(?m)^just ([a-z][a-z0-9-]*)")) <= recipes


@pytest.mark.parametrize("module", found(r"python -m ([a-z_.]+)"))
def test_every_module_that_is_run_exists(module: str) -> None:
    assert importlib.util.find_spec(module) is not None


@pytest.mark.parametrize("variable", found(r"\bTICKHOUSE_[A-Z0-9_]+[A-Z0-9]"))
def test_every_setting_is_in_the_example(variable: str) -> None:
    assert f"#{variable}=" in (ROOT / ".env.example").read_text()


@pytest.mark.parametrize("port", found(r"127\.0\.0\.1:(\d+)", README))
def test_every_port_is_a_default(port: str) -> None:
    assert int(port) in LocalSettings(data_dir=Path("unused")).ports().values()


@pytest.mark.parametrize(
    "path", found(r"\]\(([^)#:]+)\)", README) + found(r"\b((?:deploy|tests)/[\w./-]+\.\w+)", README)
)
def test_every_file_exists(path: str) -> None:
    assert (ROOT / path).exists()
