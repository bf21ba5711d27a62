"""The batch side with a real Prefect server: what sets runs going, what they leave behind, and how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog

from flows.settings import FlowsSettings
from lakehouse.append import append_exactly_once
from lakehouse.catalog import open_catalog
from lakehouse.settings import LakehouseSettings
from lakehouse.tables import arrow_schema, create_tables
from tests.flows.conftest import HTTP, Prefect, Service, Webhook

EVENT = datetime(2026, 3, 13, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def catalog(prefect: Prefect) -> Catalog:
    catalog = open_catalog(LakehouseSettings(data_dir=prefect.data_dir))
    create_tables(catalog)
    return catalog


def append_trade(catalog: Catalog, number: int) -> None:
    """Commit a trade to bronze, the ``number``-th from 0."""
    row = {
        "event_id": f"e{number}",
        "timestamp": EVENT + timedelta(seconds=number),
        "sequence": number,
        "trade_id": f"t{number}",
        "symbol": "AAPL",
        "price": Decimal("185.25"),
        "quantity": Decimal(100),
        "buy_order_id": "b",
        "sell_order_id": "s",
        "buyer_agent_id": "x",
        "seller_agent_id": "y",
        "is_aggressive_buy": True,
        "_kafka_topic": "raw.trades",
        "_kafka_partition": 0,
        "_kafka_offset": number,
        "_ingested_at": EVENT,
    }
    rows = pa.Table.from_pylist([row], schema=arrow_schema("bronze.trades"))
    append_exactly_once(catalog.load_table("bronze.trades"), rows, {"raw.trades": {0: number + 1}})


def trades_in(catalog: Catalog, table: str) -> int:
    return catalog.load_table(table).scan().to_arrow().num_rows


def runs_on_demand(prefect: Prefect, flow: str) -> list[dict[str, Any]]:
    """Runs that a trigger asked for."""
    return [run for run in prefect.runs(flow) if run["idempotency_key"] and not run["auto_scheduled"]]


def test_the_scheduler_creates_a_run_of_every_flow_with_a_schedule(prefect: Prefect, flows: Service) -> None:
    from flows.declared import declared

    wanted = {one.name for one in declared(FlowsSettings()) if one.cron is not None}
    assert {
        "silver",
        "gold",
        "daily",
        "dimensions",
        "maintenance-hourly",
        "maintenance-weekly",
        "recompute",
    } < wanted
    ids = {prefect.deployment(name)["id"]: name for name in wanted}

    def scheduled() -> bool:
        return {ids.get(run["deployment_id"]) for run in prefect.runs(None, "SCHEDULED")} >= wanted

    flows.eventually("scheduled run of each", scheduled)


def test_a_commit_to_bronze_sets_silver_going_and_silver_gold_once_each(
    prefect: Prefect, flows: Service, catalog: Catalog
) -> None:
    append_trade(catalog, 0)
    flows.eventually(
        "end of gold", lambda: "COMPLETED" in {r["state_type"] for r in runs_on_demand(prefect, "gold")}
    )
    (day,) = catalog.load_table("gold.daily_trading_summary").scan().to_arrow().to_pylist()
    assert (day["symbol"], day["vwap"], day["trade_count"]) == ("AAPL", Decimal("185.25"), 1)
    flows.eventually("end of silver", lambda: not prefect.runs("silver", "PENDING", "RUNNING"))
    # The trigger looked many times a second meanwhile.
    assert [run["state_type"] for run in runs_on_demand(prefect, "silver")] == ["COMPLETED"]
    assert [run["state_type"] for run in runs_on_demand(prefect, "gold")] == ["COMPLETED"]

    def gauges_follow() -> bool:
        text = HTTP.get(prefect.metrics).text
        return (
            'tickhouse_table_rows{layer="gold",table="minute_bars"} 1.0' in text
            and 'tickhouse_quality_check_passed{contract="silver.trades"} 1.0' in text
            and f"tickhouse_service_last_event_timestamp_seconds {EVENT.timestamp():.9e}".split("e")[0] in text
            and 'tickhouse_flow_runs_total{flow="gold",state="completed"} 1.0' in text
        )

    flows.eventually("gauges of the new rows", gauges_follow)


def test_a_run_leaves_a_table_of_what_it_did(prefect: Prefect, flows: Service, catalog: Catalog) -> None:
    def artifact() -> dict[str, Any] | None:
        found = prefect.post("artifacts/latest/filter", {"artifacts": {"key": {"any_": ["silver"]}}})
        return dict(found[0]) if found else None

    found = flows.eventually("artifact", artifact)
    rows = found["data"] if isinstance(found["data"], list) else json.loads(found["data"])
    trades = {row["table"]: row for row in rows}["silver.trades"]
    snapshot = catalog.load_table("silver.trades").metadata.current_snapshot_id
    assert (trades["rows_in"], trades["rows_out"], trades["quality"]) == ("1", "1", "passed")
    assert trades["snapshot_id"] == str(snapshot)
    assert "http://127.0.0.1:8000/" in found["description"]


def test_a_stale_layer_has_its_quality_checked_and_an_alert_sent(
    prefect: Prefect, flows: Service, webhook: Webhook
) -> None:
    """The trade is years old, or will be: older than two minutes in any case."""

    def checked() -> set[str]:
        runs = [run for run in runs_on_demand(prefect, "quality") if run["state_type"] == "COMPLETED"]
        return {layer for run in runs for layer in run["parameters"]["layers"]}

    flows.eventually("quality of every layer", lambda: checked() == {"bronze", "silver", "gold"})
    alerts = [text for text in webhook.texts if text.startswith("silver is not fresh")]
    assert 1 <= len(alerts) <= 2, "one an hour"
    assert 'tickhouse_freshness_broken{layer="silver"} 1.0' in HTTP.get(prefect.metrics).text


def test_a_trigger_that_fires_again_and_again_makes_one_run(
    prefect: Prefect, flows: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.triggers import Wanted, ask_for

    deployment = UUID(prefect.deployment("export")["id"])
    with temporary_settings({PREFECT_API_URL: prefect.api}):
        ids = {ask_for(deployment, Wanted("export", "gold@1")) for _ in range(3)}
    assert len(ids) == 1
    (run,) = ids
    flows.eventually("end of the export", lambda: prefect.state_of(str(run)) == "COMPLETED")
    text = (prefect.data_dir / "exports" / f"daily_trading_summary_{EVENT.date()}.csv").read_text()
    assert '"AAPL",2026-03-13,185.25' in text


def test_a_cancelled_run_ends_and_leaves_the_table_as_it_was(
    prefect: Prefect, flows: Service, catalog: Catalog
) -> None:
    """It waits for the table, which somebody else holds, and is cancelled there: it never gets to work."""
    limit = {"names": ["tag:table:silver.trades"], "slots": 1}
    prefect.post("v2/concurrency_limits/increment", limit | {"mode": "concurrency"})
    before = catalog.load_table("silver.trades").metadata.current_snapshot_id
    append_trade(catalog, 1)

    def waiting() -> str | None:
        running = prefect.runs("silver", "RUNNING")
        return str(running[0]["id"]) if running else None

    run = flows.eventually("run of silver", waiting)
    assert run is not None
    prefect.post(f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    name = prefect.run(run)["name"]
    flows.eventually("cancellation", lambda: f"run {name} is being cancelled" in flows.log.read_text())
    prefect.post("v2/concurrency_limits/decrement", limit)
    flows.eventually("end of the cancelled run", lambda: prefect.state_of(run) == "CANCELLED")
    assert catalog.load_table("silver.trades").metadata.current_snapshot_id == before
    again = prefect.start_run("silver")
    flows.eventually("end of the next run", lambda: prefect.state_of(again) == "COMPLETED")
    assert trades_in(catalog, "silver.trades") == 2


def test_a_backfill_runs_as_a_flow_with_its_progress(prefect: Prefect, flows: Service, catalog: Catalog) -> None:
    run = prefect.start_run(
        "backfill", days="2026-03-12..2026-03-14", tables=["silver.trades", "gold.minute_bars"]
    )
    flows.eventually("end of the backfill", lambda: prefect.state_of(run) == "COMPLETED")
    (progress,) = prefect.post("artifacts/filter", {"artifacts": {"type": {"any_": ["progress"]}}})
    assert progress["data"] == 100
    assert trades_in(catalog, "silver.trades") == trades_in(catalog, "bronze.trades")
    refused = HTTP.post(
        f"{prefect.api}/deployments/{prefect.deployment('backfill')['id']}/create_flow_run",
        json={"parameters": {"days": 7}},
    )
    assert refused.status_code in (409, 422), refused.text


def test_a_flow_that_fails_is_told_to_the_webhook(prefect: Prefect, flows: Service, webhook: Webhook) -> None:
    run = prefect.start_run("export", day="2020-01-01")
    flows.eventually("failure", lambda: prefect.state_of(run) == "FAILED")
    name = prefect.run(run)["name"]
    flows.eventually("message", lambda: any(f"Flow export failed, run {name}" in text for text in webhook.texts))


def test_a_backfill_on_a_dask_cluster_gives_the_same_rows(
    prefect: Prefect, flows: Service, catalog: Catalog
) -> None:
    def rows() -> list[dict[str, Any]]:
        found = catalog.load_table("gold.minute_bars").scan().to_arrow().drop(["_aggregated_at"])
        return found.sort_by("bar_start").to_pylist()

    by_threads, snapshot = rows(), catalog.load_table("gold.minute_bars").metadata.current_snapshot_id
    code = f"""if __name__ == "__main__":
        from flows.backfill import backfill
        backfill(days="{EVENT.date()}", tables=["silver.trades", "gold.minute_bars"])"""
    environment = os.environ | prefect.environment | {"TICKHOUSE_TASK_RUNNER": "dask"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "dask" in done.stderr.lower(), "ran on Dask"
    assert catalog.load_table("gold.minute_bars").metadata.current_snapshot_id != snapshot
    assert rows() == by_threads


def test_the_listing_shows_every_flow_with_its_last_and_next_run(prefect: Prefect, flows: Service) -> None:
    environment = os.environ | prefect.environment
    listed = subprocess.run(
        [sys.executable, "-m", "flows"], env=environment, capture_output=True, text=True, check=True
    ).stdout
    found = {block.split(":")[0]: block for block in listed.split("\n\n")}
    assert "silver.trades: bronze.trades, dimensions.dim_symbol → silver.trades" in found["silver"]
    assert "last run: Completed" in found["gold"]
    assert "0 2 * * 0" in found["dimensions"]
    assert "next run: in " in found["dimensions"]


def test_a_run_that_was_abandoned_is_closed_and_the_next_one_runs(prefect: Prefect, flows: Service) -> None:
    """As after a SIGKILL of the worker: the run stands at Running and holds its deployment's only slot."""
    flows.process.send_signal(signal.SIGKILL)
    flows.process.wait()
    abandoned = prefect.start_run("silver")
    for state in ("PENDING", "RUNNING"):
        prefect.post(f"flow_runs/{abandoned}/set_state", {"state": {"type": state}})
    assert prefect.state_of(abandoned) == "RUNNING"

    again = Service.start("flows.deployments", prefect.environment, prefect.data_dir)
    try:
        again.eventually("end of the abandoned run", lambda: prefect.state_of(abandoned) == "CRASHED")
        run = prefect.start_run("silver")
        again.eventually("end of the next run", lambda: prefect.state_of(run) == "COMPLETED")
    finally:
        assert again.stop() == 0


def test_the_deployments_for_work_pools_are_accepted(prefect: Prefect) -> None:
    """Last, because they replace those that are served locally."""
    command = ["prefect", "--no-prompt", "deploy", "--all", "--prefect-file", "deploy/prefect/prefect.yaml"]
    environment = os.environ | prefect.environment | {"TICKHOUSE_CODE_DIR": "/opt/tickhouse"}
    done = subprocess.run([sys.executable, "-m", *command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    silver = prefect.deployment("silver")
    assert [one["schedule"]["cron"] for one in silver["schedules"]] == ["*/5 * * * *"]
    assert silver["entrypoint"] == "flows/silver.py:silver"
    assert silver["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    (step,) = silver["pull_steps"]
    assert step["prefect.deployments.steps.set_working_directory"]["directory"] == "/opt/tickhouse"
