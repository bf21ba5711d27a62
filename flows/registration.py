"""Telling Prefect's server what there is to run.

In: :func:`flows.declared.declared`. Out: a work pool, a deployment for each flow with its schedule, and a
concurrency limit for each table that one step at a time may write. Registering again changes nothing but what
the declarations or the settings changed, and drops runs that were scheduled for the past.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import (
    DeploymentScheduleCreate,
    GlobalConcurrencyLimitCreate,
    WorkPoolCreate,
)
from prefect.client.schemas.objects import ConcurrencyOptions
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectAlreadyExists
from prefect.flows import Flow
from prefect.utilities.callables import parameter_schema

from flows.asset import table_limit
from flows.declared import Declared, declared, exclusive_tables
from flows.settings import FlowsSettings
from flows.worker import InProcessWorker, close_abandoned_runs


@dataclass(frozen=True, slots=True)
class Registered:
    """What Prefect's server now knows."""

    flows: Mapping[str, Flow[..., Any]]
    """Flow name → flow."""
    deployments: Mapping[str, UUID]
    """Flow name → its deployment."""


async def register(settings: FlowsSettings) -> Registered:
    """Register everything and close what an earlier process left running.

    Raises:
        httpx.HTTPError: Prefect's API is not there, or not yet.
    """
    every = declared(settings)
    async with get_client() as client:
        template = InProcessWorker.get_default_base_job_template()
        with contextlib.suppress(ObjectAlreadyExists):  # from an earlier start
            await client.create_work_pool(
                WorkPoolCreate(name=settings.work_pool, type=InProcessWorker.type, base_job_template=template)
            )
        known = {limit.name for limit in await client.read_global_concurrency_limits(limit=200)}
        for name in (f"tag:{table_limit(table)}" for table in exclusive_tables(settings)):
            if name not in known:
                await client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
        deployments = {one.name: await _deploy(client, one, settings.work_pool) for one in every}
        await close_abandoned_runs(client, deployments.values())
    return Registered({one.name: one.flow for one in every}, deployments)


async def _deploy(client: PrefectClient, one: Declared, work_pool: str) -> UUID:
    """Create or replace a deployment, in two requests; Prefect's own ``deploy`` takes seven."""
    schedules = []
    if one.cron is not None:
        schedule = CronSchedule(cron=one.cron, timezone=one.timezone)
        schedules.append(DeploymentScheduleCreate(schedule=schedule, active=True))
    return await client.create_deployment(
        await client.create_flow(one.flow),
        one.name,
        schedules=schedules,
        concurrency_limit=1,
        concurrency_options=ConcurrencyOptions(collision_strategy=one.overlap),
        description=one.flow.description,
        work_pool_name=work_pool,
        entrypoint=f"{one.flow.fn.__module__}:{one.flow.fn.__name__}",
        parameter_openapi_schema=parameter_schema(one.flow).model_dump_for_openapi(),
        enforce_parameter_schema=True,
    )
