"""What sets flows going beside their schedules: rows of bronze left unread, many commits, a layer gone stale.

In: the tables' heads and the time, from the poll that feeds the metrics. Out: runs of ``silver``,
``maintenance-hourly`` and ``quality``. Each has an idempotency key made of the state that it answers, so that the
same state asks for one run, however often and by however many processes it is seen. On a crash: the next poll sees
the same state and asks with the same key.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.registry import REGISTRY

from flows.settings import FlowsSettings
from flows.table_metrics import Head
from lakehouse.silver.events import STEPS

log = logging.getLogger("flows.triggers")

UPKEEP = "maintenance-hourly"
COMMITS_BETWEEN_UPKEEP = 60
"""A minute of a stream. With fewer than about a hundred, files and metadata stay as they were at the start."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run that should be."""

    flow: str
    key: str
    parameters: dict[str, Any] = field(default_factory=dict)


def silver_wanted(heads: Mapping[str, Head], now: float, patience_s: float) -> Wanted | None:
    """A run of silver for rows of bronze that came after silver's last commit, ``patience_s`` after that or
    later."""
    bronze = _newest(heads, (step.source for step in STEPS.values()))
    silver = _newest(heads, STEPS)
    if bronze.committed_at <= silver.committed_at or now - silver.committed_at < patience_s:
        return None
    return Wanted("silver", f"bronze after silver@{silver.snapshot_id}")


def upkeep_wanted(heads: Mapping[str, Head], upkept: Mapping[str, int]) -> Wanted | None:
    """A run of upkeep when a table was committed to often since the last one; ``upkept`` are the commits then."""
    due = {
        name: head.commits
        for name, head in heads.items()
        if head.commits - upkept.get(name, 0) >= COMMITS_BETWEEN_UPKEEP
    }
    if not due:
        return None
    return Wanted(UPKEEP, " ".join(f"{name}@{commits}" for name, commits in sorted(due.items())))


def stale_layers(heads: Mapping[str, Head], now: float, greatest_age_s: Mapping[str, float]) -> dict[str, float]:
    """Layer whose newest event is older than it may be → its age, seconds. A layer without events is not stale."""
    newest = {
        layer: max((head.last_event for name, head in heads.items() if name.startswith(f"{layer}.")), default=0.0)
        for layer in greatest_age_s
    }
    return {layer: now - at for layer, at in newest.items() if at and now - at > greatest_age_s[layer]}


def quality_wanted(layer: str, age_s: float, greatest_age_s: float, now: float) -> Wanted:
    """A run of quality for a layer that is stale, once an hour, which sends the reason as an alert."""
    hour = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H")
    reason = f"{layer} is not fresh: its newest event is {age_s:.0f} s old, more than {greatest_age_s:.0f} s"
    return Wanted("quality", f"freshness of {layer} at {hour}", {"layers": [layer], "reason": reason})


class Triggers:
    """Looks at heads and asks Prefect for the runs that should be."""

    def __init__(
        self, deployments: Mapping[str, UUID], settings: FlowsSettings, registry: CollectorRegistry = REGISTRY
    ) -> None:
        self._deployments = deployments
        self._settings = settings
        self._asked: dict[str, str] = {}
        self._upkept: dict[str, int] = {}
        self._stale = Gauge(
            "tickhouse_freshness_broken",
            "1: the layer's newest event is older than it may be.",
            ["layer"],
            registry=registry,
        )

    def look(self, heads: Mapping[str, Head], now: float) -> list[Wanted]:
        """Ask for what is wanted and was not asked for yet; returns that.

        Raises:
            httpx.HTTPError: Prefect is away; the next look asks again.
        """
        limits = self._settings.freshness_seconds
        stale = stale_layers(heads, now, limits)
        for layer in limits:
            self._stale.labels(layer).set(layer in stale)
        wanted = [quality_wanted(layer, age, limits[layer], now) for layer, age in stale.items()]
        silver = silver_wanted(heads, now, self._settings.silver_patience_seconds)
        upkeep = upkeep_wanted(heads, self._upkept)
        wanted += [run for run in (silver, upkeep) if run is not None]
        new = [run for run in wanted if self._asked.get(_subject(run)) != run.key]
        for run in new:
            ask_for(self._deployments[run.flow], run)
            self._asked[_subject(run)] = run.key
            if run.flow == UPKEEP:
                self._upkept = {name: head.commits for name, head in heads.items()}
            log.info("asked for a run of %s: %s", run.flow, run.key)
        return new


def ask_for(deployment: UUID, run: Wanted) -> UUID:
    """The run of this key, made now or earlier.

    Raises:
        httpx.HTTPError: Prefect is away.
    """
    with get_client(sync_client=True) as client:
        return client.create_flow_run_from_deployment(
            deployment, parameters=run.parameters, idempotency_key=run.key
        ).id


def _newest(heads: Mapping[str, Head], names: Iterable[str]) -> Head:
    """The head that was committed last."""
    return max((heads.get(name, Head()) for name in names), key=lambda head: head.committed_at)


def _subject(run: Wanted) -> str:
    return " ".join((run.flow, *run.parameters.get("layers", ())))
