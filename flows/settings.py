"""Settings of the batch side: where Prefect lives and how often its flows run.

In: environment variables ``TICKHOUSE_*``. Out: :class:`FlowsSettings`, and the environment that Prefect's own
server and our worker need (:func:`prefect_environment`).
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class FlowsSettings(BaseSettings):
    """``python -m flows.server`` and ``python -m flows.deployments``."""

    model_config = SettingsConfigDict(env_prefix="TICKHOUSE_", env_file=None)

    data_dir: Path = Field(
        default=Path(".tickhouse"), description="Everything Tickhouse keeps lives below this directory."
    )
    prefect_host: str = Field(default="127.0.0.1", description="Address Prefect's server binds.")
    prefect_port: int = Field(
        default=4200, ge=1, le=65535, description="Port of Prefect's server and its user interface."
    )
    prefect_api_url: str | None = Field(
        default=None,
        description="API of a Prefect server that runs elsewhere; unset: the one on prefect_host:prefect_port.",
    )
    flows_metrics_port: int = Field(default=9108, ge=0, le=65535, description="Port of the batch side's /metrics.")
    api_port: int = Field(default=8000, ge=1, le=65535, description="Port of the API and the live page.")
    silver_cron: str = Field(
        default="* * * * *", description="When the silver flow runs (cron, UTC); gold follows it."
    )
    silver_patience_seconds: float = Field(
        default=90.0,
        gt=0,
        description="Rows of bronze that silver left unread for so long set it going, whatever its schedule.",
    )
    freshness_seconds: dict[str, float] = Field(
        default={"bronze": 120.0, "silver": 600.0, "gold": 7200.0},
        description="Layer: greatest age of its newest event; beyond, its quality is checked and an alert sent.",
    )
    alert_webhook_url: SecretStr | None = Field(
        default=None, description="Where alerts are posted, as the JSON that chat systems take; a secret."
    )
    work_pool: str = Field(default="tickhouse", description="Name of the Prefect work pool that the flows run in.")
    task_runner: Literal["threads", "dask"] = Field(
        default="threads", description="Where a backfill's days are computed: threads of the worker, or dask."
    )
    dask_address: str | None = Field(
        default=None, description="Dask's scheduler, tcp://HOST:PORT; unset: a cluster on this machine."
    )
    backfill_workers: int = Field(default=2, ge=1, description="Pieces of a backfill that are worked on at once.")
    table_poll_seconds: float = Field(
        default=10.0, gt=0, description="How often table metrics and triggers follow the tables' heads."
    )

    @property
    def live_page(self) -> str:
        """Address of the live page on this machine."""
        return f"http://127.0.0.1:{self.api_port}/"

    @property
    def api_url(self) -> str:
        """The API that the worker talks to."""
        return self.prefect_api_url or f"http://{self.prefect_host}:{self.prefect_port}/api"


def prefect_environment(data_dir: Path, port: int, host: str = "127.0.0.1") -> dict[str, str]:
    """Environment of Prefect's server and of every process that talks to it.

    Nothing is sent home, state lives under ``data_dir/prefect``, and the services that nothing here uses are
    off. The scheduler stays on: without it no run is ever created, while the API still reports itself
    healthy.
    """
    return {
        "PREFECT_HOME": str((data_dir / "prefect").absolute()),
        "PREFECT_API_URL": f"http://{host}:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "SODA_CORE_TELEMETRY_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "true",
        # A run that is late by 15 s would only be renamed: overlapping runs are cancelled, not queued.
        "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_ENABLED": "false",
        # Of Prefect's own automations; ours are in flows.triggers.
        "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
        # Deployments change only when the batch process registers them: looked at every 5 s by default.
        "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "15",
        "PREFECT_SERVER_SERVICES_FOREMAN_LOOP_SECONDS": "60",
        # On disk, so that a restarted server still knows which slots are held, and frees those nobody renews.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        # A step that waits for its table asks again so often; ten seconds by default.
        "PREFECT_SERVER_TASKS_TAG_CONCURRENCY_SLOT_WAIT_SECONDS": "1",
        # A run a minute and flow: without this the database grows for 90 days.
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(7 * 86400),
        "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": "P2D",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "lakehouse",
        # Block types (cloud credentials and the like) cost a second at start and are not used.
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        # A worker asks for due runs this often; it is how long gold may wait after silver.
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        # Our server asks for no such token; the client would ask for one with each step's lease, in vain.
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",
        "PREFECT_CLI_COLORS": "false",
        "PREFECT_CLI_PROMPT": "false",
    }


def apply_environment(settings: FlowsSettings, environ: MutableMapping[str, str] = os.environ) -> None:
    """Set what :func:`prefect_environment` says where ``environ`` does not say otherwise; before importing
    Prefect."""
    wanted = prefect_environment(settings.data_dir, settings.prefect_port, settings.prefect_host)
    wanted["PREFECT_API_URL"] = settings.api_url
    for name, value in wanted.items():
        environ.setdefault(name, value)
