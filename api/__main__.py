"""``python -m api``: serve the API until SIGTERM or Ctrl-C.

Two processes: this one listens, supervises and stays small; the worker answers. On SIGTERM the worker ends its
live streams, finishes what it is answering and both exit 0 within a few seconds. When this process is killed
outright, the worker notices and exits too, so that nothing keeps the port.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from granian.constants import Interfaces, Loops
from granian.server.mp import MPServer
from pydantic import ValidationError

from api.settings import ApiSettings

if TYPE_CHECKING:
    from flask import Flask

    from api.live.service import Live

log = logging.getLogger("api")

STOP_SECONDS = 6
"""What a request may still take after SIGTERM, before the worker is killed."""
PARENT_SECONDS = 0.5
"""How often the worker looks whether its parent is alive."""
MAX_BACKOFF_SECONDS = 5.0


def main() -> int:
    """Read the settings, check the address, serve."""
    _log_readably()
    try:
        settings = ApiSettings()
    except ValidationError as error:
        for problem in error.errors():
            name = "TICKHOUSE_" + "_".join(str(part) for part in problem["loc"]).upper() if problem["loc"] else ""
            log.error("wrong setting %s", f"{name}: {problem['msg']}" if name else problem["msg"])
        return 2
    if (trouble := _cannot_listen(settings.api_host, settings.api_port)) is not None:
        log.error("%s", trouble)
        return 1
    server = MPServer(
        "api",
        address=settings.api_host,
        port=settings.api_port,
        interface=Interfaces.WSGI,
        loop=Loops.asyncio,
        websockets=False,
        # Every live stream holds a thread for as long as it is open.
        blocking_threads=settings.api_threads + settings.api_live_streams,
        backpressure=settings.api_threads + settings.api_live_streams,
        workers_kill_timeout=STOP_SECONDS,
        log_enabled=False,
    )
    log.info("the API and the live page are at http://%s:%d", settings.api_host, settings.api_port)
    server.serve(target_loader=partial(_load, settings, os.getpid()), wrap_loader=False)
    log.info("stopped")
    return 0


def _load(settings: ApiSettings, parent: int, *_args: Any, **_kwargs: Any) -> Flask:
    """Build the application; runs in the worker's main thread."""
    # Imported here, so that the parent neither holds this memory nor forks while libraries have threads.
    from api.app import create_app
    from api.live.service import Live

    _log_readably()
    live = Live(settings)
    _watch(parent, live)
    live.start()
    return create_app(settings, _open_lake(settings), live)


def _open_lake(settings: ApiSettings) -> Any:
    from lakehouse.catalog import CatalogUnavailableError
    from lakehouse.query import Lake
    from lakehouse.settings import LakehouseSettings

    backoff = 0.2
    while True:
        try:
            return Lake(LakehouseSettings(query_timeout_seconds=settings.api_query_seconds))
        except CatalogUnavailableError as error:
            log.warning("%s; trying again in %.1f s", error, backoff)
            time.sleep(backoff)
            backoff = min(backoff * 2, MAX_BACKOFF_SECONDS)


def _watch(parent: int, live: Live) -> None:
    """End the live streams on a signal, and the process when its parent is gone.

    The server handles the signals itself and then waits for open connections, which a live stream would never end.
    A wake-up descriptor tells us of the signal without taking it from the server.
    """
    ours, pythons = socket.socketpair()
    pythons.setblocking(False)
    signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)

    def watch() -> None:
        while True:
            readable, _, _ = select.select([ours], [], [], PARENT_SECONDS)
            if readable and set(ours.recv(64)) & {signal.SIGTERM, signal.SIGINT}:
                live.stop()
            if os.getppid() != parent:
                os._exit(1)  # nothing here needs saving, and a clean exit could wait for a stream

    pythons.detach()  # the descriptor belongs to the signal machinery now, for as long as the process lives
    threading.Thread(target=watch, name="watch", daemon=True).start()


def _cannot_listen(host: str, port: int) -> str | None:
    """Why the address cannot be bound, in words; the server itself would only show a traceback."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            return (
                f"cannot listen on {host}:{port}: {error.strerror}; stop what uses it, or set TICKHOUSE_API_PORT"
            )
    return None


def _log_readably() -> None:
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr, force=True
    )


if __name__ == "__main__":
    sys.exit(main())
