"""One instance per test module; what is wrong with it is shown when a test of the module failed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.instance import Instance


@pytest.fixture(scope="module")
def new_instance(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Instance]]:
    """Makes instances that are down, whatever happens, when the module's tests are over."""
    made: list[Instance] = []
    failed_before = request.session.testsfailed

    def make(**settings: str) -> Instance:
        instance = Instance.create(tmp_path_factory.mktemp("tickhouse") / "data", settings)
        made.append(instance)
        return instance

    yield make
    for instance in made:
        if request.session.testsfailed > failed_before:
            print(instance.log_ends())
        instance.end()
        shutil.rmtree(instance.data_dir, ignore_errors=True)


@pytest.fixture(scope="session")
def recorded() -> Path:
    """A recorded capture of a real venue, where it is at hand."""
    path = Path(__file__).parents[3] / "shared/data/usdm_btcusdt_20240808.gz"
    if not path.exists():
        pytest.skip(f"the recorded capture {path.name} is not here")
    return path
