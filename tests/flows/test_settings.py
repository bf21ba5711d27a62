"""Settings of the batch side, and the environment Prefect gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.settings import FlowsSettings, apply_environment, prefect_environment


def test_nothing_is_sent_home_and_the_scheduler_runs(tmp_path: Path) -> None:
    environment = prefect_environment(tmp_path, 4321)
    assert environment["PREFECT_HOME"] == str(tmp_path / "prefect")
    assert environment["PREFECT_API_URL"] == "http://127.0.0.1:4321/api"
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert environment["DO_NOT_TRACK"] == "1"
    assert environment["SODA_CORE_TELEMETRY_ENABLED"] == "false"
    assert environment["PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED"] == "true"


def test_what_the_environment_says_already_stays(tmp_path: Path) -> None:
    environ = {"PREFECT_HOME": "/elsewhere"}
    apply_environment(FlowsSettings(data_dir=tmp_path, prefect_api_url="http://prefect:4200/api"), environ)
    assert environ["PREFECT_HOME"] == "/elsewhere"
    assert environ["PREFECT_API_URL"] == "http://prefect:4200/api"


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKHOUSE_PREFECT_PORT", "4300")
    monkeypatch.setenv("TICKHOUSE_SILVER_CRON", "*/5 * * * *")
    settings = FlowsSettings()
    assert settings.api_url == "http://127.0.0.1:4300/api"
    assert settings.silver_cron == "*/5 * * * *"


def test_prefect_accepts_every_setting_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import Settings

    for name, value in prefect_environment(tmp_path, 4321).items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.server.services.scheduler.enabled
    assert not settings.server.services.late_runs.enabled
    assert settings.worker.query_seconds == 2
    assert settings.server.services.db_vacuum.retention_period.days == 7
    assert settings.server.events.retention_period.days == 2
    assert settings.server.concurrency.lease_storage.endswith("filesystem")
    assert settings.logging.extra_loggers == ["lakehouse"] or "lakehouse" in settings.logging.extra_loggers
