"""Compiled code is what its source says now, also where another module was changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CALLED = """
from lakehouse.compiled import compiled

@compiled
def step(x):
    return x + {step}
"""
CALLER = """
import called
from called import step
from lakehouse.compiled import compiled

@compiled
def twice(x):
    return step(step(x))

print(twice(0), sum(twice.stats.cache_hits.values()))
"""


def run(folder: Path) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{folder}", "NUMBA_CACHE_DIR": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, str(folder / "caller.py")], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_a_function_is_kept_until_one_that_it_calls_changes(tmp_path: Path) -> None:
    (tmp_path / "caller.py").write_text(CALLER)
    (tmp_path / "called.py").write_text(CALLED.format(step=1))
    assert run(tmp_path) == ["2", "0"]
    assert run(tmp_path) == ["2", "1"]
    (tmp_path / "called.py").write_text(CALLED.format(step=5))
    assert run(tmp_path) == ["10", "0"]
