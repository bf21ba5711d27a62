"""A real broker for the whole test run: Apache Kafka where Java is installed, else the embedded one.

`TICKHOUSE_TEST_BROKER=kafka|embedded|auto` decides by hand.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from deploy.local import broker as brokers
from tests.brokers import CACHE, local_broker

hypothesis.settings.register_profile("untimed", deadline=None)  # on a busy machine any example may take long
hypothesis.settings.load_profile("untimed")

WANTED = os.environ.get("TICKHOUSE_TEST_BROKER") or "auto"


@pytest.fixture(scope="session")
def broker_cache() -> Path:
    """Where Kafka's jars are kept between test runs."""
    return CACHE


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address "127.0.0.1:PORT" of an empty broker; topics are not created by themselves."""
    with local_broker(WANTED, tmp_path_factory.mktemp("broker")) as running:
        yield running.address


@pytest.fixture(scope="session")
def apache_kafka() -> None:
    """For what only Apache Kafka promises: skips where the tests run on the development broker."""
    if brokers.resolve(WANTED, CACHE) != "kafka":
        pytest.skip("the tests run on the development broker, and only Apache Kafka promises this")
