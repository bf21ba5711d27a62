"""Tables of quality: what was checked, and what was found."""

from __future__ import annotations

from lakehouse.columns import DOUBLE, LONG, TEXT, TIME
from lakehouse.spec import Column, TableSpec

TABLES = (
    TableSpec(
        "quality.check_results",
        "Every data-quality check that ran, with its outcome",
        (
            Column("run_id", TEXT, "Run of the contract"),
            Column("contract", TEXT, "Contract the check belongs to"),
            Column("table_name", TEXT, "Table checked"),
            Column("check_name", TEXT, "Check"),
            Column("column_name", TEXT, "Column checked; null for the whole table", required=False),
            Column("severity", TEXT, "critical (stops the next layer) or warning"),
            Column("outcome", TEXT, "passed, failed or error"),
            Column("observed", DOUBLE, "Value measured", required=False),
            Column("failing_rows", LONG, "Rows that broke it", required=False),
            Column("checked_rows", LONG, "Rows looked at", required=False),
            Column("message", TEXT, "What was found", required=False),
            Column("snapshot_id", LONG, "Snapshot of the table that was checked", required=False),
            Column("checked_at", TIME, "When it ran"),
        ),
        key=("run_id", "contract", "check_name"),
        partition_by="checked_at",
        sort_by=("table_name", "checked_at"),
        event_time="checked_at",
        owner="data-quality",
        tags=("Quality",),
    ),
)
