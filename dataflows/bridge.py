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
import gc
import json
import logging
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

from quixstreams import Application
from websockets import Subprotocol
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from dataflows import checkpoint, metrics
from dataflows.checkpoint import Checkpoint, Offsets
from dataflows.dead_letters import letter_headers
from dataflows.delivery import Deliveries, Headers, OnDelivery, Place, Send, partition_of
from dataflows.run import log_to_stderr, only_one
from dataflows.sequences import Arrival, Sequences
from dataflows.settings import StreamSettings
from dataflows.sink import MAX_MESSAGE_BYTES
from dataflows.topics import DLQ_RAW, RAW_TOPICS, TOPIC_OF_EVENT, Stopped, ensure_topics
from dataflows.wire import decode_exact, decode_fast, reason, sequence_in
from simulator.events import MAX_FRAME_BYTES

log = logging.getLogger(__name__)

BATCH_PROTOCOL = Subprotocol("tickhouse.batch.v1")
MAX_WS_MESSAGE_BYTES = 32 * 1024 * 1024
RECONNECT_MAX_S = 10.0
GIVE_UP_S = 5.0
"""How long a sequence that was skipped is waited for before it counts as lost."""
FLUSH_S = 7.0
HELD_MAX = 500
"""Frames of a plain connection that are sent together at most."""
HELD_S = 0.002
"""How long the first of them waits for others; each sending costs as much as several frames."""
GC_THRESHOLD = 50_000
PLACES_MAX = 65_536
"""Keys whose partition is remembered; a stranger may invent any number of them."""
NEW = Arrival.NEW
_WELCOME_MAX_BYTES = 1_000_000


class Bridge:
    """One connection to the exchange and one producer."""

    def __init__(self, settings: StreamSettings, stop: threading.Event, ends: Offsets | None = None) -> None:
        """``ends``: of each partition; :meth:`run` asks Kafka for them."""
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
                "enable.gapless.guarantee": True,  # see dataflows.delivery
                "message.timeout.ms": 0,  # never give up: a broker that is away is waited for
                "message.max.bytes": MAX_MESSAGE_BYTES,
                "linger.ms": 3,
                "compression.type": "lz4",
                **{name: value for name, value in settings.kafka().items() if name != "bootstrap.servers"},
            },
        ).get_producer()
        # Quix's own produce() builds two dicts and polls for every message: a third of the bridge's whole time.
        self._kafka = self._producer._producer
        self._session: str | None = None
        self._source = "unknown"
        self._sequences = Sequences()
        self._written: Counter[tuple[str, int]] = Counter()
        """(session, sequence) in Kafka beyond the checkpoint, from before the last crash."""
        self._written_until = 0
        """The largest of these sequences; nothing of a later session is there, for it begins with a checkpoint."""
        self._deliveries = Deliveries(ends or {})
        self._place = lru_cache(PLACES_MAX)(self._find_place)
        self._held: list[bytes] = []
        """Frames of a plain connection, not sent yet."""
        self._holding = asyncio.Event()
        self._mark: tuple[int, Offsets] | None = None
        """A newest sequence and the ends at that moment: once it is acknowledged, they make a checkpoint."""

    async def run(self) -> None:
        """Until ``stop`` is set; what was read is delivered before it returns.

        Raises:
            RuntimeError: Kafka refused a message for good, or did not acknowledge in time at the end.
            ValueError: the checkpoint is unreadable.
        """
        saved = checkpoint.load(self._path)
        topics = [*RAW_TOPICS, DLQ_RAW]
        self._deliveries.ends, self._written = await asyncio.to_thread(
            checkpoint.read_ends, self._settings, topics, saved, self._stop
        )
        if saved is not None:
            self._session = saved.session
            of_session = [sequence for session, sequence in self._written if session == saved.session]
            self._written_until = max(of_session, default=0)
            self._sequences = Sequences(saved.acknowledged)
            log.info(
                "resuming session %s after sequence %d; %d later frames are in Kafka already",
                *(saved.session, saved.acknowledged, self._written.total()),
            )
        tasks = [
            asyncio.create_task(work())
            for work in (self._receive, self._send_held, self._tick, self._until_stopped)
        ]
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
            if self._deliveries.failure is not None:
                raise RuntimeError(f"Kafka refused a frame: {self._deliveries.failure.str()}")
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
        self._take_held()  # what has arrived is not asked for again
        query: dict[str, Any] = {"from_sequence": 0}
        if self._session is not None:
            query = {"session": self._session, "from_sequence": self._sequences.resume_at()}
        joint = "&" if "?" in self._settings.ws_url else "?"
        return f"{self._settings.ws_url}{joint}{urlencode(query)}"

    async def _read(self, socket: ClientConnection) -> None:
        batched = socket.subprotocol == BATCH_PROTOCOL
        pending_max = self._settings.bridge_pending_max
        while True:
            message: bytes = await socket.recv(decode=False)
            if b'"welcome"' in message:
                await self._take_with_welcome(message.split(b"\n") if batched else [message])
            elif batched:
                self.take(message.split(b"\n"))
            else:
                self._held.append(message)
                if len(self._held) == 1:
                    self._holding.set()
                elif len(self._held) >= HELD_MAX:
                    self._take_held()
            while self._deliveries.pending >= pending_max:  # Kafka is slower
                await asyncio.sleep(0.005)

    async def _send_held(self) -> None:
        """Frames that come one by one are sent together, those of a few milliseconds."""
        while True:
            await self._holding.wait()
            await asyncio.sleep(HELD_S)
            self._take_held()

    def _take_held(self) -> None:
        self._holding.clear()
        held, self._held = self._held, []
        self.take(held)

    async def _take_with_welcome(self, frames: list[bytes]) -> None:
        self._take_held()
        others: list[bytes] = []
        for frame in frames:
            welcome = _welcome(frame)
            if welcome is None:
                others.append(frame)
            else:
                self.take(others)
                others = []
                await self._begin(welcome)
        self.take(others)

    def take(self, frames: Sequence[bytes]) -> None:
        """Validate frames and hand them to Kafka, each on the topic of its type or on dlq.raw, in order."""
        now, received_at = time.monotonic(), str(time.time_ns()).encode()
        arrived, place_of = self._sequences.arrived, self._place
        headers: dict[str, Headers] = {}
        sends: list[Send] = []
        lowest: int | None = None
        for frame in frames:
            try:
                event_type, key, sequence, event_time = decode_fast(frame) or decode_exact(frame)
                of_frame = headers.get(event_type)
                if of_frame is None:
                    named = ("event_type", event_type.encode())
                    of_frame = headers[event_type] = [named, *self._origin(received_at)]
            except ValueError as error:  # pydantic's is one
                metrics.BRIDGE_VALIDATION_FAILURES.inc()
                event_type, key, sequence, event_time = "", "", sequence_in(frame), None
                of_frame = self._refusal(error, sequence, received_at)
                frame = frame[:MAX_FRAME_BYTES]
            if sequence is not None:
                arrival = arrived(sequence, now)
                if (arrival is not NEW or sequence <= self._written_until) and not self._admit(arrival, sequence):
                    continue
                if lowest is None or sequence < lowest:
                    lowest = sequence
            place, encoded = place_of(event_type, key)
            sends.append((place, event_time, frame, encoded, of_frame))
        metrics.BRIDGE_RECEIVED.inc(len(frames))
        # First, because the producer may deliver an earlier frame, or one of these, before it returns.
        reports = self._deliveries.block(sends, self._sequences, lowest)
        produce = self._kafka.produce
        for (place, _, value, encoded, of_frame), report in zip(sends, reports, strict=True):
            topic, partition = place
            try:
                if report is None:  # nearly always; an argument that says so would cost a tenth of the call
                    produce(topic, value, encoded, partition, headers=of_frame)
                else:
                    produce(topic, value, encoded, partition, on_delivery=report, headers=of_frame)
            except BufferError:
                self._insist(place, value, encoded, of_frame, report)
        self._producer.poll(0)

    def _insist(self, place: Place, value: bytes, key: bytes, headers: Headers, report: OnDelivery | None) -> None:
        """The producer's queue is full: a message of very many frames, or of large ones."""
        while True:
            self._producer.poll(0.05)
            if self._stop.is_set():
                raise RuntimeError("stopped while Kafka took no more frames")
            with suppress(BufferError):
                self._kafka.produce(place[0], value, key, place[1], on_delivery=report, headers=headers)
                return

    def _admit(self, arrival: Arrival, sequence: int) -> bool:
        """False for what is in Kafka already."""
        if arrival is Arrival.REPEATED:
            return False
        if self._written[self._session or "", sequence]:
            self._written[self._session or "", sequence] -= 1
            return False
        if arrival is Arrival.DUPLICATE:
            metrics.BRIDGE_DUPLICATES.inc()
        return True

    def _find_place(self, event_type: str, key: str) -> tuple[Place, bytes]:
        """Where a frame goes. The bridge computes it, because it relies on the order of each partition."""
        topic = TOPIC_OF_EVENT.get(event_type, DLQ_RAW)
        encoded = key.encode()
        return (topic, partition_of(encoded, len(self._deliveries.ends[topic]))), encoded

    def _origin(self, received_at: bytes) -> Headers:
        headers: Headers = [("source", self._source.encode()), ("received_at", received_at)]
        return headers if self._session is None else [*headers, ("session", self._session.encode())]

    def _refusal(self, error: ValueError, sequence: int | None, received_at: bytes) -> Headers:
        number = "" if sequence is None else str(sequence)
        letter = letter_headers(reason(error), "bridge", self._settings.ws_url, "", number, time.time_ns())
        return [*letter, *self._origin(received_at)]

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
        while self._deliveries.pending:  # a checkpoint belongs to one session
            await asyncio.sleep(0.005)
        log.info("session %s from sequence %d", session, first)
        self._session, self._sequences, self._mark = session, Sequences(first - 1), None
        self._written_until = 0
        checkpoint.save(self._path, Checkpoint(session, first - 1, self._checkpoint_offsets()))

    def _checkpoint_offsets(self) -> Offsets:
        return {topic: dict(parts) for topic, parts in self._deliveries.ends.items()}

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
        # What an earlier bridge had written counts too: it stands before the ends, and may have yet to come again.
        newest = max(self._sequences.newest, self._written_until)
        if final and acknowledged >= newest and not self._deliveries.pending:
            checkpoint.save(self._path, Checkpoint(self._session, acknowledged, self._checkpoint_offsets()))
        elif self._mark is None or acknowledged >= self._mark[0]:
            if self._mark is not None:
                checkpoint.save(self._path, Checkpoint(self._session, acknowledged, self._mark[1]))
            self._mark = (newest, self._checkpoint_offsets())


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
    # A few ten thousand frames live at a time and none is part of a cycle: with what the libraries have made out
    # of the way, looking for cycles costs next to nothing.
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    settings = StreamSettings()
    with only_one("bridge", settings.data_dir / "bridge" / "lock"):
        asyncio.run(_serve(settings))


if __name__ == "__main__":
    main()
