"""The alerts flow on frames of its three topics."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, run_main

from dataflows.alerts import op_alerts
from dataflows.kafka import Frames

START = 1_723_075_200_000_000


def frames(topic: str, values: list[bytes], first_offset: int = 0) -> Frames:
    offsets = range(first_offset, first_offset + len(values))
    return Frames(topic, 0, offsets, values, [b"key"] * len(values), [1_723_075_200_123] * len(values))


def run(batches: list[Any], folder: Path, times: int = 1) -> tuple[list[dict[str, Any]], list[Any], list[Any]]:
    """Alerts, their outputs, dead letters."""
    alerts: list[Any] = []
    letters: list[Any] = []
    flow = Dataflow("test_alerts")
    raised, refused = op_alerts(op.input("in", flow, TestingSource(batches)))
    op.output("alerts", raised, TestingSink(alerts))
    op.output("letters", refused, TestingSink(letters))
    init_db_dir(folder, 1)
    for _ in range(times):
        run_main(flow, epoch_interval=timedelta(0), recovery_config=RecoveryConfig(folder))
    return [json.loads(output.value) for _, output in alerts], [output for _, output in alerts], letters


def test_trades_quotes_and_halts_raise_alerts_keyed_by_symbol(
    trade_frame: Callable[..., bytes], tmp_path: Path
) -> None:
    trades = [trade_frame("A", START + i, price, sequence=i) for i, price in enumerate((100, 106))]
    quotes = [
        json.dumps(
            {
                "event_type": "QuoteUpdate",
                "data": {
                    "event_id": str(i),
                    "timestamp": "2024-08-08T00:00:00Z",
                    "symbol": "A",
                    "best_bid": 100,
                    "best_ask": 100 + (1 if i < 20 else 9),
                },
            }
        ).encode()
        for i in range(21)
    ]
    halt = b"""{"event_type": "TradingHalt", "data": {"symbol": "A", "reason": "drop", "level": 1,
        "trigger_price": 93, "reference_price": 100, "decline_pct": 7.0, "halt_duration_secs": 300}}"""
    found, outputs, letters = run(
        [frames("raw.trades", trades), frames("raw.quotes", quotes), frames("raw.trading-halts", [halt])], tmp_path
    )
    assert [(alert["alert_type"], alert["severity"]) for alert in found] == [
        ("price_movement", "HIGH"),
        ("wide_spread", "MEDIUM"),
        ("trading_halt", "MEDIUM"),
    ]
    assert {output.key for output in outputs} == {"A"}
    assert found[2]["triggered_at"] == "2024-08-08T00:00:00.123000Z"  # the topic's time: the frame has none
    assert letters == []


def test_one_sided_quotes_raise_nothing_and_garbage_becomes_a_dead_letter(tmp_path: Path) -> None:
    quote = (
        b'{"data":{"event_id":"1","timestamp":"2024-08-08T00:00:00Z","symbol":"A","best_bid":null,"best_ask":1}}'
    )
    found, _, letters = run([frames("raw.quotes", [quote, b"{", quote], 10)], tmp_path)
    assert found == []
    ((_, letter),) = letters
    assert dict(letter.output.headers)["source_offset"] == b"11"


@pytest.mark.parametrize("abort_at", [1, 5, 9])
def test_an_aborted_flow_repeats_its_alerts_with_the_same_ids_and_versions(
    abort_at: int, trade_frame: Callable[..., bytes], tmp_path: Path
) -> None:
    trades = [
        trade_frame("AB"[i % 2], START + i * 10_000_000, 100 + (i * 37) % 11, sequence=i) for i in range(100)
    ]
    batches: list[Any] = [frames("raw.trades", trades[i : i + 10], i) for i in range(0, 100, 10)]
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole, _, _ = run(list(batches), tmp_path / "whole")
    batches.insert(abort_at, TestingSource.ABORT())
    found, outputs, _ = run(batches, tmp_path / "cut", times=2)
    assert whole
    by_version = {output.version: alert for output, alert in zip(outputs, found, strict=True)}
    assert [by_version[version] for version in sorted(by_version)] == whole
    assert all(by_version[output.version] == alert for output, alert in zip(outputs, found, strict=True))
