"""Prometheus metrics of the API, served at ``/metrics``; labels only from closed sets."""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, disable_created_metrics
from prometheus_client import Counter as _Counter
from prometheus_client import Gauge as _Gauge
from prometheus_client import Histogram as _Histogram

from dataflows.metrics import LATENCY_BUCKETS

disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY = CollectorRegistry()
"""The API's own: its names for readiness are those of every service, and a process may hold several packages."""
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

Counter = partial(_Counter, registry=REGISTRY)
Gauge = partial(_Gauge, registry=REGISTRY)
Histogram = partial(_Histogram, registry=REGISTRY)

READY = Gauge("tickhouse_service_ready", "1 when the lakehouse is readable and the live consumer is connected.")
LAST_EVENT = Gauge(
    "tickhouse_service_last_event_timestamp_seconds", "Event time of the newest live event; 0 before the first."
)

GRAPHQL_REQUESTS = Counter("graphql_requests_total", "GraphQL requests answered.", ["operation_type", "status"])
GRAPHQL_SECONDS = Histogram(
    "graphql_request_duration_seconds",
    "Time to answer one GraphQL request.",
    ["operation_type"],
    buckets=LATENCY_BUCKETS,
)
GRAPHQL_ACTIVE = Gauge("graphql_active_requests", "GraphQL requests being answered now.")
GRAPHQL_ERRORS = Counter("graphql_errors_total", "Errors in GraphQL answers.", ["code"])
DOCUMENT_CACHE = Counter(
    "tickhouse_api_document_cache_total", "Look-ups of parsed and validated GraphQL documents.", ["result"]
)

LIVE_CLIENTS = Gauge("tickhouse_api_live_clients", "Live streams open now.")
LIVE_LATENCY = Histogram(
    "tickhouse_api_live_latency_seconds",
    "Event time to handed over to one stream's reader.",
    buckets=LATENCY_BUCKETS,
)
LIVE_EVENTS = Counter("tickhouse_api_live_events_total", "Events received for the live streams.", ["kind"])
LIVE_CONFLATED = Counter(
    "tickhouse_api_live_conflated_total", "Outdated quotes and books not sent to a slow reader."
)
LIVE_CUT_OFF = Counter("tickhouse_api_live_cut_off_total", "Live streams ended because the reader was too slow.")
LIVE_INVALID = Counter("tickhouse_api_live_invalid_total", "Live messages that could not be decoded.", ["topic"])
LIVE_CONNECTED = Gauge("tickhouse_api_live_connected", "1 while the live consumer reaches the broker.")
