"""Tables of quality: what was checked, and what was found."""

from __future__ import annotations

from pyiceberg.types import ListType, NestedField, StructType

from lakehouse.columns import DATE, DOUBLE, LONG, TEXT, TEXTS, TIME
from lakehouse.spec import Column, TableSpec

STATISTICS = ListType(
    1,
    StructType(
        NestedField(2, "name", TEXT, required=True, doc="What was measured"),
        NestedField(3, "value", DOUBLE, required=False, doc="Value; null where no row has one"),
    ),
    element_required=True,
)

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
    TableSpec(
        "quality.scores",
        "How good a table was on a day, each time it was checked; and each layer, as the mean of its tables",
        (
            Column("run_id", TEXT, "Run of the checks, as in quality.check_results"),
            Column("layer", TEXT, "Layer"),
            Column("table_name", TEXT, "Table; the layer's name for the mean of its tables"),
            Column("day", DATE, "UTC date whose rows were checked; null: all rows", required=False),
            Column("checked_rows", LONG, "Rows looked at"),
            Column("completeness", DOUBLE, "1 - null values / values, of the required columns"),
            Column("accuracy", DOUBLE, "1 - rows that break a rule / rows"),
            Column("freshness", DOUBLE, "1 where the newest event was young enough, else 0"),
            Column("uniqueness", DOUBLE, "1 - rows whose key is there already / rows"),
            Column("score", DOUBLE, "0.3 completeness + 0.3 accuracy + 0.2 freshness + 0.2 uniqueness"),
            Column("grade", TEXT, "A from 0.95, B from 0.85, C from 0.70, D from 0.50, else F"),
            Column("failing_checks", TEXTS, "Checks that did not pass"),
            Column("age_seconds", DOUBLE, "Age of the newest event; null where that is not asked", required=False),
            Column(
                "volume_deviation_percent", DOUBLE, "Of the rows, from the mean of the days before", required=False
            ),
            Column("statistics", STATISTICS, "Measured of the day, to compare later days with"),
            Column("snapshot_id", LONG, "Snapshot of the table that was checked", required=False),
            Column("checked_at", TIME, "When it ran"),
        ),
        key=("run_id", "table_name"),
        partition_by="checked_at",
        sort_by=("table_name", "checked_at"),
        event_time="checked_at",
        owner="data-quality",
        tags=("Quality",),
    ),
)
