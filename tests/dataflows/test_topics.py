"""Creating topics, on a real broker and on none."""

from __future__ import annotations

import threading

import pytest
from confluent_kafka.admin import AdminClient

from dataflows.settings import StreamSettings
from dataflows.topics import RAW_TOPICS, TOPIC_OF_EVENT, TOPICS, Stopped, ensure_topics
from simulator.events import EVENT_TYPES


def test_each_of_the_nine_events_has_a_topic() -> None:
    assert set(TOPIC_OF_EVENT) == set(EVENT_TYPES)
    assert set(TOPIC_OF_EVENT.values()) == set(RAW_TOPICS)


@pytest.mark.integration
def test_topics_are_there_with_their_partitions_and_doing_it_twice_changes_nothing(
    stream_settings: StreamSettings,
) -> None:
    ensure_topics(stream_settings)
    present = AdminClient({"bootstrap.servers": stream_settings.kafka_bootstrap}).list_topics(timeout=10).topics
    assert {name: len(present[name].partitions) for name in TOPICS} == {
        name: topic.partitions for name, topic in TOPICS.items()
    }


def test_waiting_for_a_broker_that_never_comes_ends_when_the_process_is_stopped() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        ensure_topics(StreamSettings(kafka_bootstrap="127.0.0.1:1"), stop)
