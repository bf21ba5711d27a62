"""Rows of bronze that break a rule, kept with the rule they broke.

In: judged rows with ``rule`` and ``reason``. Out: rows of ``silver.rejected_records``, one per Kafka record
and rule. On a crash: looking for what is there already and appending is one compare-and-swap, so repeating it
adds nothing.
"""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from lakehouse.append import expire_snapshots, transaction
from lakehouse.batch import BatchSession, compare_and_swap
from lakehouse.state import carried
from lakehouse.tables import arrow_schema

TABLE = "silver.rejected_records"

RecordKey = tuple[str, int, int, str]


def reject(session: BatchSession, source: str, rows: pa.Table, now: datetime) -> int:
    """Keep the rejected ``rows`` of bronze table ``source``; returns how many were not kept before.

    Args:
        rows: columns of ``source``, then ``rule`` and ``reason``.
        now: written to ``_rejected_at``.
    """
    records = [_record(source, row, now) for row in rows.to_pylist()]
    return compare_and_swap(TABLE, lambda: _append(session, source, records)) if records else 0


def _append(session: BatchSession, source: str, records: list[dict[str, Any]]) -> int:
    table = session.catalog.load_table(TABLE)
    lowest = min(record["_kafka_offset"] for record in records)
    kept = {
        _key(row)
        for row in table.scan(
            row_filter=f"source_table = '{source}' and _kafka_offset >= {lowest:d}",
            selected_fields=("_kafka_topic", "_kafka_partition", "_kafka_offset", "rule"),
        )
        .to_arrow()
        .to_pylist()
    }
    fresh = [record for record in records if _key(record) not in kept]
    if fresh:
        with transaction(table) as commit:
            commit.append(
                pa.Table.from_pylist(fresh, schema=arrow_schema(TABLE)), snapshot_properties=carried(table)
            )
        expire_snapshots(table, at=session.settings.snapshots_expire_at, keep=session.settings.snapshots_kept)
    return len(fresh)


def _record(source: str, row: dict[str, Any], now: datetime) -> dict[str, Any]:
    rule, reason = row.pop("rule"), row.pop("reason")
    return {
        "source_table": source,
        "rule": rule,
        "reason": reason,
        "record": json.dumps(row, default=_as_json, ensure_ascii=False),
        "timestamp": row["timestamp"],
        "_kafka_topic": row["_kafka_topic"],
        "_kafka_partition": row["_kafka_partition"],
        "_kafka_offset": row["_kafka_offset"],
        "_rejected_at": now,
    }


def _key(row: dict[str, Any]) -> RecordKey:
    return row["_kafka_topic"], row["_kafka_partition"], row["_kafka_offset"], row["rule"]


def _as_json(value: object) -> str:
    """Decimals as text, so that no digit is lost; times in RFC 3339."""
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"a column of type {type(value).__name__} has no JSON form here")
