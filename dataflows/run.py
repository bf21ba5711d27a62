"""Running a flow as a service: metrics, recovery store, topics, and a clean stop.

In: a function that builds the flow. Out: the process's exit. On SIGTERM or Ctrl-C the sources end, Bytewax takes
a last snapshot, and the process exits with 0. On a crash the flow resumes from ``<data_dir>/recovery/<flow>``,
at most about one epoch (1 s) back. A second process of a flow that runs on the same data would write every row
twice; it is refused.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main

from dataflows.metrics import SERVICE_READY, serve_metrics
from dataflows.settings import StreamSettings
from dataflows.topics import Stopped, ensure_topics

log = logging.getLogger(__name__)

EPOCH = timedelta(seconds=1)
RECOVERY_PARTITIONS = 1
"""Cannot change between restarts of a flow."""

BuildFlow = Callable[[StreamSettings, threading.Event], Dataflow]
"""(settings, stop) → the flow; its sources end when ``stop`` is set."""


def run(build: BuildFlow, settings: StreamSettings, *, metrics_port: int) -> None:
    """Run a flow until SIGTERM; returns after the last snapshot.

    Raises:
        SystemExit: it runs already.
        OSError: the metrics port is taken, or the recovery store cannot be written.
        Exception: what a step of the flow raised; a supervisor restarts the process.
    """
    log_to_stderr()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    flow = build(settings, stop)
    with only_one(flow.flow_id, recovery_lock(settings, flow.flow_id)):
        serve_metrics(metrics_port)
        try:
            ensure_topics(settings, stop)
            log.info("%s starts", flow.flow_id)
            store = recovery_store(settings.data_dir / "recovery" / flow.flow_id)
            recovery = RecoveryConfig(store)  # type: ignore[no-untyped-call]
            cli_main(flow, epoch_interval=EPOCH, recovery_config=recovery, **cluster())  # type: ignore[no-untyped-call]
        except Stopped:
            pass
        SERVICE_READY.set(0)
        log.info("stopped")


def recovery_lock(settings: StreamSettings, flow: str) -> Path:
    """What the process of a flow holds; each of a cluster's processes its own."""
    return settings.data_dir / "recovery" / f"{flow}.{os.environ.get('BYTEWAX_PROCESS_ID', '0')}.lock"


@contextmanager
def only_one(name: str, lock: Path) -> Iterator[None]:
    """Keep others out for as long as this process works; when it dies, however, the kernel lets the next one in.

    Kafka could fence the older of two by a ``transactional.id``. But then a reader sees a row only when a snapshot
    commits it, up to a second later; and the recovery store, which both would write, is on this machine anyway.

    Raises:
        SystemExit: another holds the lock; the message says which.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise SystemExit(
                f"{name} runs already on {lock.parent} (pid {file.read() or 'unknown'}), and a second one would"
                " write everything twice: stop that one first, or set another TICKHOUSE_DATA_DIR"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def cluster() -> dict[str, Any]:
    """This process's place among those of the flow, from Bytewax's own variables; nothing for a flow by itself."""
    if "BYTEWAX_PROCESS_ID" not in os.environ:
        return {}
    addresses = os.environ["BYTEWAX_ADDRESSES"].split(";")
    return {"process_id": int(os.environ["BYTEWAX_PROCESS_ID"]), "addresses": addresses}


def recovery_store(folder: Path) -> Path:
    """The recovery store at ``folder``, made there in one move if it is new."""
    if not folder.exists():
        draft = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        init_db_dir(draft, RECOVERY_PARTITIONS)  # type: ignore[no-untyped-call]
        draft.rename(folder)
    return folder


def log_to_stderr() -> None:
    """One readable line an entry."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
