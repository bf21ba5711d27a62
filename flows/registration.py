"""Telling Prefect's server what there is to run.

In: :class:`~flows.settings.FlowsSettings`. Out: a work pool, and the deployments ``silver/silver`` (on its
schedule) and ``gold/gold`` (without one: every successful ``silver`` sets it going). Registering again
changes nothing but what the settings changed, and drops runs that were scheduled for the past.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.exceptions import ObjectAlreadyExists
from prefect.flows import Flow
from prefect.schedules import Cron, Schedule
from prefect.types.entrypoint import EntrypointType

from flows.gold import gold
from flows.settings import FlowsSettings
from flows.silver import silver
from flows.worker import InProcessWorker, close_abandoned_runs

ONE_AT_A_TIME = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)


@dataclass(frozen=True, slots=True)
class Registered:
    """What Prefect's server now knows."""

    flows: Mapping[str, Flow[..., Any]]
    """Flow name → flow."""
    deployments: tuple[UUID, ...]


async def register(settings: FlowsSettings) -> Registered:
    """Register everything and close what an earlier process left running.

    Raises:
        httpx.HTTPError: Prefect's API is not there, or not yet.
    """
    known: tuple[tuple[Flow[..., Any], Schedule | None], ...] = (
        (silver, Cron(settings.silver_cron, timezone="UTC")),
        (gold, None),
    )
    flows: dict[str, Flow[..., Any]] = {}
    async with get_client() as client:
        template = InProcessWorker.get_default_base_job_template()
        with contextlib.suppress(ObjectAlreadyExists):  # from an earlier start
            await client.create_work_pool(
                WorkPoolCreate(name=settings.work_pool, type=InProcessWorker.type, base_job_template=template)
            )
        deployments = []
        for plain, schedule in known:
            flow = plain.with_options(timeout_seconds=settings.flow_timeout_seconds)
            flows[flow.name] = flow
            deployment = await flow.ato_deployment(
                flow.name,
                schedule=schedule,
                concurrency_limit=ONE_AT_A_TIME,
                work_pool_name=settings.work_pool,
                entrypoint_type=EntrypointType.MODULE_PATH,
                description=flow.description,
            )
            deployments.append(await deployment.aapply())
        await close_abandoned_runs(client, deployments)
    return Registered(flows, tuple(deployments))
