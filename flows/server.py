"""``python -m flows.server``: Prefect's own server, scheduler and user interface, on this machine.

In: :class:`~flows.settings.FlowsSettings`. Out: this process becomes ``prefect server start``. On a crash:
runs and schedules are in its SQLite database; start it again. A first start takes about as long as any other,
because its database is prepared here (see :mod:`flows.prefect_database`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from flows.prefect_database import prepare_database
from flows.settings import FlowsSettings, apply_environment

OTHER_DATABASE = (
    "PREFECT_SERVER_DATABASE_CONNECTION_URL",
    "PREFECT_API_DATABASE_CONNECTION_URL",
    "PREFECT_SERVER_DATABASE_HOST",
)
"""Set where Prefect keeps its state in Postgres: its own migrations prepare that."""


def main() -> None:
    settings = FlowsSettings()
    apply_environment(settings)
    if not any(os.environ.get(name) for name in OTHER_DATABASE):
        prepare_database(Path(os.environ["PREFECT_HOME"]))
    command = [sys.executable, "-m", "prefect", "server", "start"]
    command += ["--host", settings.prefect_host, "--port", str(settings.prefect_port)]
    os.execv(sys.executable, command)  # noqa: S606


if __name__ == "__main__":
    main()
