"""A Prefect worker that runs flows inside its own process.

In: due runs of a work pool. Out: the runs' states, reported to Prefect's API by the flow engine itself.

Prefect's own process worker starts a Python for every run. Silver and gold run every minute for half a second
each, and would spend ten times that on importing Prefect, pyiceberg, DuckDB and Soda. Here the imports, the
catalog and DuckDB stay. The price: a run cannot be killed on its own. One that is cancelled has an exception
raised in its thread, which arrives when the C code that it may be in returns; as at a crash, the tables are as
the last commit left them.

On a crash: runs that were going on stay "Running" in Prefect's database. :func:`close_abandoned_runs` ends
them at the next start, so that they do not hold their deployment's only slot.
"""

from __future__ import annotations

import ctypes
import logging
import threading
import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import anyio.abc
import anyio.to_thread
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.flow_engine import run_flow
from prefect.flows import Flow
from prefect.states import Cancelled, Crashed
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult
from prometheus_client import Counter, Histogram

from lakehouse.memory import give_back

log = logging.getLogger(__name__)


RUNS = Counter("tickhouse_flow_runs_total", "Runs of a flow, by the state they ended in.", ["flow", "state"])
SECONDS = Histogram(
    "tickhouse_flow_run_seconds",
    "Duration of a run of a flow.",
    ["flow"],
    buckets=(0.5, 1, 2, 5, 10, 30, 60, 300, 1800),
)


class NotTimeouts(logging.Filter):
    """Prefect warns of every limited step in a thread that the limit waits for C code to return; our docstring
    says so once."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith("Timeout of")


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(NotTimeouts())


class RunCancelledError(BaseException):
    """Raised in the thread of a run that is to be cancelled; no step may take it for an error of its own."""


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
        self._going_on: dict[UUID, int | None] = {}
        """Run → the thread it runs in; None before it has one, and when it is done with it."""
        self._threads = threading.Lock()

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
        self._going_on[flow_run.id] = None
        try:
            await self._run(flow_run.id, task_status)
        finally:
            del self._going_on[flow_run.id]
        return InProcessResult(identifier=str(flow_run.id), status_code=0)

    async def cancel_wanted(self) -> int:
        """Stop the runs of this process that somebody has cancelled; returns how many.

        Raises:
            httpx.HTTPError: Prefect is away.
        """
        mine = [run for run, thread in self._going_on.items() if thread is not None]
        if not mine:
            return 0
        wanted = FlowRunFilter(
            id=FlowRunFilterId(any_=mine),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.CANCELLING])),
        )
        cancelled = await self.client.read_flow_runs(flow_run_filter=wanted)
        for run in cancelled:
            with self._threads:  # the thread cannot go over to another run meanwhile
                thread = self._going_on.get(run.id)
                if thread is not None:
                    log.info("run %s is being cancelled", run.name)
                    raise_in_thread(thread, RunCancelledError)
        return len(cancelled)

    async def _run(self, run_id: UUID, task_status: anyio.abc.TaskStatus[int] | None) -> None:
        # Read again: the run that was polled does not know yet which concurrency slot it has been given.
        current = await self.client.read_flow_run(run_id)
        name = (await self.client.read_flow(current.flow_id)).name
        chosen = self._flows[name]
        if task_status is not None:
            task_status.started(1)
        began = time.monotonic()
        state = await anyio.to_thread.run_sync(self._run_in_thread, chosen, current)
        if state is None:
            state = Cancelled(message="Stopped; the tables are as the last commit left them.")
            await self.client.set_flow_run_state(run_id, state, force=True)
        await anyio.to_thread.run_sync(give_back)
        RUNS.labels(name, state.type.value.lower()).inc()
        SECONDS.labels(name).observe(time.monotonic() - began)

    def _run_in_thread(self, chosen: Flow[..., Any], current: FlowRun) -> State[Any] | None:
        """The state that the run ended in; None where it was cancelled."""
        try:
            self._going_on[current.id] = threading.get_ident()
            try:
                state: State[Any] = run_flow(chosen, flow_run=current, return_type="state")  # type: ignore[assignment]
            finally:
                with self._threads:
                    self._going_on[current.id] = None
        except RunCancelledError:
            return None
        return state


def raise_in_thread(thread: int, error: type[BaseException]) -> None:
    """Have ``error`` raised in another thread, as soon as that runs Python again."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))


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
