"""Writing a table's data files: all of them are written here, so that they are all alike.

In: rows in the table's Arrow schema, part by part. Out: a Parquet file, each part a row group or more, and the
``DataFile`` that a commit takes. Numbers that mostly rise are kept as their differences, and of ids, which hardly
repeat, no dictionary is begun: both are cheaper to write, and such columns take a third of the space.

On a crash: a file that no commit names is an orphan, which upkeep removes.
"""

from __future__ import annotations

import json
import logging

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import ParquetFormatWriter, parquet_path_to_id_mapping, schema_to_pyarrow
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.typedef import Record
from pyiceberg.types import LongType, TimestamptzType

from lakehouse.spec import DISTINCT_PROPERTY

log = logging.getLogger(__name__)


class FileWriter(ParquetFormatWriter):
    """A data file of one partition, as pyiceberg writes it but for the encodings.

    Args:
        io: of the table.
        metadata: its schema, partitions and properties.
        path: of the file, which is made with the first rows.
        partition: the values that all rows have.
        sort_order_id: of the order that the rows come in, where they do.
    """

    def __init__(
        self,
        io: FileIO,
        metadata: TableMetadata,
        path: str,
        partition: Record | None = None,
        sort_order_id: int | None = None,
    ) -> None:
        super().__init__(io.new_output(path), metadata.schema(), metadata.properties)
        self._path, self._io = path, io
        self._partition, self._spec_id = partition or Record(), metadata.default_spec_id
        self._sort_order_id = sort_order_id
        self._schema = schema_to_pyarrow(metadata.schema())

    def write(self, table: pa.Table) -> None:
        """Rows in the table's Arrow schema, with or without the ids of its fields.

        Raises:
            ValueError: a column is null somewhere that must not be. Of a list Arrow would make an empty one.
        """
        if wrong := [f.name for f in self._schema if not f.nullable and table[f.name].null_count]:
            raise ValueError(f"{self._path}: {', '.join(wrong)} must not be null")
        if self._writer is None:
            self._fos = self._output_file.create(overwrite=True)
            rising = [
                field.name
                for field in self._file_schema.fields
                if isinstance(field.field_type, (LongType, TimestamptzType))
            ]
            different = {*rising, *json.loads(self._properties.get(DISTINCT_PROPERTY, "[]"))}
            self._writer = pq.ParquetWriter(
                self._fos,
                self._schema,
                store_decimal_as_integer=True,
                use_dictionary=[p for p in parquet_path_to_id_mapping(self._file_schema) if p not in different],
                column_encoding=dict.fromkeys(rising, "DELTA_BINARY_PACKED"),
                **self._parquet_writer_kwargs,
            )
        self._writer.write_table(pa.Table.from_arrays(table.columns, schema=self._schema), self._row_group_size)

    def finish(self) -> DataFile:
        """Close the file; what a commit says of it."""
        statistics = self.close()
        return DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=self._path,
            file_format=FileFormat.PARQUET,
            partition=self._partition,
            file_size_in_bytes=len(self._output_file),
            sort_order_id=self._sort_order_id,
            spec_id=self._spec_id,
            equality_ids=None,
            key_metadata=None,
            **statistics.to_serialized_dict(),
        )

    def remove(self) -> None:
        """Leave nothing of the file; where its store is away, the file is left to the sweep of orphans."""
        if self._writer is None:
            return
        try:
            if self._writer.is_open:
                self.close()
            self._io.delete(self._path)
        except OSError as error:
            log.warning("%s, which no commit names, was not removed: %s", self._path, error)
