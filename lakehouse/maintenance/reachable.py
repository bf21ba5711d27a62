"""Which files a table needs: what its metadata names, directly or through manifests.

In: a table's metadata. Out: addresses as the metadata writes them. Neither a manifest nor a list of them ever
changes, so each is read once, for as long as it is :class:`Known`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from pyiceberg.io import FileIO
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot


@dataclass(slots=True)
class Files:
    """Files that snapshots are made of."""

    lists: set[str] = field(default_factory=set)
    """Manifest lists."""
    manifests: set[str] = field(default_factory=set)
    data: dict[str, int] = field(default_factory=dict)
    """Data and delete files, with their size."""

    def all(self) -> set[str]:
        return self.lists | self.manifests | self.data.keys()


@dataclass(slots=True)
class Known:
    """What was read of a table's snapshots."""

    lists: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Manifest list → manifests."""
    manifests: dict[str, dict[str, int]] = field(default_factory=dict)
    """Manifest → data and delete files, with their size."""

    def read(self, io: FileIO, snapshot: Snapshot) -> tuple[str, ...]:
        """Manifests of the snapshot, all of which are known then."""
        paths = self.lists.get(snapshot.manifest_list)
        if paths is not None:
            return paths
        found = []
        for manifest in snapshot.manifests(io):
            path = sys.intern(manifest.manifest_path)  # a hundred lists name it
            found.append(path)
            if path not in self.manifests:
                entries = manifest.fetch_manifest_entry(io, discard_deleted=True)
                files = (entry.data_file for entry in entries)
                self.manifests[path] = {file.file_path: file.file_size_in_bytes for file in files}
        self.lists[snapshot.manifest_list] = tuple(found)
        return self.lists[snapshot.manifest_list]

    def forget(self, needed: Files) -> None:
        """All but what is needed."""
        for path in self.lists.keys() - needed.lists:
            del self.lists[path]
        for path in self.manifests.keys() - needed.manifests:
            del self.manifests[path]


def files_of(
    io: FileIO, snapshots: Iterable[Snapshot], beyond: Collection[str] = (), known: Known | None = None
) -> Files:
    """Files of ``snapshots``; manifests that are in ``beyond`` are left out, and what only they name."""
    found, known = Files(), Known() if known is None else known
    for snapshot in snapshots:
        found.lists.add(snapshot.manifest_list)
        for path in known.read(io, snapshot):
            if path not in found.manifests and path not in beyond:
                found.manifests.add(path)
                found.data |= known.manifests[path]
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
