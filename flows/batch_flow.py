"""The decorator of every flow here: named, limited in time, and heard of when it fails."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from typing import Any, ParamSpec, TypeVar

from prefect import Flow, flow, runtime

from flows.alert import alert_failure
from lakehouse.batch import utc_now

P = ParamSpec("P")
R = TypeVar("R")


def batch_flow(name: str, timeout_s: int, **options: Any) -> Callable[[Callable[P, R]], Flow[P, R]]:
    """Make a function a flow called ``name``. Its parameters are validated by their types before it runs."""

    def decorate(function: Callable[P, R]) -> Flow[P, R]:
        made: Flow[P, R] = flow(
            name=name,
            timeout_seconds=timeout_s,
            on_failure=[alert_failure],
            on_crashed=[alert_failure],
            persist_result=False,
            **options,
        )(function)
        return made

    return decorate


def due_date() -> date:
    """UTC date at which this run was due: a run that comes late still means its own day."""
    due = runtime.flow_run.scheduled_start_time
    return due.date() if isinstance(due, datetime) else utc_now().date()
