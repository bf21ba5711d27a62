"""Exactly-once appends: refused, doubtful and rival commits, state that survives expiry."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException
from pyiceberg.table import Table, Transaction
from pyiceberg.types import StringType
from sqlalchemy import event
from sqlalchemy.engine import Engine

from lakehouse.append import append_exactly_once, expire_snapshots, transaction
from lakehouse.settings import LakehouseSettings
from lakehouse.state import WATERMARK, StateLostError, carried, committed_offsets, offset_resets, read_state
from lakehouse.tables import arrow_schema

NAME = "bronze.trades"
TOPIC = "raw.trades"
NOW = datetime(2026, 3, 2, 10, tzinfo=UTC)


def rows(offsets: range, partition: int = 0) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "event_id": f"e{partition}.{offset}",
                "timestamp": NOW,
                "sequence": offset,
                "trade_id": f"t{partition}.{offset}",
                "symbol": "AAPL",
                "price": Decimal("1.5"),
                "quantity": Decimal(3),
                "buy_order_id": "b",
                "sell_order_id": "s",
                "buyer_agent_id": "x",
                "seller_agent_id": "y",
                "is_aggressive_buy": True,
                "_kafka_topic": TOPIC,
                "_kafka_partition": partition,
                "_kafka_offset": offset,
                "_kafka_timestamp": NOW,
                "_received_at": NOW,
                "_ingested_at": NOW,
            }
            for offset in offsets
        ],
        schema=arrow_schema(NAME),
    )


def stored(catalog: Catalog) -> list[tuple[int, int]]:
    found = catalog.load_table(NAME).scan().to_arrow().to_pylist()
    return sorted((row["_kafka_partition"], row["_kafka_offset"]) for row in found)


def positions(offsets: range, partition: int = 0) -> list[tuple[int, int]]:
    return [(partition, offset) for offset in offsets]


def no_wait(_: float) -> bool:
    return False


@pytest.fixture
def table(catalog: Catalog) -> Table:
    return catalog.load_table(NAME)


def test_rows_and_offsets_become_visible_together(catalog: Catalog, table: Table) -> None:
    appended = append_exactly_once(table, rows(range(5)), {TOPIC: {0: 5}})
    assert (appended.rows, appended.covered, appended.attempts) == (5, 0, 1)
    assert committed_offsets(catalog.load_table(NAME)) == {TOPIC: {0: 5}}
    assert stored(catalog) == positions(range(5))


def test_repeating_an_append_changes_nothing(catalog: Catalog, table: Table) -> None:
    append_exactly_once(table, rows(range(5)), {TOPIC: {0: 5}})
    before = table.metadata_location
    again = append_exactly_once(table, rows(range(5)), {TOPIC: {0: 5}})
    assert (again.rows, again.covered) == (0, 5)
    assert catalog.load_table(NAME).metadata_location == before


def test_only_the_rows_that_no_commit_covers_are_appended(catalog: Catalog, table: Table) -> None:
    append_exactly_once(table, pa.concat_tables([rows(range(5)), rows(range(3), 1)]), {TOPIC: {0: 5, 1: 3}})
    both = pa.concat_tables([rows(range(3, 8)), rows(range(4), 1)])
    appended = append_exactly_once(table, both, {TOPIC: {0: 8, 1: 4}})
    assert (appended.rows, appended.covered) == (4, 5)
    assert stored(catalog) == positions(range(8)) + positions(range(4), 1)


def test_offsets_move_on_without_rows_and_never_back(catalog: Catalog, table: Table) -> None:
    append_exactly_once(table, rows(range(0)), {TOPIC: {0: 7, 3: 2}})
    append_exactly_once(table, rows(range(0)), {TOPIC: {0: 6}})
    assert committed_offsets(catalog.load_table(NAME)) == {TOPIC: {0: 7, 3: 2}}


def test_a_stale_writer_loads_the_head_again_and_drops_what_it_covers(catalog: Catalog, table: Table) -> None:
    rival = catalog.load_table(NAME)
    append_exactly_once(rival, rows(range(6)), {TOPIC: {0: 6}})
    appended = append_exactly_once(table, rows(range(10)), {TOPIC: {0: 10}}, wait=no_wait)
    assert (appended.rows, appended.covered, appended.attempts) == (4, 6, 2)
    assert stored(catalog) == positions(range(10))


def test_a_commit_that_happened_although_it_reported_an_error_is_not_repeated(
    catalog: Catalog, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = Table._do_commit

    def commit_then_fail(self: Table, *args: Any, **kwargs: Any) -> None:
        monkeypatch.setattr(Table, "_do_commit", commit)
        catalog.load_table(NAME)._do_commit(*args, **kwargs)
        raise CommitStateUnknownException("the answer was lost")

    monkeypatch.setattr(Table, "_do_commit", commit_then_fail)
    appended = append_exactly_once(table, rows(range(4)), {TOPIC: {0: 4}}, wait=no_wait)
    assert (appended.rows, appended.covered, appended.attempts) == (0, 4, 2)
    assert stored(catalog) == positions(range(4))


def test_it_waits_for_a_catalog_that_is_away_until_told_to_give_up(catalog: Catalog, table: Table) -> None:
    engine: Engine = catalog.engine  # type: ignore[attr-defined]

    def refuse(*_: Any) -> None:
        raise OSError("no catalog")

    event.listen(engine, "do_connect", refuse)
    event.listen(engine, "engine_connect", refuse)
    waits: list[float] = []

    def give_up_at_the_third(pause: float) -> bool:
        waits.append(pause)
        return len(waits) == 3

    with pytest.raises(OSError, match="no catalog"):
        append_exactly_once(table, rows(range(4)), {TOPIC: {0: 4}}, wait=give_up_at_the_third)
    assert len(waits) == 3
    event.remove(engine, "do_connect", refuse)
    event.remove(engine, "engine_connect", refuse)
    append_exactly_once(table, rows(range(4)), {TOPIC: {0: 4}}, wait=no_wait)
    assert stored(catalog) == positions(range(4))


def test_a_fault_in_the_rows_is_raised_at_once(table: Table) -> None:
    def never(_: float) -> bool:
        raise AssertionError("waited")

    with pytest.raises(ValueError, match="Mismatch"):
        append_exactly_once(table, rows(range(3)).drop_columns(["price"]), {TOPIC: {0: 3}}, wait=never)


@pytest.mark.parametrize("name", ["bids", "symbol"])
def test_a_null_that_must_not_be_is_refused_in_a_list_too(
    catalog: Catalog, settings: LakehouseSettings, name: str
) -> None:
    books = catalog.load_table("bronze.orderbook_snapshots")
    book = {"event_id": "e", "timestamp": NOW, "symbol": "AAPL", "bids": [], "asks": [], "_ingested_at": NOW}
    kafka = {"_kafka_topic": "raw.orderbook-snapshots", "_kafka_partition": 0, "_kafka_offset": 0}
    given = [{**book, **kafka}, {**book, **kafka, name: None}]
    with pytest.raises(ValueError, match=f"{name} must not be null"):
        append_exactly_once(
            books, pa.Table.from_pylist(given, schema=arrow_schema("bronze.orderbook_snapshots")), {TOPIC: {0: 2}}
        )
    assert data_files(settings) == []


RIVAL = """
import sys
from test_rows import NAME, TOPIC, rows
from lakehouse.append import append_exactly_once
from lakehouse.catalog import open_catalog
from lakehouse.settings import LakehouseSettings
from lakehouse.state import committed_offsets
table = open_catalog(LakehouseSettings()).load_table(NAME)
while True:
    start = committed_offsets(table).get(TOPIC, {}).get(0, 0)
    if start >= 600:
        break
    append_exactly_once(table, rows(range(start, start + 20)), {TOPIC: {0: start + 20}})
    table.refresh()
"""


def test_two_rival_processes_on_one_partition_store_every_row_once(
    catalog: Catalog, settings: LakehouseSettings, tmp_path: Path
) -> None:
    (tmp_path / "test_rows.py").write_text(Path(__file__).read_text())
    environment = {"TICKHOUSE_DATA_DIR": str(settings.data_dir), "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    rivals = [
        subprocess.Popen([sys.executable, "-c", RIVAL], env=environment, stderr=subprocess.PIPE) for _ in range(2)
    ]
    refused = 0
    for rival in rivals:
        _, errors = rival.communicate(timeout=120)
        assert rival.returncode == 0, errors.decode()
        refused += errors.decode().count("looking at the head again")
    assert refused > 0, "the rivals never met: the test proves nothing"
    assert stored(catalog) == positions(range(600))


def test_a_partition_that_began_anew_counts_from_its_new_offsets_once(catalog: Catalog, table: Table) -> None:
    append_exactly_once(table, rows(range(10)), {TOPIC: {0: 10, 1: 4}})
    anew = {(TOPIC, 0): 1}
    first = append_exactly_once(table, rows(range(3)), {TOPIC: {0: 3}}, began_anew=anew)
    again = append_exactly_once(table, rows(range(3)), {TOPIC: {0: 3}}, began_anew=anew)
    assert (first.rows, again.rows) == (3, 0)
    head = catalog.load_table(NAME)
    assert committed_offsets(head) == {TOPIC: {0: 3, 1: 4}}
    assert offset_resets(head) == {TOPIC: {0: 1}}


def test_a_writer_that_is_older_than_a_column_leaves_it_empty(catalog: Catalog, table: Table) -> None:
    with catalog.load_table(NAME).update_schema() as update:
        update.add_column("venue", StringType())
    append_exactly_once(table, rows(range(2)), {TOPIC: {0: 2}})
    append_exactly_once(catalog.load_table(NAME), rows(range(2, 4)), {TOPIC: {0: 4}})
    assert stored(catalog) == positions(range(4))
    assert catalog.load_table(NAME).scan().to_arrow()["venue"].to_pylist() == [None] * 4


@pytest.mark.parametrize("days", [(0,), (0, 1), (-1, 0, 0)])
def test_files_are_as_pyiceberg_would_write_them(table: Table, days: tuple[int, ...]) -> None:
    """But for how their columns are encoded. Rows of one day take a shorter way."""
    column = pa.array([NOW + timedelta(days=day) for day in days], pa.timestamp("us", "UTC"))
    place, field = 1, arrow_schema(NAME).field("timestamp")
    given = rows(range(len(days))).set_column(place, field, column)

    def as_they_come(changes: Any) -> None:
        changes.append_files(changes.write([given]), {})

    def written(
        transaction: AbstractContextManager[Transaction],
        add: Callable[[Any], None] = lambda changes: changes.append(given),
    ) -> list[dict[str, Any]]:
        before = {task.file.file_path for task in table.scan().plan_files()}
        with transaction as changes:
            add(changes)
        files = [task.file for task in table.scan().plan_files() if task.file.file_path not in before]
        names = ("partition", "record_count", "spec_id", "lower_bounds", "upper_bounds", "null_value_counts")
        found = [{name: getattr(file, name) for name in names} for file in files]
        return sorted(found, key=lambda file: file["partition"][0])

    found = written(transaction(table))
    assert found == written(table.transaction())
    assert found == written(transaction(table), as_they_come)
    assert [file["record_count"] for file in found] == [days.count(day) for day in sorted(set(days))]


def test_expiring_keeps_the_newest_snapshots_and_loses_no_state(catalog: Catalog, table: Table) -> None:
    append_exactly_once(table, rows(range(2)), {TOPIC: {0: 2}, "other": {5: 9}})
    for number in range(1, 8):
        append_exactly_once(table, rows(range(2 * number, 2 * number + 2)), {TOPIC: {0: 2 * number + 2}})
    assert expire_snapshots(table, at=9, keep=3) == 0
    assert expire_snapshots(table, at=8, keep=3) == 5
    head = catalog.load_table(NAME)
    assert len(head.snapshots()) == 3
    assert committed_offsets(head) == {TOPIC: {0: 16}, "other": {5: 9}}
    assert stored(catalog) == positions(range(16))
    append_exactly_once(head, rows(range(20)), {TOPIC: {0: 20}})
    assert stored(catalog) == positions(range(20))


def test_expiring_steps_back_for_a_writer_that_commits_meanwhile(catalog: Catalog, table: Table) -> None:
    for number in range(5):
        append_exactly_once(table, rows(range(number, number + 1)), {TOPIC: {0: number + 1}})
    append_exactly_once(catalog.load_table(NAME), rows(range(5, 6)), {TOPIC: {0: 6}})
    expire_snapshots(table, at=5, keep=2)
    append_exactly_once(table, rows(range(8)), {TOPIC: {0: 8}}, wait=no_wait)
    assert stored(catalog) == positions(range(8))


@pytest.mark.parametrize(
    "commit", [lambda t: t.append(rows(range(90, 91))), lambda t: t.delete("symbol = 'AAPL'")]
)
def test_a_commit_of_a_stranger_does_not_hide_the_state(
    catalog: Catalog, table: Table, commit: Callable[[Table], None]
) -> None:
    append_exactly_once(table, rows(range(4)), {TOPIC: {0: 4}})
    commit(table)
    assert committed_offsets(catalog.load_table(NAME)) == {TOPIC: {0: 4}}
    with pytest.raises(StateLostError, match="another program"):
        expire_snapshots(table, at=2, keep=1)


def test_lost_state_is_an_error_and_not_a_start_from_nothing(catalog: Catalog, table: Table) -> None:
    append_exactly_once(table, rows(range(4)), {TOPIC: {0: 4}})
    table.append(rows(range(90, 91)))
    table.maintenance.expire_snapshots().by_id(table.snapshots()[0].snapshot_id).commit()
    with pytest.raises(StateLostError, match=r"bronze\.trades"):
        append_exactly_once(catalog.load_table(NAME), rows(range(8)), {TOPIC: {0: 8}})


def test_other_state_is_carried_on_by_every_commit(catalog: Catalog, table: Table) -> None:
    with transaction(table) as changes:
        changes.append(rows(range(0)), snapshot_properties=carried(table, {WATERMARK: "7"}))
    append_exactly_once(table, rows(range(4)), {TOPIC: {0: 4}})
    assert read_state(catalog.load_table(NAME))[WATERMARK] == "7"


def data_files(settings: LakehouseSettings) -> list[Path]:
    return list(settings.lakehouse_dir.rglob("*.parquet"))


def test_rows_written_as_they_come_are_in_a_file_for_each_day_and_there_once_it_is_committed(
    catalog: Catalog, table: Table, settings: LakehouseSettings
) -> None:
    first, second = rows(range(3)), rows(range(3, 5))
    days = [NOW, NOW + timedelta(days=1), NOW]
    column = first.schema.get_field_index("timestamp")
    first = first.set_column(column, first.schema.field(column), pa.array(days, first.schema.field(column).type))
    with transaction(table) as commit:
        files = commit.write(iter([first, second, second.slice(0, 0)]))
        assert stored(catalog) == []
        commit.append_files(files, {"a": "b"})
    assert stored(catalog) == positions(range(5))
    assert sorted(file.record_count for file in files) == [1, 4]
    assert len(data_files(settings)) == 2
    read = catalog.load_table(NAME).scan().to_arrow().sort_by("_kafka_offset")
    assert read.equals(pa.concat_tables([first, second]).cast(read.schema))


def test_nothing_is_left_of_files_whose_rows_end_in_an_error(table: Table, settings: LakehouseSettings) -> None:
    def broken() -> Iterator[pa.Table]:
        yield rows(range(3))
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"), transaction(table) as commit:
        commit.write(broken())
    with pytest.raises(ValueError, match="other"), transaction(table) as commit:
        commit.write([rows(range(3)), pa.table({"other": [1]})])
    with pytest.raises(AttributeError), transaction(table) as commit:
        commit.append_files([*commit.write([rows(range(3))]), "no file"], {})  # type: ignore[list-item]
    assert data_files(settings) == []


def test_a_refused_commit_leaves_no_file(catalog: Catalog, table: Table, settings: LakehouseSettings) -> None:
    rival = catalog.load_table(NAME)
    append_exactly_once(rival, rows(range(2)), {TOPIC: {0: 2}})
    before = set(settings.lakehouse_dir.rglob("*.*"))
    with pytest.raises(CommitFailedException), transaction(table) as commit:
        commit.append(rows(range(4)))
    assert set(settings.lakehouse_dir.rglob("*.*")) == before


def test_no_rows_are_a_snapshot_with_its_properties(catalog: Catalog, table: Table) -> None:
    with transaction(table) as commit:
        commit.append_files(commit.write([]), {"a": "b"})
    head = catalog.load_table(NAME).current_snapshot()
    assert head is not None
    assert head.summary is not None
    assert head.summary["a"] == "b"
