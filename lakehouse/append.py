"""Appending Kafka records to an Iceberg table exactly once, and the commit that every writer shares.

In: rows with ``_kafka_topic``, ``_kafka_partition``, ``_kafka_offset``, and the offsets up to which the caller has
read. Out: one snapshot with the rows and the offsets.

On a crash: rows and offsets are one commit, so a restarted writer reads on exactly behind the last row. The
commit is a compare-and-swap against the head it was built on and is never repeated blindly: after any failure,
also one that leaves open whether the commit happened, the head is loaded again and rows it already covers are
dropped. So two writers that read the same partition cannot double a row either.
"""

from __future__ import annotations

import json
import logging
import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.exceptions import (
    CommitFailedException,
    CommitStateUnknownException,
    OAuthError,
    RESTError,
)
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import (
    ParquetFormatWriter,
    _check_pyarrow_schema_compatible,
    _determine_partitions,
    parquet_path_to_id_mapping,
    pyarrow_to_schema,
    schema_to_pyarrow,
    write_file,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionFieldValue, PartitionKey
from pyiceberg.table import Table, Transaction, WriteTask
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Summary
from pyiceberg.table.update import TableUpdate, _apply_table_update, _TableMetadataUpdateContext
from pyiceberg.table.update.snapshot import ExpireSnapshots
from pyiceberg.typedef import EMPTY_DICT, Record
from pyiceberg.types import LongType, TimestamptzType
from requests.exceptions import RequestException  # type: ignore[import-untyped]
from sqlalchemy.exc import DBAPIError

from lakehouse.retention import expirable
from lakehouse.spec import KEY_PROPERTY
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
    """

    _made_of: tuple[TableMetadata, tuple[TableUpdate, ...]] | None = None
    _made: TableMetadata

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
        """As pyiceberg's, but rows that all belong to one partition are written as they are.

        It would copy them twice to divide them, which costs half of what writing them does.
        """
        metadata = self.table_metadata
        version = metadata.format_version
        partition = _only_partition(metadata, df)
        if partition is None:
            super().append(df, snapshot_properties, branch)
            return
        _check_compatible(metadata, df.schema)
        schema = pyarrow_to_schema(df.schema, metadata.schema().name_mapping, format_version=version)
        with self._append_snapshot_producer(snapshot_properties, branch=branch) as files:
            task = WriteTask(files.commit_uuid, 0, schema, df.to_batches(), partition_key=partition)
            for file in write_file(self._table.io, metadata, iter([task])):
                files.append_data_file(file)

    def write(self, tables: Iterable[pa.Table]) -> list[DataFile]:
        """Write rows as they come, a file for each partition, so that memory never holds them all. Nothing refers
        to the files before :meth:`append_files`. Whatever ``tables`` raises: the files are removed.

        Args:
            tables: in the table's Arrow schema.
        """
        metadata = self.table_metadata
        commit, writers = uuid.uuid4(), dict[Any, _FileWriter]()
        try:
            for table in tables:
                _check_compatible(metadata, table.schema)
                for partition, rows in _divided(metadata, table):
                    key = None if partition is None else partition.partition
                    if key not in writers:
                        task = WriteTask(commit, len(writers), metadata.schema(), [], partition_key=partition)
                        writers[key] = _FileWriter(self._table.io, metadata, task)
                    writers[key].write(rows)
                    del rows
                del table
            return [writer.finish() for writer in writers.values()]
        except BaseException:
            for writer in writers.values():
                writer.remove()
            raise

    @contextmanager
    def removed_on_error(self, files: Sequence[DataFile]) -> Iterator[None]:
        """Remove files that :meth:`write` made, whatever is raised."""
        try:
            yield
        except BaseException:
            for file in files:
                self._table.io.delete(file.file_path)
            raise

    def append_files(self, files: Sequence[DataFile], snapshot_properties: dict[str, str]) -> None:
        """A snapshot with the ``files``; where there are none, with the properties alone."""
        with self._append_snapshot_producer(snapshot_properties, branch=MAIN_BRANCH) as producer:
            for file in files:
                producer.append_data_file(file)


class _FileWriter(ParquetFormatWriter):
    """A data file as pyiceberg writes it, but part by part, each a row group; numbers that mostly rise are kept as
    their differences, and for ids, which are all different, no dictionary is begun: both are cheaper to write, and
    such columns take a third of the space or less."""

    def __init__(self, io: FileIO, metadata: TableMetadata, task: WriteTask) -> None:
        locations = load_location_provider(metadata.location, metadata.properties)
        self._path = locations.new_data_location(task.generate_data_file_filename("parquet"), task.partition_key)
        self._io, self._spec_id = io, metadata.default_spec_id
        self._partition = Record() if task.partition_key is None else task.partition_key.partition
        self._schema = schema_to_pyarrow(metadata.schema())
        super().__init__(io.new_output(self._path), metadata.schema(), metadata.properties)

    def write(self, table: pa.Table) -> None:
        if self._writer is None:
            self._fos = self._output_file.create(overwrite=True)
            rising = [
                field.name
                for field in self._file_schema.fields
                if isinstance(field.field_type, (LongType, TimestamptzType))
            ]
            different = {*rising, *json.loads(self._properties.get(KEY_PROPERTY, "[]"))}
            self._writer = pq.ParquetWriter(
                self._fos,
                self._schema,
                store_decimal_as_integer=True,
                use_dictionary=[p for p in parquet_path_to_id_mapping(self._file_schema) if p not in different],
                column_encoding=dict.fromkeys(rising, "DELTA_BINARY_PACKED"),
                **self._parquet_writer_kwargs,
            )
        for batch in table.to_batches():
            named = pa.RecordBatch.from_arrays(batch.columns, schema=self._schema)
            self._writer.write_batch(named, self._row_group_size)

    def finish(self) -> DataFile:
        """Close the file; its statistics."""
        statistics = self.close()
        return DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=self._path,
            file_format=FileFormat.PARQUET,
            partition=self._partition,
            file_size_in_bytes=len(self._output_file),
            sort_order_id=None,
            spec_id=self._spec_id,
            equality_ids=None,
            key_metadata=None,
            **statistics.to_serialized_dict(),
        )

    def remove(self) -> None:
        """Leave nothing of the file."""
        if self._writer is not None:
            if self._writer.is_open:
                self.close()
            self._io.delete(self._path)


def _check_compatible(metadata: TableMetadata, schema: pa.Schema) -> None:
    """Raises ValueError: rows of this schema are none of the table's. Where the schema is the table's own, that is
    seen at a glance: pyiceberg makes a table of words for a message, which takes 10 to 50 ms."""
    if schema != schema_to_pyarrow(metadata.schema(), include_field_ids=False):
        _check_pyarrow_schema_compatible(metadata.schema(), schema, format_version=metadata.format_version)


def _divided(metadata: TableMetadata, rows: pa.Table) -> Iterator[tuple[PartitionKey | None, pa.Table]]:
    """Rows by the partition they belong to; the key is None where the table has no partitions."""
    partition = _only_partition(metadata, rows)
    if partition is not None or not metadata.spec().fields:
        yield partition, rows
    elif rows.num_rows:
        for part in _determine_partitions(metadata.spec(), metadata.schema(), rows):
            yield part.partition_key, part.arrow_table_partition


def _only_partition(metadata: TableMetadata, rows: pa.Table | pa.RecordBatchReader) -> PartitionKey | None:
    """The partition that all rows belong to; None where they have to be divided, or there are none."""
    spec, schema = metadata.spec(), metadata.schema()
    if isinstance(rows, pa.RecordBatchReader) or len(spec.fields) != 1 or not rows.num_rows:
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


@contextmanager
def transaction(table: Table) -> Iterator[FastTransaction]:
    """Changes to a table that become visible together; refused when another writer committed in between.

    Raises:
        CommitFailedException: another writer was faster; load the table again and redo the work.
    """
    changes = FastTransaction(table)
    with changes:
        yield changes


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
