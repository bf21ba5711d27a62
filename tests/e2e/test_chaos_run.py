"""The simulated market, while every service is killed in turn: nothing is lost and nothing comes twice."""

from __future__ import annotations

import json
import math
import shutil
import urllib.parse
import urllib.request
from collections.abc import Callable

import pytest

from deploy.grafana.panels import panel_queries
from deploy.local import leftovers
from tests.e2e import journal, layers
from tests.e2e.figures import Totals
from tests.e2e.instance import ROOT, Instance, listening, until

pytestmark = pytest.mark.e2e

HEAL_SECONDS = 90
STREAM_SECONDS = 60
BATCH_SECONDS = 150

SERVICES = ("exchange", "bridge", "bronze", "enrichment", "vwap", "alerts", "orderbook", "flows", "prefect", "api")
OF_DAYS = (
    "tickhouse_quality_score",
    "tickhouse_table_volume_deviation_percent",
    "tickhouse_table_statistic_z_score",
)
"""Metrics that a system has after its first hourly check of the layers, or after days: not a fresh one."""
FIRST_TRADES = 500
TRADES_BETWEEN = 50
"""Trades that reach bronze between two kills, so that each one hits a system that works."""


@pytest.fixture(scope="module")
def running(new_instance: Callable[..., Instance]) -> Instance:
    instance = new_instance(TICKHOUSE_BRONZE_COMMIT_SECONDS="2")
    instance.up()
    return instance


@pytest.fixture(scope="module")
def printed(running: Instance) -> Totals:
    """Every trade the exchange printed, once it has been stopped for good."""
    running.supervisor.stop_services(["exchange"])
    return journal.totals(running.data_dir)


def bronze_trades(instance: Instance, more_than: int) -> int:
    catalog = instance.catalog()
    found = until(
        lambda: layers.trades(catalog, "bronze.trades"),
        lambda found: found.trades > more_than,
        STREAM_SECONDS,
        f"bronze.trades holds more than {more_than} trades",
    )
    return found.trades


def test_every_service_killed_in_turn_is_ready_again(running: Instance) -> None:
    victims = list(SERVICES)
    if running.launch.broker.kind == "kafka":
        victims.insert(len(victims) // 2, "broker")  # the development broker does not promise to survive this
    reached = bronze_trades(running, FIRST_TRADES)
    for name in victims:
        took = running.kill_and_await(name, HEAL_SECONDS)
        print(f"{name} ready again {took:.1f} s after SIGKILL")
        reached = bronze_trades(running, reached + TRADES_BETWEEN)
    until(
        lambda: [row for row in running.health().values() if not row.ready],
        lambda rows: not rows,
        HEAL_SECONDS,
        "every service is ready",
    )


def test_every_panel_of_the_dashboard_shows_data(running: Instance) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed")
    dashboard = json.loads((ROOT / "deploy/grafana/pipeline-overview.json").read_text())

    def without_data() -> list[str]:
        reader.read1(1 << 20)
        layers.graphql(running.api, "{ symbols(first: 1) { totalCount } }", {})  # API panels need requests to show
        asked = [query for query in panel_queries(dashboard) if not any(name in query[1] for name in OF_DAYS)]
        return [f"{title}: {expr}" for title, expr in asked if not _values(running, expr)]

    live = f"http://127.0.0.1:{running.settings.api_port}/api/v1/live"
    with urllib.request.urlopen(live, timeout=30) as reader:
        until(without_data, lambda left: not left, BATCH_SECONDS, "every query of the dashboard returns data")


def _values(running: Instance, expr: str) -> list[float]:
    """What Prometheus answers now, numbers only."""
    query = urllib.parse.urlencode({"query": expr})
    url = f"http://127.0.0.1:{running.settings.prometheus_port}/api/v1/query?{query}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        result = json.load(answer)["data"]["result"]
    return [number for series in result if not math.isnan(number := float(series["value"][1]))]


def test_watching_shows_every_service_and_leaving_stops_none(running: Instance) -> None:
    shown = running.watch(60)
    assert [name for name in SERVICES if name not in shown.partition("Next:")[2]] == []
    assert "Everything runs on in the background" in shown
    assert [row.name for row in running.health().values() if not row.ready] == []


def test_no_process_of_a_killed_service_lives_on(running: Instance) -> None:
    until(running.orphans, lambda found: not found, HEAL_SECONDS, "no process is without its supervisor")


def test_the_exchange_printed_more_than_a_handful(printed: Totals) -> None:
    assert printed.trades > FIRST_TRADES
    assert printed.quantity > printed.trades


@pytest.mark.parametrize("topic", ["processed.trades", "processed.vwap"])
def test_a_derived_topic_holds_what_the_exchange_printed(running: Instance, printed: Totals, topic: str) -> None:
    read = layers.enriched if topic == "processed.trades" else layers.window_totals
    until(lambda: read(running.kafka), lambda found: found == printed, STREAM_SECONDS, f"{topic} holds {printed}")


@pytest.mark.parametrize(
    ("table", "seconds"),
    [
        ("bronze.trades", STREAM_SECONDS),
        ("silver.trades", BATCH_SECONDS),
        ("gold.minute_bars", BATCH_SECONDS),
        ("gold.daily_trading_summary", BATCH_SECONDS),
    ],
)
def test_a_table_holds_what_the_exchange_printed(
    running: Instance, printed: Totals, table: str, seconds: float
) -> None:
    catalog = running.catalog()
    read = layers.gold if table.startswith("gold.") else layers.trades
    until(lambda: read(catalog, table), lambda found: found == printed, seconds, f"{table} holds {printed}")


def test_every_table_of_bronze_holds_every_event_of_its_kind(running: Instance, printed: Totals) -> None:
    catalog, events = running.catalog(), journal.events(running.data_dir)
    assert printed.trades == events["TradeExecuted"]
    until(
        lambda: layers.bronze_differences(catalog, events),
        lambda lines: not lines,
        STREAM_SECONDS,
        "every table of bronze holds every event of its kind",
    )


def test_nothing_was_refused(running: Instance, printed: Totals) -> None:
    assert layers.dead_letters(running.kafka) == 0


def test_it_goes_down_and_leaves_nothing_behind(running: Instance) -> None:
    ports = running.settings.ports().values()
    running.down()
    assert leftovers.leftovers(running.settings.root) == []
    assert [port for port in ports if listening(port)] == []
