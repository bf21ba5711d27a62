"""Which files a table needs: what its metadata names, directly or through manifests.

In: a table's metadata. Out: addresses as the metadata writes them. A manifest never changes, so it is read once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pyiceberg.io import FileIO
from pyiceberg.manifest import ManifestFile
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot


@dataclass(slots=True)
class Files:
    """Files that snapshots are made of."""

    lists: set[str] = field(default_factory=set)
    """Manifest lists."""
    manifests: dict[str, ManifestFile] = field(default_factory=dict)
    data: dict[str, int] = field(default_factory=dict)
    """Data and delete files, with their size."""

    def all(self) -> set[str]:
        return self.lists | self.manifests.keys() | self.data.keys()


def files_of(io: FileIO, snapshots: Iterable[Snapshot], beyond: Mapping[str, ManifestFile] | None = None) -> Files:
    """Files of ``snapshots``; manifests that are in ``beyond`` are left out, and what only they name."""
    found = Files()
    for snapshot in snapshots:
        found.lists.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(io):
            path = manifest.manifest_path
            if path in found.manifests or (beyond is not None and path in beyond):
                continue
            found.manifests[path] = manifest
            for entry in manifest.fetch_manifest_entry(io, discard_deleted=True):
                found.data[entry.data_file.file_path] = entry.data_file.file_size_in_bytes
    return found


def named_by(metadata: TableMetadata) -> set[str]:
    """Files that the metadata names without a snapshot: its earlier versions and statistics."""
    return (
        {entry.metadata_file for entry in metadata.metadata_log}
        | {statistics.statistics_path for statistics in metadata.statistics}
        | {statistics.statistics_path for statistics in metadata.partition_statistics}
    )


def delete(io: FileIO, path: str) -> None:
    """Delete a file that nothing names any more; one that is gone already is fine, so that two runs may meet."""
    with contextlib.suppress(FileNotFoundError):
        io.delete(path)
