"""The dashboard "Tickhouse: pipeline overview": does everything run, how much, how far behind, how fresh and fast.

Out: `pipeline-overview.json` beside this file (`python -m deploy.grafana.pipeline_overview` writes it). Import it
into Grafana and choose the Prometheus that scrapes the services. Queries use a one-minute range: twelve scrapes of
five seconds; a counter that has labels and never counted has no series, and `or vector(0)` shows it as zero. The
schema is the classic one, which every Grafana imports.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as model

FILE = Path(__file__).parent / "pipeline-overview.json"
SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")

Queries = dict[str, str]
"""Legend → PromQL."""


def _targets(queries: Queries) -> list[prometheus.Dataquery]:
    return [
        prometheus.Dataquery()
        .datasource(SOURCE)
        .expr(expr)
        .legend_format(legend)
        .ref_id(chr(ord("A") + n))
        .range()
        for n, (legend, expr) in enumerate(queries.items())
    ]


def _number(
    title: str, what: str, unit: str, expr: str, limits: Iterable[tuple[float | None, str]] = ((None, "blue"),)
) -> stat.Panel:
    """One big number; `limits` are (from this value on, colour), lowest first."""
    steps = [model.Threshold(value, colour) for value, colour in limits]
    return (
        stat.Panel()
        .title(title)
        .description(what)
        .datasource(SOURCE)
        .targets(list(_targets({title: expr})))
        .unit(unit)
        .thresholds(dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(options.BigValueGraphMode.AREA)
        .span(6)
        .height(4)
    )


def _lines(title: str, what: str, unit: str, queries: Queries) -> timeseries.Panel:
    """Lines over time."""
    return (
        timeseries.Panel()
        .title(title)
        .description(what)
        .datasource(SOURCE)
        .targets(list(_targets(queries)))
        .unit(unit)
        .min(0)
        .fill_opacity(8)
        .show_points(options.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(options.LegendDisplayMode.LIST)
            .placement(options.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI))
        .span(8)
        .height(8)
    )


def _quantile(q: float, histogram: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate({histogram}_bucket[1m])))"


def _percentiles(histogram: str) -> Queries:
    return {f"p{round(q * 100)}": _quantile(q, histogram) for q in (0.5, 0.95, 0.99)}


def _count(metric: str) -> str:
    return f"sum(increase({metric}[1m])) or vector(0)"


HEADLINES = [
    _number(
        "Services ready",
        "Services that are connected and working, of nine.",
        "none",
        "sum(tickhouse_service_ready)",
        [(None, "red"), (9, "green")],
    ),
    _number(
        "Events into Kafka",
        "Frames acknowledged by the broker.",
        "eps",
        "sum(rate(kafka_bridge_kafka_produced_total[1m]))",
    ),
    _number(
        "Oldest freshness",
        "Age of the newest event at the service that is furthest behind.",
        "s",
        "time() - min(tickhouse_service_last_event_timestamp_seconds > 0)",
        [(None, "green"), (90, "orange"), (180, "red")],  # a window closes once a minute
    ),
    _number(
        "Event to reader, p99",
        "From the event's time to the readers of the live stream; no value while nobody reads.",
        "s",
        _quantile(0.99, "tickhouse_api_live_latency_seconds"),
        [(None, "green"), (0.5, "orange"), (2, "red")],
    ),
]

RATES = [
    _lines(
        "Exchange: events",
        "What the exchange prints, by type.",
        "eps",
        {"{{event_type}}": "sum by (event_type) (rate(tickhouse_exchange_events_total[1m]))"},
    ),
    _lines(
        "Bridge: frames into Kafka",
        "Acknowledged frames, by topic.",
        "eps",
        {"{{topic}}": "sum by (topic) (rate(kafka_bridge_kafka_produced_total[1m]))"},
    ),
    _lines(
        "Flows: messages read",
        "By flow.",
        "eps",
        {"{{flow}}": "sum by (flow) (rate(tickhouse_flow_messages_total[1m]))"},
    ),
    _lines(
        "Bronze: rows committed",
        "Rows in Iceberg commits, by table.",
        "rowsps",
        {"{{table}}": "sum by (table) (rate(tickhouse_bronze_rows_total[1m]))"},
    ),
    _lines(
        "API: requests",
        "GraphQL operations; live events handed to readers.",
        "reqps",
        {
            "GraphQL {{operation_type}}": (
                "sum by (operation_type) (rate(graphql_requests_total[1m])) or vector(0)"
            ),
            "live events": "sum(rate(tickhouse_api_live_events_total[1m])) or vector(0)",
        },
    ),
    _lines(
        "Errors in the last minute",
        "Each of these is zero in a healthy system; none of them loses data by itself.",
        "none",
        {
            "sequence gaps": _count("tickhouse_bridge_sequence_gaps_total"),
            "broken frames": _count("kafka_bridge_validation_failures_total"),
            "produce errors": _count("kafka_bridge_kafka_produce_errors_total"),
            "dead letters": _count("tickhouse_flow_dead_letters_total"),
            "reconnects": _count("kafka_bridge_ws_reconnects_total"),
            "late trades": _count("tickhouse_vwap_late_trades_total"),
        },
    ),
]

LAG = [
    _lines(
        "Flows: lag",
        "Messages in a flow's topics that it has not read.",
        "none",
        {"{{flow}}": "sum by (flow) (tickhouse_flow_lag_messages)"},
    ),
    _lines(
        "Bridge: backlog",
        "Events the exchange has printed and Kafka has not acknowledged.",
        "none",
        {"events": "max(tickhouse_exchange_sequence) - max(tickhouse_bridge_acknowledged_sequence)"},
    ),
    _lines(
        "Watermark behind now",
        "Wall clock minus the event time up to which windows are closed.",
        "s",
        {"{{flow}}": "time() - (tickhouse_flow_watermark_timestamp_seconds > 0)"},
    ),
]

FRESHNESS = [
    _lines(
        "Services: age of the newest event",
        "Wall clock minus event time; a replayed market is as old as its recording.",
        "s",
        {"{{job}}": "time() - (tickhouse_service_last_event_timestamp_seconds > 0)"},
    ),
    _lines(
        "Tables: age of the newest row",
        "Wall clock minus the newest event time in the table's head.",
        "s",
        {"{{table}}": "time() - (tickhouse_table_last_event_timestamp_seconds > 0)"},
    ),
    _lines("Tables: rows", "Rows in the table's head.", "short", {"{{table}}": "tickhouse_table_rows"}),
]

LATENCY = [
    _lines(
        "Event to Kafka",
        "From the event's time to the broker's acknowledgement.",
        "s",
        _percentiles("kafka_bridge_latency_seconds"),
    ),
    _lines(
        "Event to flow output, p99",
        "From the event's time to what the flow made of it; a window waits for its end.",
        "s",
        {"{{flow}}": _quantile(0.99, "tickhouse_flow_latency_seconds", "flow")},
    ),
    _lines(
        "Event to reader",
        "From the event's time to the readers of the live stream.",
        "s",
        _percentiles("tickhouse_api_live_latency_seconds"),
    ),
    _lines(
        "Iceberg commit",
        "Duration of a commit of the bronze writer.",
        "s",
        _percentiles("tickhouse_bronze_commit_seconds"),
    ),
    _lines(
        "GraphQL request, p95",
        "By type of operation.",
        "s",
        {"{{operation_type}}": _quantile(0.95, "graphql_request_duration_seconds", "operation_type")},
    ),
    _lines(
        "Quality checks",
        "1: the newest scan of the contract passed.",
        "none",
        {"{{contract}}": "tickhouse_quality_check_passed"},
    ),
    _lines(
        "Quality score",
        "Of each layer's newest check: completeness, accuracy, freshness, uniqueness; A from 0.95, F below 0.5.",
        "percentunit",
        {"{{layer}}": 'tickhouse_quality_score{table="all"}'},
    ),
    _lines(
        "Quality score, worst tables",
        "The five tables with the lowest score.",
        "percentunit",
        {"{{layer}}.{{table}}": 'bottomk(5, tickhouse_quality_score{table!="all"})'},
    ),
    _lines(
        "Rows of a day against the days before",
        "Deviation from their mean.",
        "percent",
        {"{{layer}}.{{table}}": "tickhouse_table_volume_deviation_percent"},
    ),
    _lines(
        "Drift",
        "Statistics of the day checked last, in deviations from the days before; beyond 3 a warning.",
        "none",
        {"{{layer}}.{{table}} {{statistic}}": "tickhouse_table_statistic_z_score"},
    ),
]

SECTIONS: dict[str, list[stat.Panel] | list[timeseries.Panel]] = {
    "At a glance": HEADLINES,
    "Rates": RATES,
    "Lag": LAG,
    "Freshness": FRESHNESS,
    "Latency and quality": LATENCY,
}


def pipeline_overview() -> str:
    """The dashboard as Grafana's JSON."""
    board = (
        dashboard.Dashboard("Tickhouse: pipeline overview")
        .uid("tickhouse-pipeline")
        .tags(["tickhouse"])
        .description("Rates, lag, freshness and latency from the exchange to the reader.")
        .timezone("utc")
        .time("now-15m", "now")
        .refresh("5s")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for title, panels in SECTIONS.items():
        board = board.with_row(dashboard.Row(title))
        for panel in panels:
            board = board.with_panel(panel)
    return json.dumps(board.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    FILE.write_text(pipeline_overview())
