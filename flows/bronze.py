"""The flow ``bronze``: is the lakehouse keeping up with Kafka?

In: the tables of bronze, and the end of every partition of their topics. Out: for each table its rows, the age
of its newest event and the messages of its topic that it does not hold yet, over all partitions; as metrics and
in the run's report. Nothing is written, so a crash changes nothing.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from confluent_kafka import Consumer, TopicPartition
from prometheus_client import Gauge

from dataflows.settings import StreamSettings
from dataflows.topics import RAW_TOPICS, TABLE_OF_TOPIC
from flows.asset import Outcome, asset, report
from flows.batch_flow import batch_flow
from flows.session import lake_session
from lakehouse.batch import BatchSession
from lakehouse.state import committed_offsets

log = logging.getLogger("flows.bronze")

BROKER_TIMEOUT_S = 10.0
LAG = Gauge("tickhouse_bronze_lag_messages", "Messages of the topic that bronze does not hold yet.", ["topic"])

Bounds = Mapping[int, tuple[int, int]]
"""Partition → first offset that the broker still has, and the one after the last."""


@dataclass(frozen=True, slots=True)
class BronzeCheck:
    """A table of bronze beside its topic."""

    table: str
    topic: str
    rows: int
    age: timedelta | None
    """Of the newest event; None: no row yet."""
    lag: int
    partitions: int
    snapshot_id: int | None


def check_bronze(session: BatchSession, bounds: Callable[[str], Bounds], now: datetime) -> list[BronzeCheck]:
    """Look at every table of bronze. ``bounds`` asks the broker about a topic: all its partitions."""
    found = []
    for topic in RAW_TOPICS:
        name = TABLE_OF_TOPIC[topic]
        table = session.catalog.load_table(name)
        snapshot = session.manifests.files(name, table)
        newest = max((file.last for file in snapshot.files if file.last is not None), default=None)
        read = committed_offsets(table).get(topic, {})
        log = bounds(topic)
        found.append(
            BronzeCheck(
                name,
                topic,
                sum(file.rows for file in snapshot.files),
                None if newest is None else now - newest,
                sum(max(0, high - max(low, read.get(number, 0))) for number, (low, high) in log.items()),
                len(log),
                snapshot.snapshot_id,
            )
        )
    return found


def broker_bounds(consumer: Consumer) -> Callable[[str], Bounds]:
    """Bounds of a topic's partitions, from the broker; a topic that is not there has none.

    Raises:
        KafkaException: the broker is away.
    """

    def bounds(topic: str) -> Bounds:
        partitions = consumer.list_topics(topic, timeout=BROKER_TIMEOUT_S).topics[topic].partitions
        return {
            number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=BROKER_TIMEOUT_S)
            for number in partitions
        }

    return bounds


@asset("bronze.checks", layer="bronze", reads=("bronze.*",))
def bronze_checks() -> list[Outcome]:
    """Rows, age and lag of every table of bronze."""
    group = {"group.id": "tickhouse-bronze-check"}  # required, but never joined
    consumer = Consumer({**StreamSettings().kafka(), **group}, logger=log)
    with contextlib.closing(consumer):
        session = lake_session()
        found = check_bronze(session, broker_bounds(consumer), session.clock())
    outcomes = []
    for check in found:
        LAG.labels(check.topic).set(check.lag)
        age = "no event yet" if check.age is None else f"newest event {check.age.total_seconds():.0f} s old"
        note = f"{age}, {check.lag} messages behind {check.topic} ({check.partitions} partitions)"
        outcomes.append(Outcome(check.table, rows_in=check.rows, snapshot_id=check.snapshot_id, note=note))
    return outcomes


BRONZE = (bronze_checks,)


@batch_flow("bronze", timeout_s=300)
def bronze() -> object:
    """Compare bronze with Kafka."""
    return report([step.run() for step in BRONZE])
