"""The flow ``quality``: the data contracts of a layer, on a day of its tables as they stand.

In: a layer and a day. Out: each check's outcome in ``quality.check_results``; a broken critical check fails the
run. When the freshness of a layer is broken, a run is asked for with the reason, and that reason is sent as an
alert. On a crash: run it again; nothing but results is written.
"""

from __future__ import annotations

import importlib.resources
from datetime import date
from typing import Literal

from flows.alert import alert
from flows.asset import Outcome, asset, report
from flows.batch_flow import batch_flow
from flows.session import lake_session
from lakehouse.batch import BatchSession
from lakehouse.days import all_days, day_sql
from lakehouse.quality.contract import verify
from lakehouse.quality.gate import TABLE as RESULTS
from lakehouse.quality.gate import ContractViolationError, record

Layer = Literal["bronze", "silver", "gold"]
LAYERS: tuple[Layer, ...] = ("bronze", "silver", "gold")


def check(session: BatchSession, layer: str, day: date | None) -> list[Outcome]:
    """Verify every contract of ``layer`` on ``day`` (None: the newest with rows) and record what was found.

    Raises:
        ContractViolationError: a critical check failed; the other contracts were checked all the same.
    """
    contracts = importlib.resources.files("lakehouse.quality") / "contracts"
    names = sorted(file.name.removesuffix(".yml") for file in contracts.iterdir() if file.name.endswith(".yml"))
    outcomes, violations = [], []
    for name in names:
        if not name.startswith(f"{layer}."):
            continue
        snapshot = session.manifests.files(name, session.catalog.load_table(name))
        days = all_days(snapshot)
        checked = days[-1] if day is None and days else day
        if checked not in days:
            outcomes.append(Outcome(name, 0, None, snapshot.snapshot_id, f"no rows of {checked or 'any day'}"))
            continue
        with session.connection.cursor() as cursor:
            rows = cursor.execute(day_sql(snapshot, checked)).to_arrow_table()
        found = verify(name, rows)
        record(session, name, found, session.clock(), snapshot.snapshot_id)
        broken = [outcome for outcome in found if outcome.stops]
        if broken:
            violations.append(ContractViolationError(name, broken))
        note = f"{checked}: {sum(o.outcome == 'passed' for o in found)} of {len(found)} checks passed"
        outcomes.append(Outcome(name, rows.num_rows, None, snapshot.snapshot_id, note))
    if violations:
        raise violations[0]
    return outcomes


@asset("quality.checks", layer="quality", reads=("bronze.*", "silver.*", "gold.*"), writes=(RESULTS,))
def quality_checks(layer: Layer, day: date | None = None) -> list[Outcome]:
    """Verify the contracts of a layer."""
    return check(lake_session(), layer, day)


QUALITY = (quality_checks,)


@batch_flow("quality", timeout_s=1800)
def quality(layers: tuple[Layer, ...] = LAYERS, day: date | None = None, reason: str = "") -> object:
    """Verify ``layers``; a ``reason`` is sent as an alert before."""
    if reason:
        alert(reason)
    return report([quality_checks.run(layer=layer, day=day) for layer in layers])
