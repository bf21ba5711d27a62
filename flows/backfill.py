"""Past days anew: ``just backfill``, and the flows ``backfill`` and ``recompute`` (the previous month, monthly).

In: a range of UTC days and tables of :data:`lakehouse.rebuild.REBUILDABLE`. Out: these days of the tables, and
what follows from them, computed from bronze. On a crash, a failure or a cancellation: the pieces that are done
stay done, and the same backfill goes on with the others (see :mod:`flows.pieces`).

``python -m flows.backfill 2026-03-01..2026-03-31 [--tables …]`` works in this process, with Prefect or without it
running. As a flow the pieces are tasks: threads of the worker, or a Dask cluster (``TICKHOUSE_TASK_RUNNER``).
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from typing import Annotated, Any, cast
from uuid import UUID

from prefect import runtime
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from pydantic import AfterValidator, Field
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from flows.asset import Outcome, asset, publish_outcomes, table_limit
from flows.batch_flow import batch_flow, due_date
from flows.pieces import Future, Journal, journalled, work_off
from flows.session import lake_session
from flows.settings import FlowsSettings
from lakehouse.batch import BatchSession
from lakehouse.catalog import CatalogUnavailableError
from lakehouse.quality.contract import load_soda
from lakehouse.quality.gate import ContractViolationError
from lakehouse.rebuild import REBUILDABLE, Piece, days_between, plan, rules, run
from lakehouse.settings import LakehouseSettings

LONGEST_DAYS = 3660
"""Ten years: a typing error in a date does not become a list of a million days."""

Submit = Callable[[Piece], Future]


def parse_days(text: str) -> tuple[date, date]:
    """``2026-03-01..2026-03-31``, both counted in; a single day stands for itself.

    Raises:
        ValueError: it is no such range, it ends before it begins, or it is longer than ten years.
    """
    first_text, dots, last_text = text.partition("..")
    try:
        first = date.fromisoformat(first_text)
        last = date.fromisoformat(last_text) if dots else first
    except ValueError as error:
        raise ValueError(f"{text} is no range of days; write it as 2026-03-01..2026-03-31") from error
    if not 0 <= (last - first).days < LONGEST_DAYS:
        raise ValueError(f"{text} has to begin before it ends, and to span ten years at most")
    return first, last


def month_before(day: date) -> tuple[date, date]:
    """First and last day of the month before the one that ``day`` is in."""
    last = day.replace(day=1) - timedelta(days=1)
    return last.replace(day=1), last


def backfill_days(
    session: BatchSession,
    first: date,
    last: date,
    tables: Collection[str],
    submit: Submit,
    at_once: int,
    tell: Callable[[int, int], None],
) -> dict[str, int]:
    """Compute the days anew, going on where an earlier attempt was cut off; table → rows written now.

    Args:
        submit: runs a piece somewhere; its result is what :func:`lakehouse.rebuild.run` returns.
        at_once: pieces that run at the same time.
        tell: called with the pieces done, earlier attempts' among them, and all there are.

    Raises:
        ValueError: a table that cannot be rebuilt; nothing was done.
        Exception: what a piece raised; the others are named in the journal.
    """
    pieces = plan(session, days_between(first, last), tables)
    journal = Journal.of(session.settings.data_dir / "backfills", first, last, tables, rules())
    written: dict[str, int] = {}
    with journalled(journal, pieces) as left:
        count = len(pieces) - len(left)
        tell(count, len(pieces))

        def done(piece: Piece, rows: dict[str, int]) -> None:
            nonlocal count
            for table, number in rows.items():
                written[table] = written.get(table, 0) + number
            journal.add(piece)
            count += 1
            tell(count, len(pieces))

        work_off(left, submit, at_once, done)
    return written


# --- as flows


@asset(
    "backfill.piece", layer="backfill", reads=("bronze.*", "silver.trades", "silver.quotes"), writes=REBUILDABLE
)
def rebuild_piece(piece: Piece) -> dict[str, int]:
    """Compute a piece anew."""
    return run(lake_session(), piece)


BACKFILL = (rebuild_piece,)


def task_runner(settings: FlowsSettings) -> TaskRunner[Any]:
    """Where pieces run as tasks.

    Raises:
        ImportError: Dask was asked for and is not installed: ``uv sync --group dask``.
    """
    if settings.task_runner == "threads":
        return ThreadPoolTaskRunner(max_workers=settings.backfill_workers)
    from prefect_dask.task_runners import DaskTaskRunner

    local = {"n_workers": settings.backfill_workers, "threads_per_worker": 1, "dashboard_address": None}
    where = {"cluster_kwargs": local} if settings.dask_address is None else {"address": settings.dask_address}
    runner: TaskRunner[Any] = DaskTaskRunner(**where)
    return runner


def _as_tasks(first: date, last: date, tables: Collection[str]) -> None:
    artifact = None if runtime.flow_run.id is None else cast("UUID", create_progress_artifact(0.0, key="backfill"))

    def tell(done: int, total: int) -> None:
        if artifact is not None:
            update_progress_artifact(artifact, progress=100 * done / max(1, total))

    def submit(piece: Piece) -> Future:
        tags = {table_limit(table) for table in piece.tables}  # not of all the tables that a piece may write
        return rebuild_piece.task.with_options(tags=tags, task_run_name=str(piece)).submit(piece)

    session, at_once = lake_session(), FlowsSettings().backfill_workers
    written = backfill_days(session, first, last, tables, submit, at_once, tell)
    load = session.catalog.load_table
    publish_outcomes(
        [
            Outcome(name, None, rows, load(name).metadata.current_snapshot_id, f"{first}..{last}")
            for name, rows in written.items()
        ]
    )


def _valid_days(text: str) -> str:
    parse_days(text)
    return text


Days = Annotated[str, AfterValidator(_valid_days)]
BACKFILL_TIMEOUT_S = 24 * 3600


@batch_flow("backfill", BACKFILL_TIMEOUT_S, task_runner=task_runner(FlowsSettings()))
def backfill(days: Days, tables: Annotated[tuple[str, ...], Field(min_length=1)] = REBUILDABLE) -> None:
    """Compute ``days``, as 2026-03-01..2026-03-31, of ``tables`` anew."""
    _as_tasks(*parse_days(days), tables)


@batch_flow("recompute", BACKFILL_TIMEOUT_S, task_runner=task_runner(FlowsSettings()))
def recompute(month: date | None = None) -> None:
    """Compute the month that ``month`` is in anew; None: the one before this run was due."""
    first, last = month_before(due_date() if month is None else month.replace(day=28) + timedelta(days=4))
    _as_tasks(first, last, REBUILDABLE)


# --- from the command line


def main() -> int:
    parser = argparse.ArgumentParser(prog="just backfill", description="Compute past days anew, from bronze up.")
    parser.add_argument("days", help="2026-03-01..2026-03-31, both counted in; or a single day")
    parser.add_argument("--tables", nargs="+", default=REBUILDABLE, metavar="TABLE", help="default: all")
    parser.add_argument("--workers", type=int, default=FlowsSettings().backfill_workers, help="pieces at once")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    console = Console()
    try:
        first, last = parse_days(arguments.days)
        written = _with_progress(first, last, arguments.tables, max(1, arguments.workers), console)
    except (ValueError, CatalogUnavailableError, ContractViolationError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped; the same command goes on where it was.", file=sys.stderr)
        return 130
    for table, rows in written.items():
        console.print(f"{table}: {rows:,} rows")
    if not written:
        console.print(f"Nothing left to do: there is nothing more of {arguments.days} to compute from.")
    return 0


def _with_progress(
    first: date, last: date, tables: Collection[str], at_once: int, console: Console
) -> dict[str, int]:
    session = BatchSession.open(LakehouseSettings())
    load_soda()  # before there are threads
    bar = Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=console)
    with session.connection, ThreadPoolExecutor(at_once) as pool, bar:
        task = bar.add_task(f"{first}..{last}", total=None)
        return backfill_days(
            session,
            first,
            last,
            tables,
            lambda piece: pool.submit(run, session, piece),
            at_once,
            lambda done, total: bar.update(task, completed=done, total=total),
        )


if __name__ == "__main__":
    sys.exit(main())
