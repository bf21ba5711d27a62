"""Masked tables follow their sources, and show nobody's name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lakehouse.batch import BatchSession
from lakehouse.governance.masking import masking_key, publish_masked
from lakehouse.layers.governance import masked
from lakehouse.silver.events import refine_trades
from lakehouse.tables import TABLES

NOON = datetime(2026, 3, 9, 12, tzinfo=UTC)
ANALYST, BUSINESS = "governance.silver_trades_analyst", "governance.silver_trades_business"


def rows(session: BatchSession, table: str) -> list[dict[str, Any]]:
    found = session.catalog.load_table(table).scan().to_arrow().to_pylist()
    return sorted(found, key=lambda row: row["trade_id"])


def test_agents_become_pseudonyms_or_go(session: BatchSession, bronze: Any) -> None:
    agents = {"buyer_agent_id": "alice", "seller_agent_id": "bob"}
    bronze.trades({"timestamp": NOON, **agents}, {"timestamp": NOON + timedelta(days=1), "buyer_agent_id": "bob"})
    refine_trades(session)
    done = publish_masked(session)
    assert (done[ANALYST].rows, len(done[ANALYST].days)) == (2, 2)
    one, two = rows(session, ANALYST)
    assert one["seller_agent_id"] == two["buyer_agent_id"], "an agent has one pseudonym"
    assert len({one["buyer_agent_id"], one["seller_agent_id"], "alice", "bob"}) == 4
    source = rows(session, "silver.trades")[0]
    assert one == source | {name: one[name] for name in agents}
    assert rows(session, BUSINESS)[0] == {key: value for key, value in source.items() if key not in agents}


def test_only_days_that_changed_are_written_anew(session: BatchSession, bronze: Any) -> None:
    for day in range(2):
        bronze.trades({"timestamp": NOON + timedelta(days=day)})
        refine_trades(session)
        done = publish_masked(session)
        assert done[ANALYST].days == ((NOON + timedelta(days=day)).date(),)
    assert len(rows(session, ANALYST)) == 2
    assert publish_masked(session)[ANALYST].days == ()


def test_the_key_is_made_once_and_nobody_else_reads_it(session: BatchSession) -> None:
    key = masking_key(session.settings)
    assert len(key) == 64
    assert masking_key(session.settings) == key
    (path,) = session.settings.lakehouse_dir.glob("masking.key*")
    assert path.stat().st_mode & 0o077 == 0


def test_a_key_that_names_people_cannot_be_left_out() -> None:
    with pytest.raises(ValueError, match=r"gold\.trader_performance"):
        masked(TABLES["gold.trader_performance"], "public")
