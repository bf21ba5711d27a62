"""Prometheus metrics of the bridge and the dataflows, each process serving its own on 127.0.0.1."""

from __future__ import annotations

from collections.abc import Sequence
from wsgiref.simple_server import WSGIServer

from prometheus_client import Counter, Gauge, Histogram, start_http_server

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)

SERVICE_READY = Gauge("tickhouse_service_ready", "1 when connected and working.")
LAST_EVENT = Gauge(
    "tickhouse_service_last_event_timestamp_seconds", "Event time of the newest event handled; 0 = none."
)

FLOW_MESSAGES = Counter("tickhouse_flow_messages_total", "Messages read.", ["flow", "topic"])
FLOW_OUTPUTS = Counter("tickhouse_flow_outputs_total", "Messages written and acknowledged.", ["flow", "topic"])
FLOW_LAG = Gauge("tickhouse_flow_lag_messages", "Messages in the topic that were not read yet.", ["flow", "topic"])
FLOW_WATERMARK = Gauge(
    "tickhouse_flow_watermark_timestamp_seconds", "Event time up to which windows are closed.", ["flow"]
)
FLOW_DEAD_LETTERS = Counter("tickhouse_flow_dead_letters_total", "Messages sent to dlq.processing.", ["flow"])
FLOW_LATENCY = Histogram(
    "tickhouse_flow_latency_seconds", "Event time to output.", ["flow"], buckets=LATENCY_BUCKETS
)
LATE_TRADES = Counter("tickhouse_vwap_late_trades", "Trades that came after one of their windows had closed.")
DUPLICATE_TRADES = Counter("tickhouse_vwap_duplicate_trades", "Copies of trades, left out of the windows.")

BRONZE_COMMITS = Counter("tickhouse_bronze_commits_total", "Iceberg commits.", ["table"])
BRONZE_ROWS = Counter("tickhouse_bronze_rows_total", "Rows committed.", ["table"])
BRONZE_COMMIT_SECONDS = Histogram("tickhouse_bronze_commit_seconds", "Duration of one commit.")

BRIDGE_RECEIVED = Counter("kafka_bridge_ws_messages_received_total", "Event frames received.")
BRIDGE_PRODUCED = Counter("kafka_bridge_kafka_produced_total", "Frames acknowledged by Kafka.", ["topic"])
BRIDGE_PRODUCE_ERRORS = Counter("kafka_bridge_kafka_produce_errors_total", "Failed deliveries.", ["topic"])
BRIDGE_VALIDATION_FAILURES = Counter("kafka_bridge_validation_failures_total", "Frames that broke the contract.")
BRIDGE_DLQ = Counter("kafka_bridge_dlq_produced_total", "Frames acknowledged by the dead-letter topic.")
BRIDGE_RECONNECTS = Counter("kafka_bridge_ws_reconnects_total", "Connections to the exchange after the first.")
BRIDGE_LATENCY = Histogram(
    "kafka_bridge_latency_seconds", "Event time to Kafka's acknowledgement.", buckets=LATENCY_BUCKETS
)
BRIDGE_GAPS = Counter("tickhouse_bridge_sequence_gaps_total", "Sequence numbers that never arrived.")
BRIDGE_DUPLICATES = Counter("tickhouse_bridge_duplicates_total", "Frames whose sequence had arrived before.")
BRIDGE_ACKNOWLEDGED = Gauge(
    "tickhouse_bridge_acknowledged_sequence", "This sequence and all before it are in Kafka."
)

_SAMPLES_PER_BATCH = 32


def serve_metrics(port: int, host: str = "127.0.0.1") -> WSGIServer:
    """Serve ``/metrics``; port 0 picks a free one (``server.server_port``).

    Raises:
        OSError: the port is taken.
    """
    server, _ = start_http_server(port, addr=host)
    return server


def observe_latency(histogram: Histogram, now_s: float, event_us: Sequence[int]) -> None:
    """Observe ``now - event time`` for a batch.

    At most 32 of a batch, evenly spread: an observation costs 1.5 µs, which matters only in replays, where a
    batch holds thousands.
    """
    for event_time in event_us[:: max(1, len(event_us) // _SAMPLES_PER_BATCH)]:
        histogram.observe(max(0.0, now_s - event_time / 1e6))
