"""The list of services is the single source: commands, ports, Prometheus' targets, order of a stop."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.local import prometheus
from deploy.local.broker import Broker
from deploy.local.services import Feed, service_environment, services
from deploy.local.settings import DEFAULT_PORTS, LocalSettings

ROOT = Path(__file__).resolve().parents[2]
OWN = Broker("kafka", "127.0.0.1:9092", "promise", [["java"]])
THREE = Broker("kafka", "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3", "promise", [["java"]] * 3)
ELSEWHERE = Broker("external", "a.example:9092", "promise")


def test_every_module_that_is_started_exists(settings: LocalSettings) -> None:
    modules = [s.command[2] for s in services(settings, OWN, Feed()) if s.command[1:2] == ["-m"]]
    missing = [
        name
        for name in modules
        if not (ROOT / name.replace(".", "/")).with_suffix(".py").is_file()
        and not (ROOT / name.replace(".", "/") / "__main__.py").is_file()
    ]
    assert len(modules) == 10
    assert missing == []


def test_a_stop_goes_from_the_source_to_the_broker(settings: LocalSettings) -> None:
    order = [s.name for s in sorted(services(settings, OWN, Feed()), key=lambda s: s.stop_step)]
    assert order[:2] == ["exchange", "bridge"]
    assert order[-1] == "broker"
    assert order.index("bronze") < order.index("flows") < order.index("prefect")


def test_a_broker_elsewhere_is_not_started(settings: LocalSettings) -> None:
    assert "broker" not in [s.name for s in services(settings, ELSEWHERE, Feed())]
    assert service_environment(settings, ELSEWHERE)["TICKHOUSE_KAFKA_BOOTSTRAP"] == "a.example:9092"


def test_every_port_belongs_to_a_service(
    settings: LocalSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    binary = tmp_path / "prometheus"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    claimed = [name for s in services(settings, THREE, Feed()) for name in s.ports]
    assert sorted(claimed) == sorted(DEFAULT_PORTS)


def test_a_replay_reaches_the_exchange_alone(settings: LocalSettings) -> None:
    listed = {s.name: s.environment for s in services(settings, OWN, Feed(Path("/capture.gz"), 0.0))}
    assert listed.pop("exchange") == {
        "TICKHOUSE_EXCHANGE_FEED": "replay",
        "TICKHOUSE_REPLAY_FILE": "/capture.gz",
        "TICKHOUSE_REPLAY_SPEED": "0.0",
    }
    assert not any("TICKHOUSE_REPLAY_FILE" in environment for environment in listed.values())


def test_the_committed_prometheus_configuration_is_the_generated_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKHOUSE_API_PORT", "31000")  # the environment must not leak into the committed file
    assert prometheus.COMMITTED.read_text() == prometheus.default_configuration(), "run `just generate`"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_accepts_the_configuration(settings: LocalSettings) -> None:
    prometheus.write(settings, services(settings, OWN, Feed()))
    file = settings.run_dir / "prometheus.yml"
    done = subprocess.run(["promtool", "check", "config", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert file.read_text().count("job_name") == 9
    assert str(settings.api_port) in file.read_text()
