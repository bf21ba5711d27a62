"""Orphans: files below a table that nothing names, left by writers that were killed or refused.

In: a table and an age. Out: deletions; an :class:`Orphans` report, which for a dry run lists what would go.

Never deleted is what the table's metadata names, in any snapshot it keeps, and what is younger than the age: the
file of a commit that is going on is named by nothing yet. Files are listed first and the metadata read after that,
so that a commit in between is honoured. On a crash: run it again.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from pyarrow.fs import FileSelector, FileType
from pyiceberg.catalog import Catalog
from pyiceberg.io.pyarrow import PyArrowFileIO

from lakehouse.maintenance.metrics import observed, removed
from lakehouse.maintenance.reachable import files_of, named_by

log = logging.getLogger(__name__)

OPERATION = "orphans"
AGE = timedelta(days=1)
LEAST_AGE = timedelta(hours=1)
"""Longer than any commit takes, from its first file to the catalog."""


@dataclass(frozen=True, slots=True)
class Orphans:
    """What a run did, or would do."""

    table: str
    paths: tuple[str, ...] = ()
    """Files deleted, or for a dry run found."""
    size: int = 0
    """Bytes of these."""
    young: int = 0
    """Files that nothing names but that are too young to be sure."""


def remove_orphans(
    catalog: Catalog, name: str, *, now: datetime, older_than: timedelta = AGE, dry_run: bool = False
) -> Orphans:
    """Delete files of table ``name`` that nothing names and that are older than ``older_than`` at ``now``.

    Raises:
        ValueError: an age below :data:`LEAST_AGE`; files of commits that are going on could be deleted.
        RuntimeError: the table's own files are not where they are listed; nothing was deleted.
    """
    if older_than < LEAST_AGE:
        raise ValueError(f"orphans younger than {LEAST_AGE} may belong to a commit that is going on: {older_than}")
    with observed(name, OPERATION):
        table = catalog.load_table(name)
        if not isinstance(table.io, PyArrowFileIO):
            raise TypeError(f"{name}: files cannot be listed through {type(table.io).__name__}")
        scheme, netloc, root = PyArrowFileIO.parse_location(table.location())
        filesystem = table.io.fs_by_scheme(scheme, netloc)
        listed = [
            info
            for folder in ("data", "metadata")
            for info in filesystem.get_file_info(
                FileSelector(f"{root.rstrip('/')}/{folder}", allow_not_found=True, recursive=True)
            )
            if info.type == FileType.File
        ]
        if _path(table.metadata_location) not in {info.path for info in listed}:
            raise RuntimeError(
                f"{name}: its metadata file {table.metadata_location} is not among the files listed below {root}: "
                f"what nothing names cannot be told from the rest; nothing was deleted"
            )
        table = catalog.load_table(name)
        addresses = files_of(table.io, table.metadata.snapshots).all() | named_by(table.metadata)
        needed = {_path(address) for address in addresses | {table.metadata_location}}
        unnamed = [info for info in listed if info.path not in needed]
        old = [info for info in unnamed if info.mtime is not None and now - info.mtime > older_than]
        if not dry_run:
            for info in old:
                with contextlib.suppress(FileNotFoundError):  # another run was faster
                    filesystem.delete_file(info.path)
        report = Orphans(
            name, tuple(info.path for info in old), sum(info.size for info in old), len(unnamed) - len(old)
        )
    if not dry_run:
        removed(name, OPERATION, len(report.paths), report.size)
        log.info("%s: %d orphans deleted, %d bytes, %d too young", name, len(old), report.size, report.young)
    return report


def _path(address: str) -> str:
    """An address of the metadata as the file system lists it."""
    return PyArrowFileIO.parse_location(address)[2]
