"""Prometheus' configuration, from the same list of services that is started.

In: services with their metrics ports. Out: YAML; `<data_dir>/run/prometheus.yml` for what runs, and
`deploy/prometheus/prometheus.yml` for the default ports (`python -m deploy.local.prometheus` writes that one).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from deploy.local.broker import Broker
from deploy.local.services import Feed, Service, services
from deploy.local.settings import LocalSettings

COMMITTED = Path(__file__).parent.parent / "prometheus" / "prometheus.yml"

HEAD = """\
# Written by `python -m deploy.local.prometheus` from the list of services; a test holds them equal.
global:
  scrape_interval: 5s      # rates over 30 s stay smooth, and a stopped part shows within seconds
  scrape_timeout: 4s
  evaluation_interval: 15s

scrape_configs:
"""


def configuration(listed: Iterable[Service]) -> str:
    """YAML that scrapes every service with metrics; the job is the service's name."""
    jobs = [
        f"  - job_name: {service.name}\n    static_configs: [{{targets: ['127.0.0.1:{service.metrics_port}']}}]\n"
        for service in listed
        if service.metrics_port is not None
    ]
    return HEAD + "".join(jobs)


def default_configuration() -> str:
    """The configuration for the default ports, whatever the environment says."""
    settings = LocalSettings.model_construct()  # the defaults only
    return configuration(services(settings, Broker("external", "127.0.0.1:9092", ""), Feed()))


def write(settings: LocalSettings, listed: Iterable[Service]) -> None:
    """Write the configuration of what is about to run."""
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    (settings.run_dir / "prometheus.yml").write_text(configuration(listed))


if __name__ == "__main__":
    COMMITTED.parent.mkdir(parents=True, exist_ok=True)
    COMMITTED.write_text(default_configuration())
