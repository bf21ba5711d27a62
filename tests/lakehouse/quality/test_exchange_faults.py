"""Each kind of fault that the exchange puts on its wire is found in bronze by the rule meant for it."""

from __future__ import annotations

import pytest

from lakehouse.batch import BatchSession
from lakehouse.quality.contract import verify
from lakehouse.quality.definition import contracts, mentioned
from lakehouse.quality.partition import observed
from simulator.faults import Faults, FaultyWire
from simulator.market import DataQuality
from tests.lakehouse.quality.market import AFTER, bronze_rows, market_frames
from tests.lakehouse.quality.mutations import Views

HISTORY = {f"nulls of best_{side}": [0.0, 0.01, 0.0] for side in ("bid", "ask")}
RULES = {
    "duplicate_rate": {"event_once"},
    "out_of_order_rate": {"in_order"},
    "missing_data_rate": {"sequence_complete"},
    "malformed_rate": {"sequence_complete"},
    # To its own topic, which is quiet, a late frame is often late by less than 5 s: only out of order.
    "late_rate": {"not_late", "in_order"},
    "one_sided_rate": {"null_drift"},
}
"""Fault of the exchange → the rules of bronze that find it."""


@pytest.fixture(scope="module")
def frames() -> list[bytes]:
    return market_frames(2)


def found(frames: list[bytes], dimensions: Views, **rates: float) -> dict[str, set[str]]:
    """Rule → the tables in which it fails, when the frames go over a wire with faults."""
    wire = FaultyWire(Faults(DataQuality(**rates), seed=1))
    rows = bronze_rows(wire.send(0, frames)) | dimensions
    failing: dict[str, set[str]] = {}
    for table in contracts("bronze"):
        asked = {name: rows[name] for name in mentioned(table)}
        for outcome in verify(table, asked | _observed(table, rows)):
            if outcome.outcome != "passed":
                failing.setdefault(outcome.rule, set()).add(table)
    return failing


def _observed(table: str, rows: Views) -> Views:
    if table != "bronze.quotes":
        return observed(AFTER)
    quotes = rows[table]
    shares = {f"nulls of {name}": quotes[name].null_count / len(quotes) for name in ("best_bid", "best_ask")}
    return observed(AFTER, measured=dict(shares), history=HISTORY)


@pytest.fixture
def dimensions(session: BatchSession) -> Views:
    return {"dimensions.dim_symbol": session.catalog.load_table("dimensions.dim_symbol").scan().to_arrow()}


def test_every_fault_of_the_exchange_has_a_rule() -> None:
    assert set(RULES) == {name for name in DataQuality.model_fields if name.endswith("_rate")}


def test_without_faults_nothing_is_found(frames: list[bytes], dimensions: Views) -> None:
    assert found(frames, dimensions) == {}


@pytest.mark.parametrize("rate", RULES)
def test_a_fault_of_the_exchange_is_found_by_the_rule_meant_for_it(
    frames: list[bytes], dimensions: Views, rate: str
) -> None:
    assert set(found(frames, dimensions, **{rate: 0.3 if rate == "one_sided_rate" else 0.05})) == RULES[rate]
