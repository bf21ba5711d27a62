"""Of a day without a fault nothing is reported."""

from __future__ import annotations

from lakehouse.batch import BatchSession
from lakehouse.quality.definition import LAYERS
from lakehouse.quality.layer import check, last_scores


def test_nothing_is_reported_of_24_hours_of_a_clean_market(market_day: BatchSession) -> None:
    reported = [
        f"{name} {outcome.rule}: {outcome.message}"
        for layer in LAYERS
        for name, table in check(market_day, layer).tables.items()
        for outcome in table.failing
    ]
    assert reported == []
    scores = last_scores(market_day.catalog.load_table("quality.scores"))
    assert {scores[layer].grade for layer in LAYERS} == {"A"}
    assert {score.score for score in scores.values()} == {1.0}
