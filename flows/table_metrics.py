"""Prometheus metrics of every table, read off the tables' heads.

In: the catalog. Out: gauges of this process and the heads they show, brought up to date by
:meth:`TableMetrics.poll`. A table whose head has not moved costs nothing; no data file is read.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.registry import REGISTRY
from pyiceberg.catalog import Catalog

from lakehouse.quality.gate import TABLE as CHECK_RESULTS
from lakehouse.quality.gate import contracts_passed
from lakehouse.quality.layer import TABLE as SCORES
from lakehouse.quality.layer import last_scores
from lakehouse.snapshots import ManifestCache, metadata_locations
from lakehouse.tables import TABLES

LAYER_AND_TABLE = ("layer", "table")
NEWEST_TRADES = "silver.trades"
"""Its newest event is the batch side's: gold follows it."""


@dataclass(frozen=True, slots=True)
class Head:
    """A table's current snapshot; zeros where it has none."""

    snapshot_id: int | None = None
    committed_at: float = 0.0
    """Unix time, seconds."""
    last_event: float = 0.0
    """Event time of its newest row, Unix time in seconds."""
    commits: int = 0
    """Commits that the table ever had."""


@dataclass(slots=True)
class TableMetrics:
    """Gauges, and the heads they were taken from."""

    catalog: Catalog
    registry: CollectorRegistry = REGISTRY
    manifests: ManifestCache = field(default_factory=ManifestCache)
    heads: dict[str, Head] = field(default_factory=dict)
    """Table → its head when it was last looked at."""
    _seen: dict[str, str] = field(default_factory=dict)
    _rows: Gauge = field(init=False)
    _last_event: Gauge = field(init=False)
    _snapshots: Gauge = field(init=False)
    _last_commit: Gauge = field(init=False)
    _passed: Gauge = field(init=False)
    _score: Gauge = field(init=False)
    _deviation: Gauge = field(init=False)
    _z_score: Gauge = field(init=False)
    _newest: Gauge = field(init=False)

    def __post_init__(self) -> None:
        def gauge(name: str, text: str, labels: tuple[str, ...] = LAYER_AND_TABLE) -> Gauge:
            return Gauge(name, text, labels, registry=self.registry)

        self._rows = gauge("tickhouse_table_rows", "Rows of the table.")
        self._last_event = gauge(
            "tickhouse_table_last_event_timestamp_seconds", "Event time of the table's newest row; 0: none."
        )
        self._snapshots = gauge("tickhouse_table_snapshots", "Snapshots the table keeps.")
        self._last_commit = gauge(
            "tickhouse_table_last_commit_timestamp_seconds", "When the table was committed to last; 0: never."
        )
        self._passed = gauge(
            "tickhouse_quality_check_passed", "1: the contract held when last checked.", ("contract",)
        )
        self._score = gauge(
            "tickhouse_quality_score", "Score of the table's newest check, 0 to 1; table all: of the layer."
        )
        self._deviation = gauge(
            "tickhouse_table_volume_deviation_percent",
            "Rows of the day checked last, from the mean of days before.",
        )
        self._z_score = gauge(
            "tickhouse_table_statistic_z_score",
            "Statistic of the day checked last, in deviations from the mean of the days before.",
            (*LAYER_AND_TABLE, "statistic"),
        )
        self._newest = gauge(
            "tickhouse_service_last_event_timestamp_seconds",
            "Event time of the newest event handled; 0: none.",
            (),
        )

    def poll(self) -> int:
        """Bring the gauges of tables with a new head up to date; returns how many tables those were.

        Raises:
            Exception: whatever the catalog raises when it is away; the gauges stay as they were.
        """
        locations = metadata_locations(self.catalog)
        changed = 0
        for name in TABLES:
            location = None if locations is None else locations.get(name)
            if location is not None and self._seen.get(name) == location:
                continue
            self._update(name)
            changed += 1
            if location is not None:
                self._seen[name] = location
        return changed

    def _update(self, name: str) -> None:
        table = self.catalog.load_table(name)
        snapshot = table.current_snapshot()
        files = self.manifests.files(name, table).files
        newest = max((f.last.timestamp() for f in files if f.last is not None), default=0.0)
        committed = 0.0 if snapshot is None else snapshot.timestamp_ms / 1000
        commits = 0 if snapshot is None else snapshot.sequence_number or 0
        self.heads[name] = Head(table.metadata.current_snapshot_id, committed, newest, commits)
        layer, short = name.split(".")
        self._rows.labels(layer, short).set(sum(f.rows for f in files))
        self._last_event.labels(layer, short).set(newest)
        self._snapshots.labels(layer, short).set(len(table.metadata.snapshots))
        self._last_commit.labels(layer, short).set(committed)
        if name == NEWEST_TRADES:
            self._newest.set(newest)
        if name == CHECK_RESULTS:
            for contract, passed in contracts_passed(table).items():
                self._passed.labels(contract).set(int(passed))
        if name == SCORES:
            for scored, last in last_scores(table).items():
                of_layer, _, of_table = scored.partition(".")
                self._score.labels(of_layer, of_table or "all").set(last.score)
                if of_table:
                    self._deviation.labels(of_layer, of_table).set(last.volume_deviation_percent)
                for statistic, z_score in (last.z_scores or {}).items():
                    self._z_score.labels(of_layer, of_table, statistic).set(z_score)
