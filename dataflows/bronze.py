"""bronze: the seven raw topics → the seven bronze tables of the lakehouse, every record once.

In: raw.* from the offsets that the tables' own snapshots carry. Out: Iceberg commits, one a table at most every
TICKHOUSE_BRONZE_COMMIT_SECONDS, or at 200,000 rows; what is no frame goes to dlq.processing before its offset
counts as read. Run with ``python -m dataflows.bronze``.

On a crash, anywhere: rows and offsets are one commit, so the next start reads on right behind the last row; no
record is missing and none stands twice by (topic, partition, offset). Dead letters may repeat. Bytewax keeps no
state here. SIGTERM commits what was read and exits with 0. A catalog, store or broker that is away is waited
for. As several processes (:mod:`dataflows.cluster`) each reads some partitions; all records of a table go to one
of them, so a table has one writer as before.
"""

from __future__ import annotations

import gc
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import NamedTuple

import bytewax.operators as op
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.run import cli_main
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from dataflows.dead_letters import DeadLetters
from dataflows.kafka import Frames, KafkaSource
from dataflows.metrics import (
    BRONZE_COMMIT_SECONDS,
    BRONZE_COMMITS,
    BRONZE_ROWS,
    FLOW_LATENCY,
    LAST_EVENT,
    SERVICE_READY,
    observe_latency,
    serve_metrics,
)
from dataflows.resume import resume_offsets
from dataflows.run import cluster, log_to_stderr
from dataflows.settings import StreamSettings
from dataflows.topics import TABLE_OF_TOPIC, Stopped, ensure_topics
from lakehouse.append import TRANSIENT, append_exactly_once, expire_snapshots
from lakehouse.catalog import CatalogUnavailableError, open_catalog
from lakehouse.frames import BLOCK, FrameParser, Records, Rejected
from lakehouse.memory import give_back
from lakehouse.settings import LakehouseSettings
from lakehouse.state import committed_offsets, offset_resets
from lakehouse.tables import create_tables
from lakehouse.texts import Keys, Texts

log = logging.getLogger(__name__)

FLOW = "bronze"
MAX_ROWS = 200_000
"""Rows at which a table commits early: 80 MB in Arrow, and a commit still takes well under a second."""
GC_THRESHOLD = 200_000
"""Objects made and not freed at which the garbage collector looks for cycles by itself: hardly ever."""
SAMPLES = 32
"""Event times of a commit that the metrics look at."""

Clock = Callable[[], datetime]


class Committed(NamedTuple):
    """One commit, for the metrics."""

    table: str
    rows: int
    seconds: float
    event_times_us: list[int]
    """Of some of the rows, evenly spread, and of the newest."""


class TableWriter:
    """Collects the records of one table and commits them."""

    def __init__(
        self,
        topic: str,
        table: Table,
        start: Mapping[int, int],
        dead_letters: DeadLetters,
        settings: LakehouseSettings,
        stop: threading.Event,
    ) -> None:
        """``start``: partition → committed offset that reading began from."""
        self._name = ".".join(table.name())
        self._table = table
        self._parser = FrameParser(self._name)
        self._dead_letters = dead_letters
        self._settings = settings
        self._stop = stop
        self._next = dict(start)
        self._resets = offset_resets(table)
        self._began_anew: dict[tuple[str, int], int] = {}
        self._topic = topic
        self._records: list[Records] = []
        self._parsed: list[pa.Table] = []
        self._rejected: list[Rejected] = []

    @property
    def waiting(self) -> int:
        """Records not committed yet."""
        parsed: int = sum(rows.num_rows for rows in self._parsed)
        return self._unparsed + parsed + len(self._rejected)

    @property
    def _unparsed(self) -> int:
        return sum(map(len, self._records))

    def add(self, records: Records, now: datetime) -> list[Committed]:
        """Take consecutive records of a partition in; commits when the partition's offsets began anew."""
        topic, partition = self._topic, int(records.partitions[0])
        first, last = int(records.offsets[0]), int(records.offsets[-1])
        commits = []
        if first < self._next.get(partition, 0):
            commits += self.commit(now)
            resets = self._resets.setdefault(topic, {})
            resets[partition] = resets.get(partition, 0) + 1
            self._began_anew[topic, partition] = resets[partition]
            log.error(
                "%s/%d: offset %d comes after %d: the topic was made anew or the broker lost messages. What comes "
                "is stored under its new offsets in %s, beside the rows that had them before.",
                *(topic, partition, first, self._next[partition] - 1, self._name),
            )
        self._next[partition] = last + 1
        self._records.append(records)
        if self._unparsed >= BLOCK:  # while they are in the processor's cache
            self._parse(now)
        return commits

    def _parse(self, now: datetime) -> None:
        if self._records:
            rows, rejected = self._parser.parse(Records.joined(self._records), now)
            self._parsed.append(rows)
            self._rejected += rejected
            self._records = []

    def commit(self, now: datetime) -> list[Committed]:
        """Commit what was taken in; nothing when nothing waits.

        Raises:
            Exception: what :func:`~lakehouse.append.append_exactly_once` raises; nothing is forgotten then.
            Stopped: the dead letters could not be delivered before the process was asked to stop.
        """
        if not self.waiting:
            return []
        began = time.perf_counter()
        self._parse(now)
        rows = pa.concat_tables(self._parsed)
        if self._rejected:
            self._dead_letters.send(self._rejected, now)
        appended = append_exactly_once(
            self._table, rows, {self._topic: self._next}, began_anew=self._began_anew, wait=self._stop.wait
        )
        if expire_snapshots(
            self._table, at=self._settings.snapshots_expire_at, keep=self._settings.snapshots_kept
        ):
            # Once in a hundred commits: what these left behind goes, and its memory with it.
            gc.collect()
            give_back()
        if appended.covered:
            log.warning(
                "%s: %d of %d rows were committed before, by an attempt that looked failed or by another writer",
                *(self._name, appended.covered, rows.num_rows),
            )
        self._parsed, self._rejected = [], []
        return [Committed(self._name, appended.rows, time.perf_counter() - began, _sample(rows["timestamp"]))]


class _CommitLogic(StatefulBatchLogic[Records, Committed, None]):
    """Decides when a table commits. One for each table, made with its first records."""

    def __init__(self, make_writer: Callable[[str], TableWriter], interval: timedelta, clock: Clock) -> None:
        self._make_writer = make_writer
        self._writer: TableWriter | None = None
        self._interval = interval
        self._clock = clock
        self._due: datetime | None = None

    def on_batch(self, values: list[Records]) -> tuple[Iterable[Committed], bool]:
        writer = self._writer = self._writer or self._make_writer(values[0].topic)
        commits: list[Committed] = []
        for records in values:
            commits += writer.add(records, self._clock())
            if writer.waiting >= MAX_ROWS:
                commits += writer.commit(self._clock())
        if not writer.waiting:
            self._due = None
        elif self._due is None:
            self._due = self._clock() + self._interval
        elif self._clock() >= self._due:  # a busy stream can keep the timer waiting
            commits += self._commit()
        return commits, StatefulBatchLogic.RETAIN

    def on_notify(self) -> tuple[Iterable[Committed], bool]:
        return self._commit(), StatefulBatchLogic.RETAIN

    def on_eof(self) -> tuple[Iterable[Committed], bool]:
        return self._commit(), StatefulBatchLogic.RETAIN

    def notify_at(self) -> datetime | None:
        return self._due

    def snapshot(self) -> None:
        return None

    def _commit(self) -> list[Committed]:
        self._due = None
        return self._writer.commit(self._clock()) if self._writer else []


class _MetricsPartition(StatelessSinkPartition[Committed]):
    def write_batch(self, items: list[Committed]) -> None:
        for commit in items:
            BRONZE_COMMITS.labels(commit.table).inc()
            BRONZE_ROWS.labels(commit.table).inc(commit.rows)
            BRONZE_COMMIT_SECONDS.observe(commit.seconds)
            if commit.event_times_us:
                observe_latency(FLOW_LATENCY.labels(FLOW), time.time(), commit.event_times_us)
                LAST_EVENT.set(max(commit.event_times_us) / 1e6)


class _MetricsSink(DynamicSink[Committed]):
    def build(self, step_id: str, worker_index: int, worker_count: int) -> _MetricsPartition:  # noqa: ARG002
        return _MetricsPartition()


def bronze_flow(
    settings: StreamSettings,
    lakehouse: LakehouseSettings,
    catalog: Catalog,
    stop: threading.Event,
    clock: Clock = lambda: datetime.now(UTC),
) -> Dataflow:
    """The flow: raw topics → records by table → commits → metrics. Ends when ``stop`` is set.

    Raises:
        Stopped: ``stop`` was set while waiting for the broker.
    """
    tables = {topic: catalog.load_table(name) for topic, name in TABLE_OF_TOPIC.items()}
    start = {topic: committed_offsets(table).get(topic, {}) for topic, table in tables.items()}
    resume = resume_offsets(settings, tables, start, stop)
    dead_letters = DeadLetters(settings, FLOW, stop)

    def make_writer(topic: str) -> TableWriter:
        return TableWriter(topic, tables[topic], start[topic], dead_letters, lakehouse, stop)

    interval = timedelta(seconds=settings.bronze_commit_seconds)
    source = KafkaSource(
        list(TABLE_OF_TOPIC),
        settings,
        flow=FLOW,
        stop=stop,
        start=lambda topic, part: resume.get((topic, part)),
        received=True,
    )
    flow = Dataflow(FLOW)
    frames = op.input("raw", flow, source)
    chunks = op.map("by_topic", frames, lambda frames: (frames.topic, _records(frames)))
    commits = op.stateful_batch("commit", chunks, lambda _: _CommitLogic(make_writer, interval, clock))
    op.output("metrics", op.key_rm("commits", commits), _MetricsSink())
    return flow


def _records(frames: Frames) -> Records:
    offsets = frames.offsets
    return Records(
        frames.topic,
        np.full(len(offsets), frames.partition),
        np.arange(offsets.start, offsets.stop) if isinstance(offsets, range) else np.array(offsets),
        np.asarray(frames.written_ms),
        np.asarray(frames.received_us),
        Keys.of(frames.keys),
        Texts.of(frames.values),
    )


def _sample(times: pa.ChunkedArray) -> list[int]:
    """Of timestamps, those that the metrics look at, in µs since the epoch."""
    known = pc.drop_null(times).cast("int64")
    if not len(known):
        return []
    places = range(0, len(known), max(1, len(known) // SAMPLES))
    return [*known.take(pa.array(places)).to_pylist(), pc.max(known).as_py()]


def _open_lakehouse(settings: LakehouseSettings, stop: threading.Event) -> Catalog:
    """The catalog with all tables, waited for while it is away.

    Raises:
        Stopped: ``stop`` was set while waiting.
    """
    wait = 0.2
    while True:
        try:
            catalog = open_catalog(settings)
            create_tables(catalog)
        except (CatalogUnavailableError, *TRANSIENT) as error:
            log.warning("no lakehouse yet: %s; trying again in %.1f s", error, wait)
        else:
            return catalog
        if stop.wait(wait):
            raise Stopped
        wait = min(wait * 2, 5.0)


def main() -> int:
    log_to_stderr()
    stop = threading.Event()

    def ask_to_stop(signum: int, _frame: FrameType | None) -> None:
        log.info("%s: committing what was read, then leaving", signal.Signals(signum).name)
        stop.set()

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    # Records wait for a commit by tens of thousands and are never part of a cycle: looking through them again and
    # again took a third of the time.
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    settings, lakehouse = StreamSettings(), LakehouseSettings()
    serve_metrics(settings.bronze_metrics_port)
    try:
        catalog = _open_lakehouse(lakehouse, stop)
        ensure_topics(settings, stop)
        flow = bronze_flow(settings, lakehouse, catalog, stop)
        cli_main(flow, **cluster())  # type: ignore[no-untyped-call]
    except Stopped:
        log.info("stopped while waiting; nothing was read")
    SERVICE_READY.set(0)
    log.info("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
