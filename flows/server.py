"""``python -m flows.server``: Prefect's own server, scheduler and user interface, on this machine.

In: :class:`~flows.settings.FlowsSettings`. Out: this process serves, as ``prefect server start`` does. On a crash:
runs and schedules are in its SQLite database; start it again. A first start takes about as long as any other,
because its database is prepared here (see :mod:`flows.prefect_database`).
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from flows.prefect_database import prepare_database
from flows.settings import FlowsSettings, apply_environment

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

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

    write_in_turn()
    patient = functools.partial(
        Worker, minimum_check_interval=SERVICES_LOOK_EVERY, scheduling_resolution=SERVICES_LOOK_EVERY
    )
    vars(background_workers)["Worker"] = patient
    address = ["--host", settings.prefect_host, "--port", str(settings.prefect_port)]
    sys.argv = ["prefect", "server", "start", *address]
    app()


def write_in_turn() -> None:
    """Have each transaction that Prefect writes into SQLite with take the write lock when it begins.

    Prefect's begin as readers, but for a few (``with_for_update``). When another one has committed since, SQLite
    refuses their first write at once, and Prefect's client tries again after 2, 4 and 8 s: with two flows at work,
    several times a minute. What a refused statement leaves behind is also a deadlock to come: when the garbage
    collector on the main thread gets to it while its connection waits for the lock, nothing moves until that wait
    ends, after a minute.
    """
    from prefect.server.database.configurations import SQLITE_BEGIN_MODE, AioSqliteConfiguration

    begin = AioSqliteConfiguration.begin_transaction

    @asynccontextmanager
    async def begin_with_lock(
        self: AioSqliteConfiguration, session: AsyncSession, with_for_update: bool = False
    ) -> AsyncIterator[AsyncSessionTransaction]:
        async with begin(self, session, with_for_update) as transaction:
            mode = SQLITE_BEGIN_MODE.set("IMMEDIATE")  # for this one alone: sessions opened within only read
            try:
                await session.connection()
            finally:
                SQLITE_BEGIN_MODE.reset(mode)
            yield transaction

    AioSqliteConfiguration.begin_transaction = begin_with_lock  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
