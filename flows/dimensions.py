"""The flow ``dimensions``: symbols, traders, accounts, exchanges and the times of day, in line with their files.

In: the reference files that :mod:`lakehouse.dimensions.step` names, and the agents seen in ``bronze.orders``.
Out: the tables of ``dimensions``; seeding twice changes nothing. On a crash: running it again does the rest.
"""

from __future__ import annotations

from flows.asset import Outcome, asset, report
from flows.batch_flow import batch_flow
from flows.session import lake_session
from lakehouse.dimensions.step import seed_dimensions
from lakehouse.tables import TABLES

WRITES = tuple(name for name in TABLES if name.startswith("dimensions."))


@asset("dimensions.seed", layer="dimensions", reads=("bronze.orders",), writes=WRITES)
def dimension_tables() -> list[Outcome]:
    """Bring every dimension in line."""
    return [
        Outcome(name, None, done.rows, done.snapshot_id, "changed" if done.changed else "as it was")
        for name, done in seed_dimensions(lake_session()).items()
    ]


DIMENSIONS = (dimension_tables,)


@batch_flow("dimensions", timeout_s=600)
def dimensions() -> object:
    """Refresh the dimensions."""
    return report([step.run() for step in DIMENSIONS])
