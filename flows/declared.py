"""What runs when: every flow with its steps, its schedule and what else sets it going, in one list.

In: settings. Out: :func:`declared`, from which the deployments are registered, ``prefect.yaml`` is written
(``just generate``) and ``just flows`` is printed.
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from typing import Any

import yaml
from prefect import Flow
from prefect.client.schemas.objects import ConcurrencyLimitStrategy

from flows.asset import POLICIES, Asset, table_limit
from flows.backfill import BACKFILL, backfill, recompute
from flows.bronze import BRONZE, bronze
from flows.dimensions import DIMENSIONS, dimensions
from flows.export import EXPORT, export
from flows.gold import DAILY, GOLD, daily, gold
from flows.governance import MASKING, RETENTION, masked, retention
from flows.maintenance import (
    DAILY as SWEEP,
)
from flows.maintenance import (
    HOURLY,
    WEEKLY,
    maintenance_daily,
    maintenance_hourly,
    maintenance_weekly,
)
from flows.quality import QUALITY, quality
from flows.settings import FlowsSettings
from flows.silver import SILVER, silver
from flows.triggers import COMMITS_BETWEEN_UPKEEP

SKIP, QUEUE = ConcurrencyLimitStrategy.CANCEL_NEW, ConcurrencyLimitStrategy.ENQUEUE
NEW_YORK = "America/New_York"
CLUSTER_SILVER_CRON = "*/5 * * * *"
CLUSTER_WORK_POOL = "tickhouse"


@dataclass(frozen=True, slots=True)
class Declared:
    """A deployment: of its flow's name."""

    flow: Flow[..., Any]
    assets: tuple[Asset, ...]
    cron: str | None = None
    timezone: str = "UTC"
    after: str | None = None
    """What else sets it going, in words."""
    overlap: ConcurrencyLimitStrategy = SKIP
    """What becomes of a run that comes due while another one runs: a micro-batch is skipped, because the next one
    finds all there is to do."""

    @property
    def name(self) -> str:
        return self.flow.name

    @property
    def schedule(self) -> str:
        """In words, for people."""
        zone = "" if self.timezone == "UTC" else f" {self.timezone}"
        return "; ".join(filter(None, (f"{self.cron}{zone}" if self.cron else None, self.after))) or "by hand"


def declared(settings: FlowsSettings) -> tuple[Declared, ...]:
    """Every deployment."""
    return (
        Declared(bronze, BRONZE, "*/5 * * * *"),
        Declared(silver, SILVER, settings.silver_cron, after="rows of bronze left unread"),
        # Silver asks once for each snapshot: the run that answers waits while an earlier one is at work.
        Declared(gold, GOLD, "*/15 * * * *", after="new snapshot of silver.trades", overlap=QUEUE),
        Declared(daily, DAILY, "30 16 * * 1-5", NEW_YORK),
        Declared(quality, QUALITY, "10 * * * *", after="a layer's freshness broken", overlap=QUEUE),
        Declared(dimensions, DIMENSIONS, "0 2 * * 0"),
        Declared(masked, MASKING, after="part of daily"),
        Declared(retention, RETENTION, "30 3 * * *"),
        Declared(maintenance_hourly, HOURLY, "25 * * * *", after=f"{COMMITS_BETWEEN_UPKEEP} commits to a table"),
        Declared(maintenance_daily, SWEEP, "45 3 * * *"),
        Declared(maintenance_weekly, WEEKLY, "0 4 * * 0"),
        Declared(recompute, BACKFILL, "0 3 1 * *", overlap=QUEUE),
        Declared(export, EXPORT, after="part of daily"),
        Declared(backfill, BACKFILL, overlap=QUEUE),
    )


def exclusive_tables(settings: FlowsSettings) -> list[str]:
    """Tables that one step at a time may write: each has a concurrency limit of its own."""
    assets = {asset.name: asset for one in declared(settings) for asset in one.assets}.values()
    return sorted({table for asset in assets if POLICIES[asset.layer].exclusive for table in asset.writes})


def prefect_yaml() -> str:
    """The same deployments for a work pool of any kind, as ``prefect deploy --all`` reads them."""
    deployments = []
    for one in declared(FlowsSettings(silver_cron=CLUSTER_SILVER_CRON)):
        entry: dict[str, Any] = {
            "name": one.name,
            "entrypoint": f"{one.flow.fn.__module__.replace('.', '/')}.py:{one.flow.fn.__name__}",
            "description": inspect.getdoc(one.flow.fn),
            "work_pool": {"name": CLUSTER_WORK_POOL},
            "concurrency_limit": {"limit": 1, "collision_strategy": one.overlap.value},
        }
        if one.cron is not None:
            entry["schedules"] = [{"cron": one.cron, "timezone": one.timezone, "active": True}]
        deployments.append(entry)
    limits = [f"#   prefect gcl create tag:{table_limit(t)} --limit 1" for t in exclusive_tables(FlowsSettings())]
    return "\n".join(
        [
            "# Deployments for a work pool. Written by just generate; not to be edited. With the place of the",
            "# code on the workers:",
            "#   TICKHOUSE_CODE_DIR=/opt/tickhouse prefect --no-prompt deploy \\",
            "#     --prefect-file deploy/prefect/prefect.yaml --all",
            "# One run at a time for each table it writes needs these limits, once for a server:",
            *limits,
            yaml.safe_dump(
                {"name": "tickhouse", "prefect-version": "3.8.8", "pull": PULL, "deployments": deployments},
                sort_keys=False,
                allow_unicode=True,
                width=115,
            ),
        ]
    )


PULL = [{"prefect.deployments.steps.set_working_directory": {"directory": "{{ $TICKHOUSE_CODE_DIR }}"}}]
"""Of the code in the worker's image; filled in by ``prefect deploy``."""


if __name__ == "__main__":
    sys.stdout.write(prefect_yaml())
