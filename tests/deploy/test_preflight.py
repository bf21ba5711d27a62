"""Each obstacle to a start is one line that names the thing, the place and the remedy."""

from __future__ import annotations

import os
import shutil
import socket
from collections import namedtuple
from pathlib import Path

import pytest

from deploy.local import preflight
from deploy.local.errors import LaunchError
from deploy.local.services import Service
from deploy.local.settings import DEFAULT_PORTS, LocalSettings


def _service(name: str, port: str) -> Service:
    return Service(name, ["true"], lambda: True, 1, ports=(port,))


def test_a_taken_port_names_its_holder_and_the_setting(settings: LocalSettings) -> None:
    with socket.create_server(("127.0.0.1", settings.api_port)), pytest.raises(LaunchError) as caught:
        preflight.check_ports(settings, [_service("api", "api_port")])
    message = str(caught.value)
    assert f"port {settings.api_port}, needed by api, is taken by pid {os.getpid()} (" in message
    assert "set TICKHOUSE_API_PORT" in message


def test_free_ports_pass(settings: LocalSettings) -> None:
    preflight.check_ports(settings, [_service("api", "api_port"), _service("prefect", "prefect_port")])


def test_two_services_on_one_port_are_told_apart(settings: LocalSettings) -> None:
    same = settings.model_copy(update={"prefect_port": settings.api_port})
    with pytest.raises(LaunchError, match="both TICKHOUSE_API_PORT and TICKHOUSE_PREFECT_PORT"):
        preflight.check_ports(same, [_service("api", "api_port"), _service("prefect", "prefect_port")])


def test_a_full_disk_is_noticed_before_the_start(settings: LocalSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12 - 10**8, 10**8))
    with pytest.raises(LaunchError, match=r"only 0\.1 GB are free .* TICKHOUSE_DATA_DIR"):
        preflight.check_disk(settings)


def test_a_data_directory_that_cannot_be_made_is_named(settings: LocalSettings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    below = settings.model_copy(update={"data_dir": tmp_path / "file" / "data"})
    with pytest.raises(LaunchError, match=r"cannot be made .* set TICKHOUSE_DATA_DIR"):
        preflight.check_disk(below)


def test_a_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKHOUSE_API_HOST", "0.0.0.0")  # noqa: S104 - what must be refused
    monkeypatch.delenv("TICKHOUSE_API_KEYS", raising=False)
    with pytest.raises(LaunchError, match="TICKHOUSE_API_KEYS"):
        preflight.check_settings()


def test_a_value_of_the_wrong_type_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKHOUSE_API_PORT", "eighty")
    with pytest.raises(LaunchError, match="TICKHOUSE_API_PORT=eighty is not usable"):
        preflight.read_settings()


@pytest.mark.parametrize("version", [(3, 10), (3, 13)])
def test_a_python_without_wheels_is_refused(version: tuple[int, int]) -> None:
    with pytest.raises(LaunchError, match=r"3\.11 or 3\.12 is needed"):
        preflight.check_python(version)


def test_a_port_base_moves_every_port_and_a_port_set_by_hand_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in DEFAULT_PORTS:
        monkeypatch.delenv(f"TICKHOUSE_{name.upper()}", raising=False)
    monkeypatch.setenv("TICKHOUSE_PORT_BASE", "20000")
    monkeypatch.setenv("TICKHOUSE_API_PORT", "31000")
    ports = LocalSettings().ports()
    assert ports.pop("api_port") == 31000
    assert sorted(ports.values()) == list(range(20001, 20000 + len(DEFAULT_PORTS)))
