"""A day of a layer is checked as it stands, and scored; what is broken stops the layer after it."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from lakehouse.append import expire_snapshots
from lakehouse.batch import BatchSession
from lakehouse.dimensions.dim_symbol import SymbolInfo, read_symbols, seed_dim_symbol
from lakehouse.gold.step import publish
from lakehouse.quality.gate import ContractViolationError
from lakehouse.quality.layer import check, last_scores, require_sound
from lakehouse.silver.events import refine_trades
from lakehouse.tables import arrow_schema

DAY = timedelta(days=1)


def rows(session: BatchSession, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = session.catalog.load_table(table).scan().to_arrow().to_pylist()
    return found


def failing(session: BatchSession, layer: str, table: str) -> set[str]:
    return {outcome.rule for outcome in check(session, layer).tables[table].failing}


def add(session: BatchSession, table: str, **changes: Any) -> None:
    """Commit a copy of the table's first row with ``changes``, past every gate."""
    row = rows(session, table)[0] | changes
    session.catalog.load_table(table).append(pa.Table.from_pylist([row], schema=arrow_schema(table)))


def test_what_silver_made_of_bronze_is_sound_and_scored(session: BatchSession, bronze: Any) -> None:
    bronze.trades({"symbol": "AAPL"}, {"symbol": "KO", "price": Decimal(60)}, {"price": Decimal(-1)})
    refine_trades(session)
    result = check(session, "silver")
    trades = result.tables["silver.trades"]
    assert {outcome.rule for outcome in trades.failing} == {"fresh"}  # the clock stands a day later
    assert trades.broken == ()
    assert trades.partition.rows == 2
    assert (trades.score.completeness, trades.score.accuracy, trades.score.uniqueness) == (1, 1, 1)
    assert (trades.score.freshness, trades.score.overall, trades.score.grade) == (0, 0.8, "C")
    result.require()
    stored = {row["table_name"]: row for row in rows(session, "quality.scores")}
    assert stored["silver.trades"]["score"] == pytest.approx(0.8)
    assert stored["silver.trades"]["failing_checks"] == ["fresh"]
    assert stored["silver"]["grade"] == result.score.grade
    assert {row["run_id"] for row in rows(session, "quality.check_results")} >= {result.run_id}


def test_trades_outside_the_validity_of_their_symbol_have_no_company_and_break_nothing(
    session: BatchSession, bronze: Any
) -> None:
    """One symbol is no longer listed since noon, another only since then."""
    noon = session.clock().replace(hour=12, minute=0, second=0, microsecond=0) - DAY
    after = noon + timedelta(hours=1)
    listed = [info for info in read_symbols() if info.symbol != "KO"]
    seed_dim_symbol(session.catalog, listed, as_of=noon)
    new = SymbolInfo("NEW", "New Inc.", "Energy", "mid", noon.isoformat())
    seed_dim_symbol(session.catalog, [*listed, new], as_of=after)
    early = noon - timedelta(hours=1)
    bronze.trades(*({"symbol": symbol, "timestamp": at} for symbol in ("KO", "NEW") for at in (early, after)))
    refine_trades(session)
    publish(session)
    companies = {(row["symbol"], row["timestamp"]): row["company_name"] for row in rows(session, "silver.trades")}
    assert companies == {
        ("KO", early): "Coca-Cola Company",
        ("KO", after): None,
        ("NEW", early): None,
        ("NEW", after): "New Inc.",
    }
    check(session, "silver").require()
    check(session, "gold").require()


def test_a_halt_without_a_time_is_checked_with_the_others(session: BatchSession) -> None:
    halt = {"event_type": "TradingHalt", "symbol": "AAPL", "level": 1, "halt_duration_secs": 300}
    kafka = {"_kafka_topic": "raw.trading-halts", "_kafka_partition": 0, "_ingested_at": session.clock()}
    halts = [
        {**halt, **kafka, "timestamp": at, "_kafka_offset": offset}
        for offset, at in enumerate((None, session.clock() - DAY, session.clock() - 2 * DAY))
    ]
    table = session.catalog.load_table("bronze.trading_halts")
    table.append(pa.Table.from_pylist(halts, schema=arrow_schema("bronze.trading_halts")))
    found = check(session, "bronze").tables["bronze.trading_halts"]
    assert (found.partition.day, found.partition.rows) == ((session.clock() - DAY).date(), 2)
    assert found.broken == ()


def test_gold_that_lags_behind_what_is_kept_is_not_called_wrong(session: BatchSession, bronze: Any) -> None:
    bronze.trades({}, {})
    refine_trades(session)
    publish(session)
    for _ in range(3):
        bronze.trades({})
        refine_trades(session)
    silver = session.catalog.load_table("silver.trades")
    expire_snapshots(silver, at=2, keep=1)
    assert len(silver.metadata.snapshots) == 1
    check(session, "gold").require()


def test_a_broken_layer_raises_says_where_and_holds_the_next_one_until_it_is_mended(
    session: BatchSession, bronze: Any
) -> None:
    bronze.trades({}, {})
    refine_trades(session)
    publish(session)
    silver = session.catalog.load_table("silver.trades")
    good = silver.metadata.current_snapshot_id
    add(session, "silver.trades", trade_id="bad", price=Decimal(-5))
    result = check(session, "silver")
    with pytest.raises(ContractViolationError) as caught:
        result.require()
    message = str(caught.value)
    assert "price_positive: price is above 0: failed on 1 of 3 rows, for example event_id=" in message
    assert "select * from silver.rejected_records where (source_table = 'silver.trades' and rule = " in message
    kept = [row for row in rows(session, "silver.rejected_records") if row["rule"] == "price_positive"]
    assert [row["source_table"] for row in kept] == ["silver.trades"]
    assert '"trade_id": "bad"' in kept[0]["record"]

    with pytest.raises(ContractViolationError):
        publish(session)
    assert [row["trade_count"] for row in rows(session, "gold.daily_trading_summary")] == [2]
    assert len([row for row in rows(session, "silver.rejected_records") if row["rule"] == "price_positive"]) == 1

    silver.refresh()
    silver.delete("trade_id = 'bad'")
    assert good is not None
    publish(session)
    require_sound(session, "silver.trades")
    assert last_scores(session.catalog.load_table("quality.scores"))["silver.trades"].broken_on is None
