"""How each service is: supervisord's state, readiness, age of the last event, lag; as a table or as JSON."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from rich.table import Table

from deploy.local import probes
from deploy.local.services import Service
from deploy.local.supervision import Process, Supervisor


@dataclass(frozen=True)
class Health:
    """One row of the status."""

    name: str
    state: str
    ready: bool
    pid: int
    uptime_seconds: int
    last_event_age_seconds: float | None
    """Wall clock minus the event time of the newest event handled; None where it handles none."""
    lag_messages: int | None
    """Messages in its topics that it has not read; None where it reads none."""


def read(supervisor: Supervisor, listed: Iterable[Service], now: float | None = None) -> list[Health]:
    """Ask every service at once. `now` is Unix time, the clock's when None."""
    processes = supervisor.processes()
    services = list(listed)
    with ThreadPoolExecutor(max_workers=max(1, len(services))) as pool:
        return list(
            pool.map(lambda s: _health(s, processes.get(s.name), time.time() if now is None else now), services)
        )


def _health(service: Service, process: Process | None, now: float) -> Health:
    if process is None or not process.pid:
        return Health(service.name, process.state if process else "STOPPED", False, 0, 0, None, None)
    ready = service.ready()
    metrics = probes.scrape(service.metrics_port) if service.metrics_port else None
    newest = metrics.newest("tickhouse_service_last_event_timestamp_seconds") if metrics else None
    lag = metrics.total("tickhouse_flow_lag_messages") if metrics else None
    return Health(
        service.name,
        process.state,
        ready,
        process.pid,
        process.uptime,
        round(now - newest, 3) if newest else None,
        None if lag is None else int(lag),
    )


def as_json(rows: Iterable[Health]) -> list[dict[str, object]]:
    """Rows as plain objects."""
    return [asdict(row) for row in rows]


def table(rows: Iterable[Health]) -> Table:
    """Rows for a terminal."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("service")
    shown.add_column("state")
    shown.add_column("ready")
    for title in ("up", "last event", "lag", "pid"):
        shown.add_column(title, justify="right")
    for row in rows:
        colour = "green" if row.ready else "red"
        shown.add_row(
            row.name,
            row.state.lower(),
            f"[{colour}]{'yes' if row.ready else 'no'}[/]",
            _duration(row.uptime_seconds) if row.pid else "-",
            "-"
            if row.last_event_age_seconds is None
            else f"{_duration(max(0.0, row.last_event_age_seconds))} ago",
            "-" if row.lag_messages is None else f"{row.lag_messages:,}",
            str(row.pid or "-"),
        )
    return shown


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{max(0.0, seconds):.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 86_400 else f"{seconds / 86_400:.0f} d"
