"""``python -m flows.server``: Prefect's own server, scheduler and user interface, on this machine.

In: :class:`~flows.settings.FlowsSettings`. Out: this process serves, as ``prefect server start`` does. On a crash:
runs and schedules are in its SQLite database; start it again. A first start takes about as long as any other,
because its database is prepared here (see :mod:`flows.prefect_database`).
"""

from __future__ import annotations

import functools
import os
import sys
from datetime import timedelta
from pathlib import Path

from flows.prefect_database import prepare_database
from flows.settings import FlowsSettings, apply_environment

OTHER_DATABASE = (
    "PREFECT_SERVER_DATABASE_CONNECTION_URL",
    "PREFECT_API_DATABASE_CONNECTION_URL",
    "PREFECT_SERVER_DATABASE_HOST",
)
"""Set where Prefect keeps its state in Postgres: its own migrations prepare that."""

SERVICES_LOOK_EVERY = timedelta(seconds=2)
"""How often the server's services (scheduler, leases, cleaning) look whether they are due. Prefect has no setting
for its quarter of a second, which takes an idle server a third more CPU."""


def main() -> None:
    settings = FlowsSettings()
    apply_environment(settings)
    if not any(os.environ.get(name) for name in OTHER_DATABASE):
        prepare_database(Path(os.environ["PREFECT_HOME"]))
    # Imported here: Prefect reads its environment when it is imported.
    from docket import Worker
    from prefect.cli import app
    from prefect.server.api import background_workers

    patient = functools.partial(
        Worker, minimum_check_interval=SERVICES_LOOK_EVERY, scheduling_resolution=SERVICES_LOOK_EVERY
    )
    vars(background_workers)["Worker"] = patient
    address = ["--host", settings.prefect_host, "--port", str(settings.prefect_port)]
    sys.argv = ["prefect", "server", "start", *address]
    app()


if __name__ == "__main__":
    main()
