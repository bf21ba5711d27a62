"""``python -m flows.deployments``: the batch side as one process.

It creates the tables that are missing and seeds the dimensions, waits for Prefect's API, registers every flow of
:mod:`flows.declared`, runs their due runs in this process, follows the tables' heads for metrics, and asks for the
runs that their state calls for (:mod:`flows.triggers`).

A deployment runs once at a time; of a micro-batch, a run that comes due meanwhile is cancelled, so that a slow
minute does not pile up.

On a crash: start it again. Runs it left behind are closed, and the flows go on where the tables' last commits
stand. On SIGTERM or SIGINT it takes no new run, lets a running one finish, and ends.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import queue
import signal
import ssl
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from httpx import HTTPError
from prometheus_client import Gauge, start_http_server

from flows.settings import FlowsSettings, apply_environment
from flows.table_metrics import TableMetrics
from lakehouse.batch import BatchSession
from lakehouse.dimensions.step import seed_dimensions
from lakehouse.quality.contract import load_soda
from lakehouse.quality.gate import ContractViolationError
from lakehouse.tables import create_tables

if TYPE_CHECKING:
    from flows.registration import Registered
    from flows.triggers import Triggers
    from flows.worker import InProcessWorker

log = logging.getLogger("flows")

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 10.0
CANCEL_POLL_S = 2.0
ABANDONED_GRACE = timedelta(seconds=30)
"""A run in nobody's hands for so long is closed, and its deployment free again."""

T = TypeVar("T")


def main() -> int:
    settings = FlowsSettings()
    apply_environment(settings)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each of Prefect's polls
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    ready = Gauge("tickhouse_service_ready", "1: connected and working.")
    load_soda()
    read_certificates_once()
    start_http_server(settings.flows_metrics_port, "127.0.0.1")
    session = with_backoff("lakehouse", _open_lakehouse, stop)
    if session is None:
        return 0
    triggers: queue.SimpleQueue[Triggers] = queue.SimpleQueue()
    poller = threading.Thread(target=_poll_tables, args=(session, settings, triggers, stop), name="table-metrics")
    poller.start()
    try:
        asyncio.run(_serve(settings, ready, triggers, stop))
    finally:
        stop.set()
        poller.join()
    return 0


def read_certificates_once() -> None:
    """Have clients that trust the same file of certificates share what was read of it.

    Prefect makes a client for each step's lease, and each reads the file, also for an address without TLS: most of
    what Prefect costs this process in a micro-batch.
    """
    read = ssl.create_default_context
    read_file = functools.cache(lambda cafile: read(cafile=cafile))

    def shared(*args: Any, **options: Any) -> ssl.SSLContext:
        return read_file(**options) if not args and options.keys() == {"cafile"} else read(*args, **options)

    ssl.create_default_context = shared


def with_backoff(name: str, attempt: Callable[[], T], stop: threading.Event) -> T | None:
    """Call ``attempt`` until it succeeds, with a growing pause; None when ``stop`` is set first."""
    pause = FIRST_WAIT_S
    while not stop.is_set():
        try:
            return attempt()
        except Exception as error:  # noqa: BLE001 - whatever a dependency that is away raises
            log.warning(
                "%s is not there yet (%s: %s), next try in %.1f s", name, type(error).__name__, error, pause
            )
        stop.wait(pause)
        pause = min(LONGEST_WAIT_S, pause * 2)
    return None


def _open_lakehouse() -> BatchSession:
    """The session that the flows use, with every table there and the dimensions seeded.

    A faulty reference file stops nothing: its dimension stays as it was until the file is mended.
    """
    from flows.session import lake_session

    session = lake_session()
    create_tables(session.catalog)
    try:
        seed_dimensions(session)
    except (ContractViolationError, ValueError) as error:
        log.error("not all dimensions are in line with their files: %s; then: just lake seed", error)
    return session


def _poll_tables(
    session: BatchSession, settings: FlowsSettings, registered: queue.SimpleQueue[Triggers], stop: threading.Event
) -> None:
    """Follow the heads; once the deployments are registered, ask for the runs that they call for."""
    metrics = TableMetrics(session.catalog, manifests=session.manifests)
    triggers: Triggers | None = None
    while not stop.is_set():
        try:
            metrics.poll()
            triggers = registered.get_nowait() if triggers is None and not registered.empty() else triggers
            if triggers is not None:
                triggers.look(metrics.heads, session.clock().timestamp())
        except HTTPError as error:
            log.warning("Prefect is away, triggers are looked at again in a moment: %s", error)
        except Exception as error:  # noqa: BLE001 - the catalog may be away; the gauges then stand still
            log.warning("table metrics not read: %s: %s", type(error).__name__, error)
        stop.wait(settings.table_poll_seconds)


async def _serve(
    settings: FlowsSettings, ready: Gauge, triggers: queue.SimpleQueue[Triggers], stop: threading.Event
) -> None:
    """Register the deployments and work until ``stop`` is set."""
    # Imported here: Prefect reads its environment when it is imported, and takes seconds to.
    from flows.registration import register
    from flows.triggers import Triggers
    from flows.worker import InProcessWorker

    pause = FIRST_WAIT_S
    while True:
        try:
            registered = await register(settings)
            break
        except HTTPError as error:
            log.warning("Prefect at %s is not there yet (%s), next try in %.1f s", settings.api_url, error, pause)
        if await asyncio.to_thread(stop.wait, pause):
            return
        pause = min(LONGEST_WAIT_S, pause * 2)
    gc.collect()
    gc.freeze()  # what was imported stays: looking through it again takes a tenth of a second, once a micro-batch
    triggers.put(Triggers(registered.deployments, settings))
    worker = InProcessWorker(settings.work_pool, registered.flows, name="tickhouse", prefetch_seconds=1)
    tasks = {
        asyncio.create_task(worker.start(printer=log.info)),
        asyncio.create_task(_cancel_wanted(worker)),
        asyncio.create_task(_close_abandoned(worker, registered)),
        asyncio.create_task(asyncio.to_thread(stop.wait)),
    }
    ready.set(1)
    log.info(
        "%d flows registered, silver at %r; %s", len(registered.flows), settings.silver_cron, settings.api_url
    )
    ended, going_on = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    ready.set(0)
    stop.set()
    for task in going_on:
        task.cancel()
    await asyncio.gather(*going_on, return_exceptions=True)
    for task in ended:
        task.result()  # raises what ended it before its time: the supervisor starts the process again


async def _cancel_wanted(worker: InProcessWorker) -> None:
    """Asks Prefect only while a run is going on."""
    while True:
        await asyncio.sleep(CANCEL_POLL_S)
        try:
            await worker.cancel_wanted()
        except HTTPError as error:
            log.warning("cancelled runs not looked for: %s", error)


async def _close_abandoned(worker: InProcessWorker, registered: Registered) -> None:
    from prefect.client.orchestration import get_client

    from flows.worker import close_abandoned_runs

    while True:
        await asyncio.sleep(ABANDONED_GRACE.total_seconds())
        try:
            async with get_client() as client:
                await close_abandoned_runs(
                    client, registered.deployments.values(), worker.going_on, ABANDONED_GRACE
                )
        except HTTPError as error:
            log.warning("abandoned runs not looked for: %s", error)


if __name__ == "__main__":
    sys.exit(main())
