"""A Prefect worker that runs flows inside its own process.

In: due runs of a work pool. Out: the runs' states, reported to Prefect's API by the flow engine itself.

Prefect's own process worker starts a Python for every run. Silver and gold run every minute for half a second
each, and would spend ten times that on importing Prefect, pyiceberg, DuckDB and Soda. Here the imports, the
catalog and DuckDB stay. The price: a run cannot be killed on its own, only the process can; flows have a
timeout instead.

On a crash: runs that were going on stay "Running" in Prefect's database. :func:`close_abandoned_runs` ends
them at the next start, so that they do not hold their deployment's only slot.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import anyio.abc
import anyio.to_thread
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.flow_engine import run_flow
from prefect.flows import Flow
from prefect.states import Crashed
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult

log = logging.getLogger(__name__)


class InProcessResult(BaseWorkerResult):
    """The engine has reported the run's own state; a status other than 0 would override it."""


class InProcessWorker(BaseWorker[BaseJobConfiguration, BaseVariables, InProcessResult]):
    """Runs the flows it is given, by name, each in a thread."""

    type = "in-process"
    _description = "Runs flows inside the worker's process."

    def __init__(self, work_pool_name: str, flows: Mapping[str, Flow[..., Any]], **options: Any) -> None:
        """
        Args:
            flows: flow name → flow.
            options: see :class:`~prefect.workers.base.BaseWorker`.
        """
        super().__init__(work_pool_name, **options)
        self._flows = flows
        self._going_on: set[UUID] = set()

    @property
    def going_on(self) -> frozenset[UUID]:
        """Runs this process works on."""
        return frozenset(self._going_on)

    async def run(
        self,
        flow_run: FlowRun,
        configuration: BaseJobConfiguration,  # noqa: ARG002
        task_status: anyio.abc.TaskStatus[int] | None = None,
    ) -> InProcessResult:
        """Run ``flow_run`` to its end.

        Raises:
            KeyError: the run is of a flow that this process does not have; Prefect reports the run as
            crashed.
        """
        self._going_on.add(flow_run.id)
        try:
            await self._run(flow_run.id, task_status)
        finally:
            self._going_on.discard(flow_run.id)
        return InProcessResult(identifier=str(flow_run.id), status_code=0)

    async def _run(self, run_id: UUID, task_status: anyio.abc.TaskStatus[int] | None) -> None:
        # Read again: the run that was polled does not know yet which concurrency slot it has been given.
        current = await self.client.read_flow_run(run_id)
        name = (await self.client.read_flow(current.flow_id)).name
        chosen = self._flows[name]
        if task_status is not None:
            task_status.started(1)
        await anyio.to_thread.run_sync(partial(run_flow, chosen, flow_run=current, return_type="state"))


async def close_abandoned_runs(
    client: PrefectClient,
    deployments: Collection[UUID],
    going_on: Collection[UUID] = (),
    grace: timedelta = timedelta(0),
) -> int:
    """End the runs that nobody works on any more; returns how many.

    A run is left behind by a worker that was killed, or when Prefect's server was away at the moment it
    ended. Only for a work pool with one worker, which knows its own runs.

    Args:
        going_on: runs that this process works on.
        grace: how long a run must have been in its state, so that one that is just being handed over is
        spared.
    """
    unfinished = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
    runs = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=unfinished))),
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=list(deployments))),
    )
    before = datetime.now(UTC) - grace
    abandoned = [
        run for run in runs if run.id not in going_on and run.state is not None and run.state.timestamp <= before
    ]
    for run in abandoned:
        # Forced: the end has to be accepted from any state. It gives the deployment's slot free.
        await client.set_flow_run_state(run.id, Crashed(message="Nobody works on this run any more."), force=True)
        log.warning("run %s of an earlier moment was abandoned and is closed", run.name)
    return len(abandoned)
