"""Appending Kafka records to an Iceberg table exactly once, and the commit that every writer shares.

In: rows with ``_kafka_topic``, ``_kafka_partition``, ``_kafka_offset``, and the offsets up to which the caller has
read. Out: one snapshot with the rows and the offsets.

On a crash: rows and offsets are one commit, so a restarted writer reads on exactly behind the last row. The
commit is a compare-and-swap against the head it was built on and is never repeated blindly: after any failure,
also one that leaves open whether the commit happened, the head is loaded again and rows it already covers are
dropped. So two writers that read the same partition cannot double a row either.
"""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.exceptions import (
    CommitFailedException,
    CommitStateUnknownException,
    OAuthError,
    RESTError,
    ValidationException,
)
from pyiceberg.io.pyarrow import (
    _check_pyarrow_schema_compatible,
    _determine_partitions,
    _to_requested_schema,
    pyarrow_to_schema,
    schema_to_pyarrow,
)
from pyiceberg.manifest import DataFile
from pyiceberg.partitioning import PartitionFieldValue, PartitionKey
from pyiceberg.table import Table, Transaction
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Summary
from pyiceberg.table.update import TableUpdate, _apply_table_update, _TableMetadataUpdateContext
from pyiceberg.table.update.snapshot import ExpireSnapshots
from pyiceberg.typedef import EMPTY_DICT
from requests.exceptions import RequestException  # type: ignore[import-untyped]
from sqlalchemy.exc import DBAPIError

from lakehouse.retention import expirable
from lakehouse.state import (
    OFFSETS,
    RESETS,
    Offsets,
    StateLostError,
    carried,
    committed_offsets,
    encode_offsets,
    offset_resets,
    read_state,
)
from lakehouse.writing import FileWriter

log = logging.getLogger(__name__)

TRANSIENT = (
    CommitFailedException,
    CommitStateUnknownException,
    RESTError,
    OAuthError,
    RequestException,
    DBAPIError,
    OSError,
)
"""What another writer, or a catalog or store that is away, brings. Anything else is a fault in the program or the
data: it is raised, and since nothing is taken for committed before it is read back, a restart goes on exactly."""

FIRST_WAIT_S = 0.05
LONGEST_WAIT_S = 5.0

Wait = Callable[[float], bool]
"""Waits so many seconds; True means: give up now (``threading.Event.wait`` of a stop flag fits)."""


@dataclass(frozen=True, slots=True)
class Appended:
    """Outcome of an append; the table object holds the new head."""

    rows: int
    """Rows committed."""
    covered: int
    """Rows dropped, because a commit before held them."""
    attempts: int


class FastTransaction(Transaction):
    """A transaction that works out its metadata once per change.

    pyiceberg 0.12 validates and copies the whole metadata, with all its snapshots, on every access, about twenty
    times an append, which is what makes a commit's cost grow with their number. Nobody changes the result in
    place, so no copy is needed, and the catalog checks it at the commit; both parts it is made of are immutable
    and compared by identity.

    Files that it wrote are removed when the block raises or the commit is refused; where it is not known whether
    the commit happened, they stay.
    """

    _made_of: tuple[TableMetadata, tuple[TableUpdate, ...]] | None = None
    _made: TableMetadata

    def __init__(self, table: Table) -> None:
        super().__init__(table)
        self._writers: list[FileWriter] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        refused = kind is not None
        try:
            super().__exit__(kind, error, trace)
        except (CommitFailedException, ValidationException):  # pyiceberg removes its manifests then
            refused = True
            raise
        finally:
            for writer in self._writers if refused else ():
                writer.remove()

    @property
    def table_metadata(self) -> TableMetadata:
        base, updates = self._table.metadata, self._updates
        if self._made_of is None or self._made_of[0] is not base or self._made_of[1] is not updates:
            context = _TableMetadataUpdateContext()
            self._made = base
            for update in updates:
                self._made = _apply_table_update(update, self._made, context)
            self._made_of = (base, updates)
        return self._made

    def append(
        self,
        df: pa.Table | pa.RecordBatchReader,
        snapshot_properties: dict[str, str] = EMPTY_DICT,
        branch: str | None = MAIN_BRANCH,
    ) -> None:
        """As pyiceberg's, but written by :meth:`write`."""
        tables = [df] if isinstance(df, pa.Table) else (pa.Table.from_batches([batch]) for batch in df)
        self.append_files(self.write(tables), snapshot_properties, branch)

    def write(self, tables: Iterable[pa.Table]) -> list[DataFile]:
        """Write rows as they come, a file for each partition, so that memory never holds them all. Nothing refers
        to the files before :meth:`append_files`.

        Args:
            tables: rows that the table can hold; best in its Arrow schema. May raise anything.

        Raises:
            ValueError: it cannot hold them.
        """
        metadata = self.table_metadata
        locations = load_location_provider(metadata.location, metadata.properties)
        commit, writers = uuid.uuid4(), dict[Any, FileWriter]()
        for table in tables:
            for partition, rows in _divided(metadata, _conformed(metadata, table)):
                values = None if partition is None else partition.partition
                if values not in writers:
                    path = locations.new_data_location(f"{commit}-{len(writers):05d}.parquet", partition)
                    writers[values] = FileWriter(self._table.io, metadata, path, values)
                    self._writers.append(writers[values])
                writers[values].write(rows)
                del rows
            del table
        return [writer.finish() for writer in writers.values()]

    def append_files(
        self, files: Sequence[DataFile], snapshot_properties: dict[str, str], branch: str | None = MAIN_BRANCH
    ) -> None:
        """A snapshot with the ``files``; where there are none, with the properties alone."""
        with self._append_snapshot_producer(snapshot_properties, branch=branch) as producer:
            for file in files:
                producer.append_data_file(file)


def _conformed(metadata: TableMetadata, rows: pa.Table) -> pa.Table:
    """Rows with the columns that the table has by now, where some were added since the writer began.

    Rows in the table's own schema are recognised at a glance: pyiceberg's check takes 10 to 50 ms.

    Raises:
        ValueError: these are no rows of the table.
    """
    if rows.schema == schema_to_pyarrow(metadata.schema(), include_field_ids=False):
        return rows
    schema, version = metadata.schema(), metadata.format_version
    _check_pyarrow_schema_compatible(schema, rows.schema, format_version=version)
    given = pyarrow_to_schema(rows.schema, schema.name_mapping, format_version=version)
    batches = [_to_requested_schema(schema, given, batch) for batch in rows.to_batches()]
    return pa.Table.from_batches(batches, schema_to_pyarrow(schema, include_field_ids=False))


def _divided(metadata: TableMetadata, rows: pa.Table) -> Iterator[tuple[PartitionKey | None, pa.Table]]:
    """Rows by the partition they belong to; the key is None where the table has no partitions."""
    if not rows.num_rows:
        return
    partition = _only_partition(metadata, rows)
    if partition is not None or not metadata.spec().fields:
        yield partition, rows
    else:
        for part in _determine_partitions(metadata.spec(), metadata.schema(), rows):
            yield part.partition_key, part.arrow_table_partition


def _only_partition(metadata: TableMetadata, rows: pa.Table) -> PartitionKey | None:
    """The partition that all rows belong to; None where they have to be divided, which copies them twice and costs
    half of what writing them does."""
    spec, schema = metadata.spec(), metadata.schema()
    if len(spec.fields) != 1:
        return None
    (field,) = spec.fields
    if not field.transform.preserves_order:  # else the bounds stand for all
        return None
    column = rows[schema.find_column_name(field.source_id)]
    bounds = pc.min_max(column)
    ends = pa.array([bounds["min"].as_py(), bounds["max"].as_py()], column.type)
    first, last = field.transform.pyarrow_transform(schema.find_type(field.source_id))(ends).to_pylist()
    if column.null_count or first != last:
        return None
    return PartitionKey([PartitionFieldValue(field, first)], spec, schema)


def transaction(table: Table) -> FastTransaction:
    """Changes to a table that become visible together, at the end of the ``with`` block; refused when another
    writer committed in between.

    Raises:
        CommitFailedException: another writer was faster; load the table again and redo the work.
    """
    return FastTransaction(table)


def append_exactly_once(
    table: Table,
    rows: pa.Table,
    offsets: Offsets,
    *,
    began_anew: Mapping[tuple[str, int], int] | None = None,
    wait: Wait | None = None,
) -> Appended:
    """Commit ``rows`` and ``offsets`` unless an earlier commit covers them.

    Args:
        table: refreshed in place; may be stale when given.
        rows: any rows of the table, in its Arrow schema; may be empty, then only the offsets move on.
        offsets: topic → partition → next offset to read: every record below was handled, be it a row or not.
        began_anew: (topic, partition) → number of resets that holds for these rows, where a topic was recreated or
            cut: rows of the partition count from the lower offsets again. Repeating it with the same number
            changes nothing.
        wait: pause between attempts; the default sleeps and never gives up.

    Raises:
        StateLostError: the table's snapshots carry no offsets although they should.
        Exception: a :data:`TRANSIENT` one after ``wait`` said to give up, or any other at once. Whether the commit
            happened may be unknown then; repeating the call is right in either case.
    """
    attempts = 0
    while True:
        attempts += 1
        try:
            if attempts > 1:
                table.refresh()
            return _attempt(table, rows, offsets, began_anew or {}, attempts)
        except TRANSIENT as error:
            pause = backoff(attempts)
            log.warning(
                "%s: commit %d failed (%s: %s); looking at the head again in %.2f s",
                *(".".join(table.name()), attempts, type(error).__name__, error, pause),
            )
            if (wait or _sleep)(pause):
                raise


def expire_snapshots(table: Table, *, at: int, keep: int) -> int:
    """Forget old snapshots once there are ``at`` of them; returns how many were forgotten.

    Which ones says :func:`lakehouse.retention.expirable`, ``keep`` being the number of newest ones that stay.
    Metadata only: their files stay until upkeep removes them. The head keeps the writers' state, so nothing is
    lost with the others. Another writer's commit in between makes it a no-op: the next call does it.

    Raises:
        StateLostError: the head carries no state while an older snapshot does.
    """
    if len(table.metadata.snapshots) < at:
        return 0
    head = table.current_snapshot()
    state = read_state(table)
    if head is not None and state and any(_summary(head.summary, key) != value for key, value in state.items()):
        raise StateLostError(
            f"{'.'.join(table.name())}: its head, written by another program, does not carry the state of its "
            f"writers; snapshots are kept until the next commit of a writer carries it on"
        )
    old = expirable(table.metadata, keep)
    if not old:
        return 0
    try:
        with transaction(table) as changes:
            ExpireSnapshots(changes).by_ids(old).commit()
    except (CommitFailedException, CommitStateUnknownException) as error:
        log.info("%s: snapshots not expired now: %s", ".".join(table.name()), error)
        return 0
    return len(old)


def _attempt(
    table: Table, rows: pa.Table, offsets: Offsets, began_anew: Mapping[tuple[str, int], int], attempts: int
) -> Appended:
    before, resets_before = committed_offsets(table), offset_resets(table)
    committed = {topic: dict(partitions) for topic, partitions in before.items()}
    resets = {topic: dict(partitions) for topic, partitions in resets_before.items()}
    for (topic, partition), count in began_anew.items():
        if resets.get(topic, {}).get(partition, 0) < count:
            resets.setdefault(topic, {})[partition] = count
            committed.get(topic, {}).pop(partition, None)
    fresh = _not_covered(rows, committed)
    for topic, partitions in offsets.items():
        known = committed.setdefault(topic, {})
        for partition, offset in partitions.items():
            known[partition] = max(offset, known.get(partition, 0))
    if fresh.num_rows or committed != before or resets != resets_before:
        state = {OFFSETS: encode_offsets(committed)}
        if resets:
            state[RESETS] = encode_offsets(resets)
        with transaction(table) as changes:
            changes.append(fresh, snapshot_properties=carried(table, state))
    return Appended(rows=fresh.num_rows, covered=rows.num_rows - fresh.num_rows, attempts=attempts)


def _not_covered(rows: pa.Table, committed: Offsets) -> pa.Table:
    if rows.num_rows == 0:
        return rows
    covered = None
    for topic, partitions in committed.items():
        of_topic = pc.equal(rows["_kafka_topic"], topic)
        for partition, offset in partitions.items():
            below = pc.and_(
                of_topic,
                pc.and_(pc.equal(rows["_kafka_partition"], partition), pc.less(rows["_kafka_offset"], offset)),
            )
            covered = below if covered is None else pc.or_(covered, below)
    return rows if covered is None or not pc.any(covered).as_py() else rows.filter(pc.invert(covered))


def _summary(summary: Summary | None, key: str) -> str | None:
    return None if summary is None else summary.additional_properties.get(key)


def backoff(attempts: int) -> float:
    """Seconds to wait after so many attempts: doubles with each; random, so that rivals do not meet again."""
    longest: float = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(attempts, 10))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False
