"""Asking a service how it is: an HTTP answer, or the value of one of its metrics.

In: ports on this machine. Out: numbers, or None where nothing answers (a service that is not up yet is no error).
"""

from __future__ import annotations

import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http.client import HTTPException

from prometheus_client.parser import text_string_to_metric_families

_LOOPBACK = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy cannot see our loopback
_SECONDS = 2.0


def fetch(url: str) -> str | None:
    """Body of `url`, or None when it does not answer with success within two seconds."""
    try:
        with _LOOPBACK.open(url, timeout=_SECONDS) as response:
            return str(response.read().decode())
    except (urllib.error.URLError, HTTPException, OSError):  # down, starting or failing: not ready
        return None


@dataclass(frozen=True)
class Metrics:
    """One reading of a service's /metrics."""

    samples: dict[str, list[tuple[dict[str, str], float]]] = field(default_factory=dict)
    """Sample name → (labels, value) pairs."""

    def total(self, name: str) -> float | None:
        """Sum over all labels, None where the service has no such sample."""
        found = self.samples.get(name)
        return sum(value for _, value in found) if found else None

    def newest(self, name: str) -> float | None:
        """Largest value over all labels, None where the service has no such sample."""
        found = self.samples.get(name)
        return max(value for _, value in found) if found else None


def parse(text: str) -> Metrics:
    """Read the Prometheus text format.

    Raises:
        ValueError: the text is not in that format.
    """
    samples: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((dict(sample.labels), float(sample.value)))
    return Metrics(samples)


def scrape(port: int) -> Metrics | None:
    """The metrics served on 127.0.0.1:`port`, None when nothing answers there."""
    text = fetch(f"http://127.0.0.1:{port}/metrics")
    return None if text is None else parse(text)


def serves(url: str) -> bool:
    """Whether `url` answers with success."""
    return fetch(url) is not None


def says_ready(port: int) -> bool:
    """Whether the service whose metrics are on `port` calls itself connected and working."""
    metrics = scrape(port)
    return metrics is not None and metrics.newest("tickhouse_service_ready") == 1
