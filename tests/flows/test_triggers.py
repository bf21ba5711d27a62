"""What state asks for which run."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prometheus_client import CollectorRegistry

from flows import triggers
from flows.settings import FlowsSettings
from flows.table_metrics import Head
from flows.triggers import COMMITS_BETWEEN_UPKEEP, Triggers, Wanted, silver_wanted, stale_layers, upkeep_wanted

NOW = 1_000_000.0


def test_silver_is_wanted_once_it_left_newer_rows_of_bronze_unread_for_long() -> None:
    heads = {"bronze.quotes": Head(1, NOW - 5), "silver.trades": Head(2, NOW - 100)}
    wanted = silver_wanted(heads, NOW, patience_s=90)
    assert wanted == Wanted("silver", "bronze after silver@2")
    assert silver_wanted(heads, NOW, patience_s=101) is None
    assert silver_wanted(heads | {"silver.orders": Head(3, NOW - 4)}, NOW, patience_s=1) is None


def test_a_layer_is_stale_by_its_newest_event_and_an_empty_one_never() -> None:
    heads = {
        "bronze.trades": Head(1, NOW, NOW - 130),
        "bronze.quotes": Head(1, NOW, NOW - 10),
        "silver.trades": Head(1, NOW, NOW - 700),
    }
    assert stale_layers(heads, NOW, {"bronze": 120, "silver": 600, "gold": 7200}) == {"silver": 700}


def test_upkeep_is_wanted_after_a_minute_of_commits() -> None:
    heads = {"bronze.trades": Head(1, commits=COMMITS_BETWEEN_UPKEEP + 10), "gold.minute_bars": Head(1, commits=3)}
    wanted = upkeep_wanted(heads, {})
    assert wanted == Wanted("maintenance-hourly", f"bronze.trades@{COMMITS_BETWEEN_UPKEEP + 10}")
    assert upkeep_wanted(heads, {"bronze.trades": 11}) is None


def test_each_state_is_asked_for_once_and_again_when_prefect_was_away(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    away = True

    def ask_for(_: UUID, run: Wanted) -> UUID:
        if away:
            raise httpx.ConnectError("no server")
        asked.append(run.flow)
        return uuid4()

    monkeypatch.setattr(triggers, "ask_for", ask_for)
    flows = {name: uuid4() for name in ("silver", "quality", "maintenance-hourly")}
    looking = Triggers(flows, FlowsSettings(), CollectorRegistry())
    heads: dict[str, Any] = {
        "bronze.trades": Head(1, NOW - 100, NOW - 100, commits=COMMITS_BETWEEN_UPKEEP),
        "silver.trades": Head(2, NOW - 200, NOW - 700),
    }
    with pytest.raises(httpx.ConnectError):
        looking.look(heads, NOW)
    away = False
    looking.look(heads, NOW)
    assert asked == ["quality", "silver", "maintenance-hourly"]
    assert looking.look(heads, NOW + 1) == []
    heads["bronze.trades"] = Head(3, NOW, NOW, commits=2 * COMMITS_BETWEEN_UPKEEP)
    assert [run.flow for run in looking.look(heads, NOW + 2)] == ["maintenance-hourly"]
