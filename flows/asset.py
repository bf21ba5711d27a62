"""What a flow is made of: assets, each a Prefect task that brings tables up to date and says what it did.

In: a plain function of no or few parameters that returns :class:`Outcome` rows. Out: an :class:`Asset`: the
function as a task with its layer's retries and time limit, one run at a time for each table it writes, and what
it reads and writes, so that what is printed about the flows is what runs. ``task.fn`` is the plain function.

On a crash, a timeout or a cancellation: steps commit atomically and carry how far they read in the same commit, so
the tables are as the last commit left them and the next run goes on there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from prefect import Task, runtime, task
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.tasks import exponential_backoff

from flows.session import lake_session
from flows.settings import FlowsSettings
from lakehouse.quality.gate import TABLE as CHECK_RESULTS
from lakehouse.quality.gate import ContractViolationError, contracts_passed


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step did to a table: a line of the run's report."""

    table: str
    rows_in: int | None = None
    rows_out: int | None = None
    snapshot_id: int | None = None
    """Head of the table afterwards; for a step that only reads, the snapshot that was read."""
    note: str = ""


Step = Callable[..., Any]
"""Returns Outcome rows for the report, apart from the pieces of a backfill."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How often a step of a layer is tried again, and how long it may take."""

    retries: int
    first_delay_s: int
    """Doubles with every retry, and is drawn out by up to half, so that steps do not come back together."""
    timeout_s: int
    exclusive: bool = True
    """No two steps that write the same table run at once: the second commit would be refused and computed anew."""


POLICIES = {
    "bronze": Policy(2, 2, 60),
    "silver": Policy(3, 5, 300),
    "gold": Policy(2, 5, 300),
    "dimensions": Policy(2, 10, 120),
    "quality": Policy(1, 10, 600, exclusive=False),
    "governance": Policy(2, 30, 1800),
    "maintenance": Policy(1, 60, 3600, exclusive=False),
    "backfill": Policy(2, 10, 3600),
}
"""A micro-batch comes back every minute anyway, so its retries bridge seconds; the rest runs rarely. Upkeep is
made to run beside the writers of a table."""
NOT_MENDED_BY_TRYING = (ContractViolationError, ValueError, TypeError, KeyError)
"""Errors of the data, of a parameter or of the code: the same again at the next try."""


@dataclass(frozen=True, slots=True)
class Asset:
    """A step as a task."""

    name: str
    layer: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    task: Task[..., Any]

    def run(self, **parameters: Any) -> State[Any]:
        """Run the task; a failure is in the state, so that the flow's other steps run all the same."""
        state: State[Any] = self.task(**parameters, return_state=True)
        return state


def asset(
    name: str, *, layer: str, reads: Sequence[str] = (), writes: Sequence[str] = ()
) -> Callable[[Step], Asset]:
    """Make a function an asset. ``reads`` and ``writes`` are full names of tables, or a layer as ``bronze.*``."""
    policy = POLICIES[layer]

    def decorate(step: Step) -> Asset:
        return Asset(
            name,
            layer,
            tuple(reads),
            tuple(writes),
            task(
                name=name,
                tags={table_limit(table) for table in writes} if policy.exclusive else None,
                retries=policy.retries,
                retry_delay_seconds=exponential_backoff(policy.first_delay_s),
                retry_jitter_factor=0.5,
                retry_condition_fn=worth_retrying,
                timeout_seconds=policy.timeout_s,
                persist_result=False,
            )(step),
        )

    return decorate


def table_limit(table: str) -> str:
    """Tag of the tasks that write ``table``; the concurrency limit of that name lets one of them run at a time."""
    return f"table:{table}"


def worth_retrying(_task: object, _run: object, state: State[Any]) -> bool:
    """Whether the failure may be gone at the next try."""
    error = state.result(raise_on_failure=False)
    return not isinstance(error, NOT_MENDED_BY_TRYING)


def report(states: Sequence[State[Any]]) -> list[State[Any]]:
    """Publish what the steps did; returns ``states``, which as a flow's return value decide its state."""
    publish_outcomes([outcome for state in states if state.is_completed() for outcome in state.result()])
    return list(states)


def publish_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Leave them in Prefect's interface: a table with the state of each table's contract, a link to the live
    page."""
    if outcomes and runtime.flow_run.id is not None:
        create_table_artifact(
            key=str(runtime.flow_run.flow_name),
            table=artifact_rows(outcomes, contracts_passed(lake_session().catalog.load_table(CHECK_RESULTS))),
            description=f"[Live page]({FlowsSettings().live_page})",
        )


def artifact_rows(outcomes: Sequence[Outcome], contracts: Mapping[str, bool]) -> list[dict[str, str]]:
    """Rows of the artifact: text, because JavaScript would round a snapshot's id."""
    words = {None: "no contract", True: "passed", False: "FAILED"}
    return [
        {name: "" if value is None else str(value) for name, value in asdict(outcome).items()}
        | {"quality": words[contracts.get(outcome.table)]}
        for outcome in outcomes
    ]
