"""From a feed to the journal, at the feed's pace.

In: a feed's (event time, frame) pairs. Out: blocks of frames in the journal, then a call that tells the
server. At speed 1 a frame is published when the clock passed in has reached its event time, within a few
milliseconds; at speed 0 as fast as the journal takes it. When the machine was suspended the market catches
up, it does not skip.

Continues a session: frames that the journal has already are generated again and passed over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from simulator.faults import Faults
from simulator.journal import Journal
from simulator.metrics import ExchangeMetrics

logger = logging.getLogger(__name__)

TICK_US = 4_000
"""Shortest sleep: a frame is published at most this much after its time, half of it on average.
Shorter sleeps cost more wake-ups for little."""

LONGEST_SLEEP_US = 1_000_000
"""So that a clock that is set forward is noticed."""

BLOCK_FRAMES = 500
"""Published at once at most: some 150 kB, 5 ms of work between two chances for the clients."""


class Feed(Protocol):
    """A market that can be published."""

    @property
    def exchange(self) -> str: ...

    @property
    def symbols(self) -> Sequence[str]: ...

    @property
    def session_id(self) -> str: ...

    def events(self) -> Iterator[tuple[int, bytes]]:
        """(event time in µs since the epoch, frame) pairs: sequence 1, 2, 3 …, no newline within a frame."""


class Publisher:
    """Publishes one feed into the journal's current session.

    Args:
        clock: microseconds since the epoch.
        speed: market time over clock time; 0 = as fast as it goes.
        start_us: clock time at which the first event is due; None: as soon as it is there.
        on_published: called after each block.
    """

    def __init__(
        self,
        feed: Feed,
        journal: Journal,
        metrics: ExchangeMetrics,
        faults: Faults,
        *,
        clock: Callable[[], int],
        speed: float,
        start_us: int | None,
        on_published: Callable[[], None],
    ) -> None:
        self._feed = feed
        self._journal = journal
        self._metrics = metrics
        self._faults = faults
        self._clock = clock
        self._speed = speed
        self._start_us = start_us
        self._on_published = on_published
        self._block: list[bytes] = []
        self._block_us = 0

    async def run(self) -> None:
        """Until the feed ends.

        Raises:
            JournalError: the disk refuses.
        """
        have = self._journal.current.last_sequence
        if have:
            logger.info("session %s is continued after frame %d", self._feed.session_id, have)
            self._metrics.sequence.set(have)
        first_us: int | None = None
        start_us = now_us = 0
        for sequence, (event_us, frame) in enumerate(self._feed.events(), 1):
            if sequence <= have:
                if sequence == have:
                    self._metrics.last_event.set(event_us / 1e6)
                if sequence % BLOCK_FRAMES == 0:
                    await asyncio.sleep(0)
                continue
            if first_us is None:
                first_us = event_us
                start_us = self._clock() if self._start_us is None else self._start_us
            if self._speed:
                due_us = start_us + int((event_us - first_us) / self._speed)
                while due_us > now_us:
                    now_us = self._clock()
                    if due_us > now_us:
                        self._flush()
                        await asyncio.sleep(min(max(due_us - now_us, TICK_US), LONGEST_SLEEP_US) / 1e6)
            self._block.append(frame)
            self._block_us = event_us
            if len(self._block) >= BLOCK_FRAMES:
                self._flush()
                await asyncio.sleep(0)
        self._flush()
        self._metrics.finished.set(1)
        logger.info("the feed has ended after frame %d; serving goes on", self._journal.current.last_sequence)

    def _flush(self) -> None:
        block = self._block
        if not block:
            return
        self._journal.append(block)
        last = self._journal.current.last_sequence
        self._metrics.published(block, last, self._block_us)
        if self._faults.enabled:
            for sequence, frame in enumerate(block, last - len(block) + 1):
                self._metrics.faulty(self._faults.of(sequence, frame))
        self._block = []
        self._on_published()
