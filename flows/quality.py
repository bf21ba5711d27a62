"""The flow ``quality``: the data contracts of a layer, on a day of its tables as they stand.

In: a layer and a day. Out: each check's outcome in ``quality.check_results``, scores in ``quality.scores``; a
broken critical check fails the run, and holds the layer after it until it is mended. When the freshness of a layer
is broken, a run is asked for with the reason, and that reason is sent as an alert. On a crash: run it again;
nothing but what was found is written.
"""

from __future__ import annotations

from datetime import date
from typing import Literal

from flows.alert import alert
from flows.asset import Outcome, asset, report
from flows.batch_flow import batch_flow
from flows.session import lake_session
from lakehouse.quality.gate import TABLE as RESULTS
from lakehouse.quality.layer import TABLE as SCORES
from lakehouse.quality.layer import check

Layer = Literal["bronze", "silver", "gold", "dimensions"]
LAYERS: tuple[Layer, ...] = ("dimensions", "bronze", "silver", "gold")


@asset(
    "quality.checks",
    layer="quality",
    reads=("bronze.*", "silver.*", "gold.*", "dimensions.*"),
    writes=(RESULTS, SCORES),
)
def quality_checks(layer: Layer, day: date | None = None) -> list[Outcome]:
    """Verify the contracts of a layer on ``day``; None: of each table the newest day with rows.

    Raises:
        ContractViolationError: a critical check failed; the other contracts were checked all the same.
    """
    result = check(lake_session(), layer, day)
    outcomes = []
    for name, found in result.tables.items():
        part = found.partition
        passed = len(found.outcomes) - len(found.failing)
        note = (
            f"{part.day or 'all rows'}: {passed} of {len(found.outcomes)} checks passed, grade {found.score.grade}"
        )
        outcomes.append(Outcome(name, part.rows, None, part.snapshot_id, note))
    result.require()
    return outcomes


QUALITY = (quality_checks,)


@batch_flow("quality", timeout_s=1800)
def quality(layers: tuple[Layer, ...] = LAYERS, day: date | None = None, reason: str = "") -> object:
    """Verify ``layers``; a ``reason`` is sent as an alert before."""
    if reason:
        alert(reason)
    return report([quality_checks.run(layer=layer, day=day) for layer in layers])
