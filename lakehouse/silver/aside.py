"""Rows kept aside, on disk, until all have been seen: those of one key come back together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc


class Aside:
    """Tables of rows by the number of their bucket, in files that go with the ``with`` block."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="tickhouse-aside-")
        self._writers: dict[int, pa.ipc.RecordBatchStreamWriter] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._writers.values():
            writer.close()
        self._folder.cleanup()

    def add(self, rows: pa.Table, buckets: pa.ChunkedArray) -> None:
        """Rows, always with the same columns, and the bucket of each."""
        for bucket in pc.unique(buckets).to_pylist():
            if bucket not in self._writers:
                self._writers[bucket] = pa.ipc.new_stream(self._path(bucket), rows.schema)
            self._writers[bucket].write_table(rows.filter(pc.equal(buckets, bucket)))

    def __iter__(self) -> Iterator[pa.Table]:
        """All rows of each bucket that has some. Nothing can be added any more."""
        for bucket, writer in self._writers.items():
            writer.close()
            with pa.OSFile(self._path(bucket)) as file:
                yield pa.ipc.open_stream(file).read_all()

    def _path(self, bucket: int) -> str:
        return str(Path(self._folder.name) / str(bucket))
