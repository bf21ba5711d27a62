"""Rows that break a rule, kept with the rule they broke.

In: judged rows of bronze with ``rule`` and ``why``; rows of any table that break a critical check of its data
contract. Out: rows of ``silver.rejected_records``, one per row and rule. On a crash: looking for what is there
already and appending is one compare-and-swap, so repeating it adds nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
from pyiceberg.table import Table

from lakehouse.batch import BatchSession, compare_and_swap
from lakehouse.days import window
from lakehouse.state import carried
from lakehouse.tables import arrow_schema

TABLE = "silver.rejected_records"
BATCH_ROWS = 10_000
"""Records turned into JSON at once: a faulty source may have all its rows rejected."""

RecordKey = tuple[str, int, int, str]
_KEY = ("_kafka_topic", "_kafka_partition", "_kafka_offset", "rule")


def record_keys(rows: pa.Table) -> set[RecordKey]:
    """(topic, partition, offset, rule) of rejected rows."""
    return set(zip(*(rows[name].to_pylist() for name in _KEY), strict=True))


def reject(session: BatchSession, source: str, rows: pa.Table, now: datetime) -> int:
    """Keep the rejected ``rows`` of bronze table ``source``; returns how many were not kept before.

    Args:
        rows: columns of ``source``, then ``rule`` and ``why``: what was wrong.
        now: written to ``_rejected_at``.
    """
    if not rows.num_rows:
        return 0
    schema = arrow_schema(TABLE)
    records = pa.concat_tables(
        pa.Table.from_pylist(
            [_record(source, row.pop("rule"), row.pop("why"), row, now) for row in batch.to_pylist()],
            schema=schema,
        )
        for batch in rows.to_batches(max_chunksize=BATCH_ROWS)
    )
    return compare_and_swap(TABLE, lambda: _append_new(session, source, records))


def refuse(session: BatchSession, table: str, rule: str, why: str, rows: pa.Table, now: datetime) -> int:
    """Keep rows that break a check of ``table``'s data contract; returns how many were not kept before.

    What a run writes into a row, as ``_processed_at``, is left out: the same row fails with every run.
    """
    if not rows.num_rows:
        return 0
    kept = [name for name in rows.column_names if not name.startswith("_") or name in _KEY]
    records = [_record(table, rule, why, row, now) for row in rows.select(kept).to_pylist()]

    def attempt() -> int:
        known = session.catalog.load_table(TABLE)
        before = known.scan(
            f"source_table = '{table}' and rule = '{rule}'", selected_fields=("record",)
        ).to_arrow()
        texts = set(before["record"].to_pylist())
        fresh = {record["record"]: record for record in records if record["record"] not in texts}
        return _append(session, known, pa.Table.from_pylist(list(fresh.values()), schema=arrow_schema(TABLE)))

    return compare_and_swap(TABLE, attempt)


def rejected_on(session: BatchSession, source: str, day: date) -> set[RecordKey]:
    """Rejected rows of bronze table ``source`` with event times on a UTC day."""
    return record_keys(_on_day(session.catalog.load_table(TABLE), source, day, _KEY))


def keep_only(session: BatchSession, source: str, day: date, keys: set[RecordKey]) -> None:
    """Forget the rejected rows of ``source`` on a UTC day but those with ``keys``: the others were found valid."""

    def attempt() -> None:
        table = session.catalog.load_table(TABLE)
        if not record_keys(_on_day(table, source, day, _KEY)) <= keys:
            rows = _on_day(table, source, day)
            names = zip(*(rows[name].to_pylist() for name in _KEY), strict=True)
            kept = rows.filter(pa.array([key in keys for key in names], pa.bool_()))
            with session.changes(table) as commit:
                commit.overwrite(
                    kept.cast(arrow_schema(TABLE)), _of_day(source, day), snapshot_properties=carried(table)
                )

    compare_and_swap(TABLE, attempt)


def _append_new(session: BatchSession, source: str, records: pa.Table) -> int:
    table = session.catalog.load_table(TABLE)
    bounds = records.group_by(_KEY[:2]).aggregate([("_kafka_offset", "min"), ("_kafka_offset", "max")])
    reach = " or ".join(
        "(_kafka_topic = '{_kafka_topic}' and _kafka_partition = {_kafka_partition} "
        "and _kafka_offset >= {_kafka_offset_min} and _kafka_offset <= {_kafka_offset_max})".format_map(bound)
        for bound in bounds.to_pylist()
    )
    known = table.scan(row_filter=f"source_table = '{source}' and ({reach})", selected_fields=_KEY)
    kept = record_keys(known.to_arrow())
    keys = zip(*(records[name].to_pylist() for name in _KEY), strict=True)
    return _append(session, table, records.filter(pa.array([key not in kept for key in keys], pa.bool_())))


def _append(session: BatchSession, table: Table, rows: pa.Table) -> int:
    if rows.num_rows:
        with session.changes(table) as commit:
            commit.append(rows, snapshot_properties=carried(table))
    return int(rows.num_rows)


def _of_day(source: str, day: date) -> str:
    start, end = window(day)
    return f"source_table = '{source}' and timestamp >= '{start.isoformat()}' and timestamp < '{end.isoformat()}'"


def _on_day(table: Table, source: str, day: date, columns: Sequence[str] = ("*",)) -> pa.Table:
    return table.scan(row_filter=_of_day(source, day), selected_fields=tuple(columns)).to_arrow()


def _record(source: str, rule: str, why: str, row: dict[str, Any], now: datetime) -> dict[str, Any]:
    return {
        "source_table": source,
        "rule": rule,
        "reason": why,
        "record": _as_text(row),
        "timestamp": row.get("timestamp"),
        **{name: row.get(name) for name in _KEY[:3]},
        "_rejected_at": now,
    }


def _as_text(row: dict[str, Any]) -> str:
    return json.dumps(row, default=_as_json, ensure_ascii=False)


def _as_json(value: object) -> str:
    """Decimals as text, so that no digit is lost; times in RFC 3339."""
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"a column of type {type(value).__name__} has no JSON form here")
