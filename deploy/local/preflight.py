"""What is looked at before anything is started, so that a failure is one line and not a traceback in a log.

In: settings, the services to come, the environment they will get. Out: nothing, or a `LaunchError` that says what
to do.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable

from pydantic import ValidationError
from pydantic_settings import BaseSettings

from api.settings import ApiSettings
from dataflows.settings import StreamSettings
from deploy.local.errors import LaunchError
from deploy.local.leftovers import holder, port_is_free
from deploy.local.services import Service
from deploy.local.settings import DEFAULT_PORTS, LocalSettings
from flows.settings import FlowsSettings
from lakehouse.settings import LakehouseSettings
from simulator.settings import ExchangeSettings

FREE_BYTES = 1 << 30  # with less, Kafka's log is the first to fail, and not at start
SERVICE_SETTINGS: tuple[type[BaseSettings], ...] = (
    ExchangeSettings,
    StreamSettings,
    LakehouseSettings,
    FlowsSettings,
    ApiSettings,
)


def check_python(version: tuple[int, ...] = sys.version_info[:2]) -> None:
    """Raises: LaunchError: bytewax has no wheel for this Python."""
    if not (3, 11) <= version < (3, 13):
        found = ".".join(map(str, version))
        raise LaunchError(
            f"Python {found} runs this, 3.11 or 3.12 is needed: `uv python install 3.12` and start again."
        )


def check_disk(settings: LocalSettings) -> None:
    """Raises: LaunchError: less than 1 GB is free, or the data directory cannot be written."""
    try:
        settings.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LaunchError(f"{settings.root} cannot be made ({error.strerror}): set TICKHOUSE_DATA_DIR.") from error
    if not os.access(settings.root, os.W_OK):
        raise LaunchError(f"{settings.root} cannot be written: set TICKHOUSE_DATA_DIR to another directory.")
    free = shutil.disk_usage(settings.root).free
    if free < FREE_BYTES:
        raise LaunchError(
            f"only {free / 1e9:.1f} GB are free on the disk of {settings.root}, 1 GB is needed: "
            "make room, run `just reset`, or set TICKHOUSE_DATA_DIR to another disk."
        )


def check_ports(settings: LocalSettings, listed: Iterable[Service]) -> None:
    """Raises: LaunchError: a port is taken, or two services would share one."""
    owners: dict[int, str] = {}
    for service in listed:
        for name in service.ports:
            port, variable = settings.ports()[name], f"TICKHOUSE_{name.upper()}"
            if port in owners:
                raise LaunchError(f"port {port} is set by both {owners[port]} and {variable}: change one of them.")
            owners[port] = variable
            if not port_is_free(port):
                default = DEFAULT_PORTS[name]
                raise LaunchError(
                    f"port {port}, needed by {service.name}, is taken by {holder(port)}: "
                    f"stop that, or set {variable} (default {default}) to a free port."
                )


def check_settings() -> None:
    """Read every service's settings as it will. Raises: LaunchError: naming the variable that is wrong."""
    for kind in SERVICE_SETTINGS:
        try:
            kind()
        except ValidationError as error:
            raise LaunchError(_said(error)) from error


def read_settings(**said: str) -> LocalSettings:
    """The launcher's own settings, `said` before the environment. Raises: LaunchError: naming what is wrong."""
    try:
        return LocalSettings(**said)  # type: ignore[arg-type]
    except ValidationError as error:
        raise LaunchError(_said(error)) from error


def _said(error: ValidationError) -> str:
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return message
    variable = f"TICKHOUSE_{str(first['loc'][0]).upper()}"
    return f"{variable}={os.environ.get(variable, first['input'])!s} is not usable: {message}."
