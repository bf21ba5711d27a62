"""The topics: names, partitions, keys, retention; and creating them on whatever broker there is.

:func:`ensure_topics` is idempotent, so every process calls it at its start and none depends on another.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Collection
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from dataflows.settings import StreamSettings

log = logging.getLogger(__name__)

DAY_MS = 86_400_000


COMPACTED_SOON = (("segment.ms", str(3_600_000)), ("min.cleanable.dirty.ratio", "0.1"))
"""The cleaner never touches the segment that is written to: left alone, that is the same one for up to 7 days."""


@dataclass(frozen=True)
class Topic:
    name: str
    partitions: int
    key: str
    """What the message key holds."""
    retention_ms: int = 7 * DAY_MS
    cleanup: str = "delete"
    """Kafka's ``cleanup.policy``."""
    config: tuple[tuple[str, str], ...] = ()
    """More of Kafka's configuration of a topic."""


RAW_TRADES = "raw.trades"
RAW_ORDERS = "raw.orders"
RAW_QUOTES = "raw.quotes"
RAW_ORDERBOOK_SNAPSHOTS = "raw.orderbook-snapshots"
RAW_MARKET_STATS = "raw.market-stats"
RAW_AGENT_ACTIONS = "raw.agent-actions"
RAW_TRADING_HALTS = "raw.trading-halts"
PROCESSED_TRADES = "processed.trades"
PROCESSED_VWAP = "processed.vwap"
PROCESSED_ORDERBOOK = "processed.orderbook"
ALERTS_PRICE = "alerts.price"
DLQ_RAW = "dlq.raw"
DLQ_PROCESSING = "dlq.processing"

TOPICS: dict[str, Topic] = {
    topic.name: topic
    for topic in (
        Topic(RAW_TRADES, 6, "symbol"),
        Topic(RAW_ORDERS, 6, "symbol"),
        Topic(RAW_QUOTES, 6, "symbol"),
        Topic(RAW_ORDERBOOK_SNAPSHOTS, 3, "symbol"),
        Topic(RAW_MARKET_STATS, 3, "symbol"),
        Topic(RAW_AGENT_ACTIONS, 3, "agent_id"),
        Topic(RAW_TRADING_HALTS, 1, "symbol"),
        Topic(PROCESSED_TRADES, 6, "symbol"),
        Topic(PROCESSED_VWAP, 6, "symbol|window|window_start", cleanup="compact", config=COMPACTED_SOON),
        Topic(PROCESSED_ORDERBOOK, 3, "symbol"),
        Topic(ALERTS_PRICE, 1, "symbol"),
        Topic(DLQ_RAW, 1, "source key", retention_ms=90 * DAY_MS),
        Topic(DLQ_PROCESSING, 1, "source key", retention_ms=90 * DAY_MS),
    )
}

RAW_TOPICS = tuple(name for name in TOPICS if name.startswith("raw."))

TABLE_OF_TOPIC: dict[str, str] = {
    RAW_TRADES: "bronze.trades",
    RAW_ORDERS: "bronze.orders",
    RAW_QUOTES: "bronze.quotes",
    RAW_ORDERBOOK_SNAPSHOTS: "bronze.orderbook_snapshots",
    RAW_MARKET_STATS: "bronze.market_stats",
    RAW_TRADING_HALTS: "bronze.trading_halts",
    RAW_AGENT_ACTIONS: "bronze.agent_actions",
}
"""Raw topic → the table of bronze that keeps it."""

TOPIC_OF_EVENT: dict[str, str] = {
    "TradeExecuted": RAW_TRADES,
    "OrderPlaced": RAW_ORDERS,
    "OrderCancelled": RAW_ORDERS,
    "QuoteUpdate": RAW_QUOTES,
    "OrderBookSnapshot": RAW_ORDERBOOK_SNAPSHOTS,
    "MarketStats": RAW_MARKET_STATS,
    "AgentAction": RAW_AGENT_ACTIONS,
    "TradingHalt": RAW_TRADING_HALTS,
    "TradingResume": RAW_TRADING_HALTS,
}
"""Where the bridge sends each of the nine events."""


class Stopped(Exception):
    """The process was asked to stop while it waited for the broker."""


def ensure_topics(
    settings: StreamSettings, stop: threading.Event | None = None, topics: Collection[Topic] = TOPICS.values()
) -> None:
    """Create those of ``topics`` that are missing; wait, with a log line, for as long as no broker answers.

    Topics that exist are left as they are, whatever their configuration.

    Raises:
        Stopped: ``stop`` was set while waiting.
        KafkaException: the broker answers and refuses (no right to create topics, replication not possible …).
    """
    stop = stop or threading.Event()
    wait = 0.1
    while (lacking := _create_missing(settings, topics)) is not None:
        log.info("%s; looking again in %.1f s", lacking, wait)
        if stop.wait(wait * random.uniform(0.7, 1.3)):  # noqa: S311 (jitter, not a secret)
            raise Stopped
        wait = min(wait * 2, 5.0)


def _create_missing(settings: StreamSettings, topics: Collection[Topic]) -> str | None:
    """None when every topic is there and can be used; else what there is to wait for."""
    admin = AdminClient({**settings.kafka(), "log_level": 0})
    away = f"no Kafka broker answers at {settings.kafka_bootstrap} yet"
    try:
        present = admin.list_topics(timeout=5).topics
    except KafkaException as error:
        if _is_fatal(error.args[0]):
            raise
        return away
    missing = [topic for topic in topics if topic.name not in present]
    if not missing:
        names = [topic.name for topic in topics]
        leaderless = [name for name in names if any(part.leader < 0 for part in present[name].partitions.values())]
        return f"no leader yet for {', '.join(leaderless)}" if leaderless else None
    futures = admin.create_topics([_new_topic(topic, settings) for topic in missing], operation_timeout=10)
    for name, future in futures.items():
        try:
            future.result(timeout=20)
            log.info("created topic %s", name)
        except KafkaException as error:
            code = error.args[0].code()
            if code == KafkaError.TOPIC_ALREADY_EXISTS:  # another process was quicker
                continue
            if code in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError.REQUEST_TIMED_OUT):
                return away
            raise
    return "topics were created"


def _new_topic(topic: Topic, settings: StreamSettings) -> NewTopic:
    config = {"cleanup.policy": topic.cleanup, **dict(topic.config)}
    if settings.kafka_replication > 2:
        config["min.insync.replicas"] = "2"  # an acknowledged record is on two brokers, and one may die
    if topic.cleanup == "delete":
        config["retention.ms"] = str(topic.retention_ms)
        if settings.kafka_retention_bytes >= 0:
            config["retention.bytes"] = str(settings.kafka_retention_bytes)
    return NewTopic(topic.name, topic.partitions, settings.kafka_replication, config=config)


def _is_fatal(error: KafkaError) -> bool:
    return error.code() in (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED)
