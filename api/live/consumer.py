"""The one consumer behind all live streams: Kafka topics in, calls of :meth:`Hub.publish` out.

It joins no group and commits nothing: it is assigned every partition, starts a little before the end (so that a
fresh process has something to show), and follows. While the broker is away it waits and goes on where it was;
topics and partitions that appear later are taken up. A message that cannot be decoded is counted, logged and
left out; it stays in its topic.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from api import metrics
from api.live.events import KIND_OF_TOPIC, LiveEvent, decode
from api.live.hub import Hub
from api.settings import ApiSettings

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.2
"""Longest wait for a message; one that arrives earlier ends it at once, so this only bounds the stop."""
BATCH: Final = 1000
BROKER_SECONDS: Final = 3.0
LOOK_SECONDS: Final = 2.0
"""Until all topics are there, how often to look for them; a quiet market is probed as often."""
RELOOK_SECONDS: Final = 60.0
MAX_BACKOFF_SECONDS: Final = 5.0

Part = tuple[str, int]


class LiveConsumer:
    """Follows the live topics in a thread of its own, from :meth:`start` to :meth:`stop`."""

    def __init__(self, settings: ApiSettings, hub: Hub) -> None:
        self._settings = settings
        self._hub = hub
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live-consumer", daemon=True)
        self._high: dict[Part, int] = {}
        """Per partition the end of what was there before: lower offsets are read back."""
        self._last_look = -RELOOK_SECONDS
        self._last_message = 0.0
        self._last_log: dict[str, float] = {}
        self._missing = list(KIND_OF_TOPIC)
        self.connected = False
        """True while the broker answers and every topic is followed."""

    def start(self) -> None:
        """Begin; returns at once, whether or not a broker is there."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and close the consumer."""
        self._stop.set()
        self._thread.join(timeout=POLL_SECONDS + BROKER_SECONDS + 1)

    def status(self) -> str:
        """One line for the health answer."""
        if self.connected:
            return f"following {len(self._high)} partitions"
        if self._missing and self._high:
            return f"waiting for topics: {', '.join(self._missing)}"
        return f"waiting for Kafka at {self._settings.kafka_bootstrap}"

    def _run(self) -> None:
        backoff = 0.2
        while not self._stop.is_set():
            consumer = self._open()
            try:
                self._follow(consumer)
            except KafkaException as error:
                log.warning("live stream: %s; trying again in %.1f s", error.args[0], backoff)
                self._set_connected(False)
                self._stop.wait(backoff)
                backoff = min(backoff * 2, MAX_BACKOFF_SECONDS)
            except Exception:
                # A thread that dies would leave the page silent while the service looks well.
                log.exception("live stream: unexpected error; trying again in %.1f s", backoff)
                self._set_connected(False)
                self._stop.wait(backoff)
                backoff = min(backoff * 2, MAX_BACKOFF_SECONDS)
            finally:
                consumer.close()
                self._high.clear()
        self._set_connected(False)

    def _open(self) -> Consumer:
        return Consumer(
            {
                "group.id": "tickhouse-api-live",  # required, but never joined
                "client.id": "tickhouse-api-live",
                "enable.auto.commit": False,
                "auto.offset.reset": "latest",
                "fetch.wait.max.ms": 100,  # a message ends the wait at once; this only spares an idle broker
                "fetch.error.backoff.ms": 100,
                "reconnect.backoff.max.ms": 2000,
                "receive.message.max.bytes": 1_000_000_000,  # some brokers ignore fetch limits
                "queued.max.messages.kbytes": 32_768,
                "log_level": 2,  # what matters comes through error_cb, in our words and not by the thousand
                "error_cb": self._on_error,
                "bootstrap.servers": self._settings.kafka_bootstrap,
                **self._settings.kafka_config,
            }
        )

    def _follow(self, consumer: Consumer) -> None:
        self._last_look = -RELOOK_SECONDS
        while not self._stop.is_set():
            if self._look_is_due(time.monotonic()):
                self._look(consumer)
            first = consumer.poll(POLL_SECONDS)
            if first is not None:
                # consume() alone would wait for a full batch or its timeout, and add that to the latency.
                self._hand_over([first, *consumer.consume(BATCH, timeout=0)])

    def _look_is_due(self, now: float) -> bool:
        quiet = now - self._last_message > LOOK_SECONDS
        interval = LOOK_SECONDS if quiet or not self.connected else RELOOK_SECONDS
        return now - self._last_look >= interval

    def _look(self, consumer: Consumer) -> None:
        """Take up partitions that are new, and find out whether the broker is there at all."""
        try:
            topics = consumer.list_topics(timeout=BROKER_SECONDS).topics
            missing = [name for name in KIND_OF_TOPIC if name not in topics or topics[name].error is not None]
            for name in KIND_OF_TOPIC:
                if name not in missing:
                    for number in topics[name].partitions:
                        if (name, number) not in self._high:
                            self._assign(consumer, name, number)
        except KafkaException as error:
            if self.connected or not self._high:
                self._log_seldom("broker", "live stream: %s", error.args[0])
            self._set_connected(False)
            return
        finally:
            self._last_look = time.monotonic()
        if missing != self._missing and missing:
            log.info("live stream: waiting for topics: %s", ", ".join(missing))
        self._missing = missing
        self._set_connected(not missing)

    def _assign(self, consumer: Consumer, topic: str, number: int) -> None:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=BROKER_SECONDS)
        start = max(low, high - self._settings.api_live_warmup)
        consumer.incremental_assign([TopicPartition(topic, number, start)])
        self._high[topic, number] = high

    def _hand_over(self, messages: list[Message]) -> None:
        old: list[LiveEvent] = []
        new: list[LiveEvent] = []
        for message in messages:
            error = message.error()
            if error is not None:
                self._on_error(error)
                continue
            topic, number, offset = message.topic(), message.partition(), message.offset()
            event = self._decode(topic, number, offset, message.value() or b"")
            if event is not None:
                (old if offset < self._high[topic, number] else new).append(event)
        if old:
            self._hub.publish(old, replayed=True)
        if new:
            self._hub.publish(new)
        if old or new:
            self._last_message = time.monotonic()
            metrics.LAST_EVENT.set(max(event.event_us for event in (*old, *new)) / 1e6)
            if not self.connected and not self._missing:
                self._set_connected(True)

    def _decode(self, topic: str, number: int, offset: int, value: bytes) -> LiveEvent | None:
        if not value:
            return None  # a tombstone of a compacted topic
        try:
            return decode(topic, value)
        except (msgspec.MsgspecError, TypeError, UnicodeDecodeError) as error:
            metrics.LIVE_INVALID.labels(topic).inc()
            self._log_seldom(topic, "live stream: left out %s/%d offset %d: %s", topic, number, offset, error)
            return None

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            raise KafkaException(error)
        self._log_seldom(error.name(), "live stream: %s", error)
        if error.code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT):
            self._set_connected(False)

    def _log_seldom(self, key: str, text: str, *args: object) -> None:
        """The same trouble comes thousands of times; one line in ten seconds says it."""
        now = time.monotonic()
        if now - self._last_log.get(key, -1e9) >= 10:
            self._last_log[key] = now
            log.warning(text, *args)

    def _set_connected(self, connected: bool) -> None:
        if connected and not self.connected:
            log.info("live stream: following %d partitions at %s", len(self._high), self._settings.kafka_bootstrap)
        self.connected = self._hub.connected = connected
        metrics.LIVE_CONNECTED.set(connected)
