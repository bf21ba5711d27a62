"""The bridge: the exchange's WebSocket → raw.* topics. Run with ``python -m dataflows.bridge``.

In: frames of the exchange, each an event as JSON; many to a message when the exchange speaks
``tickhouse.batch.v1``. Out: each valid frame byte for byte on the topic of its type, keyed by symbol or agent;
each invalid one on dlq.raw with the reason. A bad frame never stops the bridge.

On a crash, or when the exchange or Kafka goes away: it resumes from its checkpoint and neither loses nor doubles a
frame (:mod:`dataflows.checkpoint`), as long as the exchange still has what was missed. While Kafka is slow or away
it stops reading the socket at a bounded number of frames. On SIGTERM what was read is delivered first.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import signal
import threading
import time
from collections import Counter
from typing import Any
from urllib.parse import urlencode

from confluent_kafka import KafkaError, Message
from pydantic import ValidationError
from quixstreams import Application
from websockets import Subprotocol
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from dataflows import checkpoint, metrics
from dataflows.checkpoint import Checkpoint, Offsets
from dataflows.run import log_to_stderr
from dataflows.sequences import Arrival, Sequences
from dataflows.settings import StreamSettings
from dataflows.sink import MAX_MESSAGE_BYTES
from dataflows.topics import DLQ_RAW, RAW_TOPICS, TOPIC_OF_EVENT, Stopped, ensure_topics
from simulator.events import MAX_FRAME_BYTES, AgentAction, MarketEvent, parse_frame

log = logging.getLogger(__name__)

BATCH_PROTOCOL = Subprotocol("tickhouse.batch.v1")
MAX_WS_MESSAGE_BYTES = 32 * 1024 * 1024
RECONNECT_MAX_S = 10.0
GIVE_UP_S = 5.0
"""How long a sequence that was skipped is waited for before it counts as lost."""
FLUSH_S = 7.0
_WELCOME_MAX_BYTES = 1_000_000
_SEQUENCE = re.compile(rb'"sequence"\s*:\s*(\d{1,18})\b')


class Bridge:
    """One connection to the exchange and one producer."""

    def __init__(self, settings: StreamSettings, stop: threading.Event) -> None:
        self._settings = settings
        self._stop = stop
        self._path = settings.data_dir / "bridge" / "state.json"
        self._producer = Application(
            broker_address=settings.kafka_bootstrap,
            auto_create_topics=False,
            loglevel=None,
            producer_extra_config={
                "client.id": "tickhouse-bridge",
                "acks": "all",
                "enable.idempotence": True,
                "message.timeout.ms": 0,  # never give up: a broker that is away is waited for
                "message.max.bytes": MAX_MESSAGE_BYTES,
                "linger.ms": 3,
                "compression.type": "lz4",
                **{name: value for name, value in settings.kafka().items() if name != "bootstrap.servers"},
            },
        ).get_producer()
        self._session: str | None = None
        self._source = "unknown"
        self._sequences = Sequences()
        self._written: Counter[tuple[str, int]] = Counter()
        """(session, sequence) in Kafka beyond the checkpoint, from before the last crash."""
        self._ends: Offsets = {}
        self._mark: tuple[int, Offsets] | None = None
        """A newest sequence and the ends at that moment: once it is acknowledged, they make a checkpoint."""
        self._pending = 0
        self._failure: KafkaError | None = None

    async def run(self) -> None:
        """Until ``stop`` is set; what was read is delivered before it returns.

        Raises:
            RuntimeError: Kafka refused a message for good, or did not acknowledge in time at the end.
            ValueError: the checkpoint is unreadable.
        """
        saved = checkpoint.load(self._path)
        topics = [*RAW_TOPICS, DLQ_RAW]
        self._ends, self._written = await asyncio.to_thread(
            checkpoint.read_ends, self._settings, topics, saved, self._stop
        )
        if saved is not None:
            self._session = saved.session
            self._sequences = Sequences(saved.acknowledged)
            log.info(
                "resuming session %s after sequence %d; %d later frames are in Kafka already",
                *(saved.session, saved.acknowledged, self._written.total()),
            )
        tasks = [asyncio.create_task(work()) for work in (self._receive, self._tick, self._until_stopped)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()  # raises what ended it
        left = await asyncio.to_thread(self._producer.flush, FLUSH_S)
        self._save(final=True)
        if left:
            raise RuntimeError(
                f"stopped with {left} frames that Kafka did not acknowledge; they are sent after the next start"
            )

    async def _until_stopped(self) -> None:
        while not self._stop.is_set():
            await asyncio.sleep(0.05)

    async def _tick(self) -> None:
        """Serves acknowledgements while nothing is produced; a checkpoint each second."""
        next_save = time.monotonic() + 1
        while True:
            await asyncio.sleep(0.02)
            self._producer.poll(0)
            if self._failure is not None:
                raise RuntimeError(f"Kafka refused a frame: {self._failure.str()}")
            now = time.monotonic()
            if now >= next_save:
                next_save = now + 1
                self._lost(self._sequences.give_up(now - GIVE_UP_S))
                self._save()

    async def _receive(self) -> None:
        """Reads the exchange; connects again for ever."""
        wait, connections = 0.2, 0
        while True:
            try:
                async with connect(
                    self._url(),
                    subprotocols=[BATCH_PROTOCOL],
                    compression=None,
                    max_size=MAX_WS_MESSAGE_BYTES,
                    max_queue=4,
                    open_timeout=10,
                ) as socket:
                    connections += 1
                    if connections > 1:
                        metrics.BRIDGE_RECONNECTS.inc()
                    log.info("connected to %s", self._settings.ws_url)
                    wait = 0.2
                    metrics.SERVICE_READY.set(1)
                    await self._read(socket)
            except (OSError, WebSocketException, TimeoutError) as error:
                log.warning(
                    "exchange %s: %s; connecting again in about %.1f s", self._settings.ws_url, error, wait
                )
            finally:
                metrics.SERVICE_READY.set(0)
            await asyncio.sleep(wait * random.uniform(0.7, 1.3))  # noqa: S311 (jitter, not a secret)
            wait = min(wait * 2, RECONNECT_MAX_S)

    def _url(self) -> str:
        """Resumes where this session stopped; the first time, from the earliest event that is kept."""
        query: dict[str, Any] = {"from_sequence": 0}
        if self._session is not None:
            query = {"session": self._session, "from_sequence": self._sequences.resume_at()}
        joint = "&" if "?" in self._settings.ws_url else "?"
        return f"{self._settings.ws_url}{joint}{urlencode(query)}"

    async def _read(self, socket: ClientConnection) -> None:
        batched = socket.subprotocol == BATCH_PROTOCOL
        while True:
            message: bytes = await socket.recv(decode=False)
            for frame in message.split(b"\n") if batched else (message,):
                welcome = self.take(frame)
                if welcome is not None:
                    await self._begin(welcome)
            while self._pending >= self._settings.bridge_pending_max:  # Kafka is slower than the exchange
                await asyncio.sleep(0.005)

    def take(self, frame: bytes) -> dict[str, Any] | None:
        """Route one frame, or return it when it is the exchange's welcome."""
        try:
            if len(frame) > MAX_FRAME_BYTES:
                raise ValueError(f"{len(frame)} bytes are more than the {MAX_FRAME_BYTES} of a frame")
            event = parse_frame(frame)
        except ValueError as error:  # pydantic's is one
            welcome = _welcome(frame)
            if welcome is None:
                self._refuse(frame, error)
            return welcome
        metrics.BRIDGE_RECEIVED.inc()
        if self._admit(event.data.sequence):
            self._route(frame, event)
        return None

    def _admit(self, sequence: int | None) -> bool:
        """False for what is in Kafka already."""
        if sequence is None:
            return True
        arrival = self._sequences.arrived(sequence, time.monotonic())
        if arrival is Arrival.REPEATED:
            return False
        if self._session is not None and self._written[self._session, sequence]:
            self._written[self._session, sequence] -= 1
            return False
        if arrival is Arrival.DUPLICATE:
            metrics.BRIDGE_DUPLICATES.inc()
        return True

    def _route(self, frame: bytes, event: MarketEvent) -> None:
        data = event.data
        key = data.agent_id if isinstance(data, AgentAction) else data.symbol
        time_s = data.timestamp.timestamp() if data.timestamp is not None else None
        headers = {"event_type": event.event_type, **self._headers(data.sequence)}
        self._send(TOPIC_OF_EVENT[event.event_type], frame, key, headers, data.sequence, time_s)

    def _refuse(self, frame: bytes, error: ValueError) -> None:
        metrics.BRIDGE_RECEIVED.inc()
        metrics.BRIDGE_VALIDATION_FAILURES.inc()
        found = _SEQUENCE.search(frame[:MAX_FRAME_BYTES])
        sequence = int(found[1]) if found else None
        if not self._admit(sequence):
            return
        headers = {
            "error": _reason(error),
            "stage": "bridge",
            "source_topic": self._settings.ws_url,
            "source_partition": "",
            "source_offset": "" if sequence is None else str(sequence),
            "failed_at": str(time.time_ns()),
            **self._headers(sequence),
        }
        self._send(DLQ_RAW, frame[:MAX_FRAME_BYTES], "", headers, sequence, None)

    def _headers(self, sequence: int | None) -> dict[str, str | bytes]:
        headers: dict[str, str | bytes] = {"source": self._source, "received_at": str(time.time_ns())}
        if self._session is not None and sequence is not None:
            headers |= {"session": self._session, "sequence": str(sequence)}
        return headers

    def _send(
        self,
        topic: str,
        value: bytes,
        key: str,
        headers: dict[str, str | bytes],
        sequence: int | None,
        time_s: float | None,
    ) -> None:
        def delivered(error: KafkaError | None, message: Message) -> None:
            self._delivered(error, message, topic, sequence, time_s)

        # First, because the producer may deliver an earlier frame, or this one, before it returns.
        self._pending += 1
        if sequence is not None:
            self._sequences.sent(sequence)
        while True:
            try:
                self._producer.produce(
                    topic, value, key.encode(), headers, on_delivery=delivered, buffer_error_max_tries=0
                )
                break
            except BufferError:  # many large frames: the queue is full in bytes before it is in number
                self._producer.poll(0.05)
                if self._stop.is_set():
                    raise RuntimeError("stopped while Kafka took no more frames") from None

    def _delivered(
        self, error: KafkaError | None, message: Message, topic: str, sequence: int | None, time_s: float | None
    ) -> None:
        self._pending -= 1
        if error is not None:
            metrics.BRIDGE_PRODUCE_ERRORS.labels(topic).inc()
            self._failure = error  # its sequence stays outstanding, so no checkpoint passes it
            return
        if sequence is not None:
            self._sequences.delivered(sequence)
        ends = self._ends.setdefault(topic, {})
        ends[message.partition()] = max(ends.get(message.partition(), 0), message.offset() + 1)
        if topic == DLQ_RAW:
            metrics.BRIDGE_DLQ.inc()
        else:
            metrics.BRIDGE_PRODUCED.labels(topic).inc()
        if time_s is not None:
            metrics.BRIDGE_LATENCY.observe(max(0.0, time.time() - time_s))
            metrics.LAST_EVENT.set(time_s)

    async def _begin(self, welcome: dict[str, Any]) -> None:
        """A session begins, or goes on."""
        self._source = str(welcome.get("exchange", "unknown"))
        session, first = welcome.get("session_id"), welcome.get("next_sequence")
        if not isinstance(session, str) or not isinstance(first, int):
            log.warning("the exchange numbers nothing: after a crash, frames may be missing or doubled")
            return
        if session == self._session:
            self._lost(self._sequences.begins_at(first))
            return
        while self._pending:  # a checkpoint belongs to one session
            await asyncio.sleep(0.005)
        log.info("session %s from sequence %d", session, first)
        self._session, self._sequences, self._mark = session, Sequences(first - 1), None
        checkpoint.save(self._path, Checkpoint(session, first - 1, self._checkpoint_offsets()))

    def _checkpoint_offsets(self) -> Offsets:
        return {topic: dict(parts) for topic, parts in self._ends.items()}

    def _lost(self, sequences: int) -> None:
        if sequences:
            metrics.BRIDGE_GAPS.inc(sequences)
            log.warning("%d sequences of the exchange never arrived", sequences)

    def _save(self, final: bool = False) -> None:
        """Write a checkpoint when the mark set at an earlier one is acknowledged."""
        if self._session is None:
            return
        acknowledged = self._sequences.acknowledged()
        metrics.BRIDGE_ACKNOWLEDGED.set(acknowledged)
        if final and not self._pending:
            checkpoint.save(self._path, Checkpoint(self._session, acknowledged, self._checkpoint_offsets()))
        elif self._mark is None or acknowledged >= self._mark[0]:
            if self._mark is not None:
                checkpoint.save(self._path, Checkpoint(self._session, acknowledged, self._mark[1]))
            self._mark = (self._sequences.newest, self._checkpoint_offsets())


def _welcome(frame: bytes) -> dict[str, Any] | None:
    """The frame as the exchange's greeting, or None when it is something else."""
    if len(frame) > _WELCOME_MAX_BYTES:
        return None
    try:
        found = json.loads(frame)
    except (ValueError, RecursionError):  # the latter for a frame of nothing but brackets
        return None
    if isinstance(found, dict) and found.get("type") == "welcome" and "event_type" not in found:
        return found
    return None


def _reason(error: ValueError) -> str:
    """One line: which rule broke, where."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"[:1000]
    return str(error)[:1000]


async def _serve(settings: StreamSettings) -> None:
    stop = threading.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    metrics.serve_metrics(settings.bridge_metrics_port)
    try:
        await asyncio.to_thread(ensure_topics, settings, stop)
        await Bridge(settings, stop).run()
    except Stopped:
        pass
    log.info("stopped")


def main() -> None:
    log_to_stderr()
    asyncio.run(_serve(StreamSettings()))


if __name__ == "__main__":
    main()
