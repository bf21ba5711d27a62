"""Tables for readers who may not know who traded: personal columns replaced by pseudonyms, or left out.

In: tables of silver and gold, and the columns that their declarations call personal. Out: the tables of
:mod:`lakehouse.layers.governance`, brought up to date by whole days. On a crash: days and how far the source was
read are one commit; computing a day again gives the same rows.

A pseudonym is a keyed hash: an agent has the same one in every table, and without the key nobody finds it by
hashing the names of all agents. The key is ``TICKHOUSE_MASKING_KEY``, or one that is made at random once and
kept beside the lakehouse; a new key makes new pseudonyms for days computed from then on.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial

import pyarrow as pa

from lakehouse.batch import BatchSession, compare_and_swap
from lakehouse.days import computed_until, day_sql, read_until, replace_days, touched_days
from lakehouse.layers.governance import MASKED, Masked
from lakehouse.settings import LakehouseSettings
from lakehouse.snapshots import SnapshotFiles
from lakehouse.tables import arrow_schema


@dataclass(frozen=True, slots=True)
class MaskedResult:
    """What was done to a masked table."""

    days: tuple[date, ...]
    """UTC dates written anew."""
    rows: int
    snapshot_id: int | None


def publish_masked(session: BatchSession) -> dict[str, MaskedResult]:
    """Bring every masked table up to date with its source; table → what was done.

    Raises:
        CommitFailedException: other writers won every race; nothing is lost, run it again.
    """
    key = masking_key(session.settings)
    return {
        table.spec.name: compare_and_swap(table.spec.name, partial(_publish, session, table, key))
        for table in MASKED
    }


def masking_key(settings: LakehouseSettings) -> str:
    """The key of the pseudonyms; made and kept, readable to its owner alone, where none is set."""
    if settings.masking_key is not None:
        return settings.masking_key.get_secret_value()
    path = settings.lakehouse_dir / "masking.key"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):  # the first of two processes wins; the file is always whole
            path.hardlink_to(draft)
        draft.unlink()
    return path.read_text()


def masked_select(table: Masked, rows: str) -> str:
    """Select statement over ``rows`` of the source, with parameter ``$key`` where the table has pseudonyms."""
    names = ", ".join(
        f"substr(sha256($key || {column.name}), 1, 16) as {column.name}"
        if column.name in table.hashed
        else column.name
        for column in table.spec.columns
    )
    return f"select {names} from ({rows})"


def _publish(session: BatchSession, table: Masked, key: str) -> MaskedResult:
    target = session.catalog.load_table(table.spec.name)
    source = session.catalog.load_table(table.source.name)
    snapshot = session.manifests.files(table.source.name, source)
    days = touched_days(snapshot, read_until(target))
    written = 0
    if days:
        rows = _rows(session, table, snapshot, days, key)
        written = replace_days(session, target, days, rows, computed_until(snapshot.sequence_number))
    return MaskedResult(days, written, target.metadata.current_snapshot_id)


def _rows(
    session: BatchSession, table: Masked, snapshot: SnapshotFiles, days: Sequence[date], key: str
) -> Iterator[pa.Table]:
    """A record batch of a million rows at a time, so that memory does not grow with a day."""
    parameters = {"key": key} if table.hashed else {}
    with session.connection.cursor() as cursor:
        for day in days:
            statement = masked_select(table, day_sql(snapshot, day))
            for batch in cursor.execute(statement, parameters).to_arrow_reader(1_000_000):
                yield pa.Table.from_batches([batch]).cast(arrow_schema(table.spec.name))
