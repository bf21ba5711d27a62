"""``just flows``: every flow, its tables in and out, its schedule, its last run and its next.

In: the declarations, and Prefect's API where it answers. Out: text on the terminal. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName, FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from rich.console import Console

from flows.declared import Declared, declared
from flows.settings import FlowsSettings
from lakehouse.tables import TABLES


@dataclass(frozen=True, slots=True)
class Runs:
    """What Prefect knows of a deployment."""

    last: FlowRun | None = None
    """Of those that began, the newest."""
    next: FlowRun | None = None
    """Of those that are scheduled, the first."""


def runs_of(client: SyncPrefectClient, name: str) -> Runs:
    """Last and next run of the deployment ``name``.

    Raises:
        httpx.HTTPError: Prefect is away.
    """
    deployment = DeploymentFilter(name=DeploymentFilterName(any_=[name]))

    def first(run_filter: FlowRunFilter, sort: FlowRunSort) -> FlowRun | None:
        found = client.read_flow_runs(flow_run_filter=run_filter, deployment_filter=deployment, sort=sort, limit=1)
        return found[0] if found else None

    began = FlowRunFilter.model_validate({"start_time": {"is_null_": False}})
    scheduled = FlowRunFilter.model_validate({"state": {"type": {"any_": ["SCHEDULED"]}}})
    return Runs(first(began, FlowRunSort.START_TIME_DESC), first(scheduled, FlowRunSort.EXPECTED_START_TIME_ASC))


def lines_of(every: Sequence[Declared], runs: Mapping[str, Runs], now: datetime) -> list[str]:
    """A line for each flow, and below it one for each of its steps: tables in → tables out."""
    lines = []
    for one in every:
        known = runs.get(one.name, Runs())
        lines += [
            f"{one.name}: {one.schedule}",
            f"    last run: {last_run(known, now)}; next run: {next_run(known, now)}",
            *(f"    {step.name}: {_names(step.reads)} → {_names(step.writes)}" for step in one.assets),
            "",
        ]
    return lines


def last_run(runs: Runs, now: datetime) -> str:
    """For example ``Completed 40 s ago, 0.8 s``."""
    run = runs.last
    if run is None or run.start_time is None:
        return "never"
    name = "" if run.state is None else run.state.name
    took = "" if run.end_time is None else f", {run.total_run_time.total_seconds():.1f} s"
    ago = timedelta(seconds=now.timestamp() - run.start_time.timestamp())
    return f"{name} {duration(ago)} ago{took}"


def next_run(runs: Runs, now: datetime) -> str:
    """For example ``in 20 s``."""
    if runs.next is None or runs.next.expected_start_time is None:
        return "-"
    left = runs.next.expected_start_time.timestamp() - now.timestamp()
    return f"in {duration(timedelta(seconds=max(0.0, left)))}"


def duration(length: timedelta) -> str:
    """In the largest unit that it fills twice."""
    seconds = length.total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _names(tables: Sequence[str]) -> str:
    """``silver.orders, gold.*``: a layer of which all tables are meant is written as one."""
    if set(tables) == set(TABLES):
        return "every table"
    layers: dict[str, list[str]] = {}
    for name in tables:
        layers.setdefault(name.split(".")[0], []).append(name)
    whole = {layer: {name for name in TABLES if name.startswith(f"{layer}.")} for layer in layers}
    return (
        ", ".join(
            f"{layer}.*" if set(names) == whole[layer] else ", ".join(names) for layer, names in layers.items()
        )
        or "-"
    )


def print_flows(settings: FlowsSettings, console: Console) -> None:
    """Print the table; where Prefect does not answer, without the runs."""
    runs: dict[str, Runs] = {}
    every = declared(settings)
    try:
        httpx.get(f"{settings.api_url}/health", timeout=5).raise_for_status()
        with get_client(sync_client=True) as client:
            runs = {one.name: runs_of(client, one.name) for one in every}
    except httpx.HTTPError:
        console.print(f"Prefect does not answer at {settings.api_url}; start everything: just up")
    console.print("\n".join(lines_of(every, runs, datetime.now(UTC))), markup=False, highlight=False)
