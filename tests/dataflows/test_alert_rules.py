"""The alert rules, one by one."""

from __future__ import annotations

from decimal import Decimal

import pytest

from dataflows.alert_rules import Alert, Halts, Prices, Spreads, Volumes
from dataflows.frames import Halt, HaltFrame

SECOND = 1_000_000
MINUTE = 60 * SECOND
START = 29_000_000 * MINUTE


def prices(*trades: tuple[float, int]) -> list[Alert]:
    """(seconds, price) → the alerts."""
    rule = Prices()
    return [
        alert for at, price in trades for alert in rule.trade("A", START + round(at * SECOND), price, f"e{at}")
    ]


@pytest.mark.parametrize(
    ("price", "expected"),
    [
        (101_99, []),
        (102_00, [("MEDIUM", "UP", 2)]),
        (98_00, [("MEDIUM", "DOWN", 2)]),
        (105_00, [("HIGH", "UP", 5)]),
        (90_01, [("HIGH", "DOWN", 5)]),
        (110_00, [("CRITICAL", "UP", 10)]),
        (50_00, [("CRITICAL", "DOWN", 10)]),
    ],
)
def test_a_move_reaches_a_threshold_exactly(price: int, expected: list[tuple[str, str, int]]) -> None:
    alerts = prices((0, 100_00), (10, price))
    assert [(alert.severity, alert.direction, alert.threshold) for alert in alerts] == expected


def test_the_baseline_is_five_minutes_old_and_not_older() -> None:
    assert prices((0, 100), (299, 102)) != []
    assert prices((0, 100), (150, 101), (301, 102)) == []  # from 101


def test_moves_cool_down_for_sixty_seconds_and_start_from_the_alert_s_price() -> None:
    alerts = prices((0, 1000), (1, 1020), (2, 1100), (60.9, 1100), (61, 1100), (62, 1099))
    assert [(alert.time_us - START, alert.baseline) for alert in alerts] == [(SECOND, 1000), (61 * SECOND, 1020)]


def test_a_trade_out_of_order_raises_nothing() -> None:
    assert prices((10, 100), (5, 200), (11, 100)) == []


def test_an_alert_s_id_depends_on_nothing_but_its_cause() -> None:
    first, second = (prices((0, 100), (1, 102)) for _ in range(2))
    assert first[0].record() == second[0].record()
    other = prices((0, 100), (2, 102))
    assert other[0].record()["alert_id"] != first[0].record()["alert_id"]


def test_a_record_has_the_contract_s_fields() -> None:
    (alert,) = prices((0, 100_00000000), (1, 102_50000000))
    record = alert.record()
    del record["alert_id"]
    assert record == {
        "alert_type": "price_movement",
        "symbol": "A",
        "severity": "MEDIUM",
        "direction": "UP",
        "price": Decimal("102.5"),
        "baseline_price": Decimal(100),
        "pct_change": Decimal("2.5"),
        "threshold": 2,
        "triggered_at": "2025-02-19T21:20:01.000000Z",
        "message": "A up 2.50 % within 5 minutes, to 102.5",
    }


def volumes(per_minute: list[int], last: list[int]) -> list[Alert]:
    """One trade in each minute, then several in the last one."""
    rule = Volumes()
    trades = [(minute, quantity) for minute, quantity in enumerate(per_minute) if quantity]
    trades += [(len(per_minute), quantity) for quantity in last]
    return [
        alert
        for number, (minute, quantity) in enumerate(trades)
        for alert in rule.trade("A", START + minute * MINUTE + number, 100, quantity, str(number))
    ]


def test_a_volume_above_three_times_the_mean_of_twenty_minutes_is_a_spike_once_a_minute() -> None:
    assert volumes([10] * 20, [30]) == []
    (alert,) = volumes([10] * 20, [30, 1, 100])
    assert (alert.alert_type, alert.severity, alert.cause) == ("volume_spike", "MEDIUM", "21")


def test_minutes_without_trades_count_as_nothing_in_the_mean() -> None:
    assert len(volumes([10, 0] * 10, [16])) == 1
    assert volumes([10, 0] * 10, [15]) == []


def test_fewer_than_twenty_minutes_of_history_raise_no_spike() -> None:
    assert volumes([10] * 19, [1000]) == []


def spreads(*widths: int, step: int = SECOND) -> list[Alert]:
    rule = Spreads()
    return [
        alert
        for number, width in enumerate(widths)
        for alert in rule.quote("A", START + number * step, 1000, 1000 + width, str(number))
    ]


def test_a_spread_above_five_times_the_median_is_wide() -> None:
    assert spreads(*[2] * 20, 10) == []
    (alert,) = spreads(*[2] * 20, 11)
    assert (alert.alert_type, alert.threshold, alert.severity) == ("wide_spread", 5, "MEDIUM")


def test_the_median_is_of_the_last_hundred_quotes() -> None:
    assert spreads(*[100] * 50, *[2] * 100, 12, step=1) != []
    (jump,) = spreads(*[2] * 50, *[100] * 100, 501, 500, step=MINUTE)[:1]
    assert jump.cause == "50"
    assert spreads(*[100] * 100, 500, step=MINUTE) == []


def test_wide_spreads_cool_down() -> None:
    assert len(spreads(*[2] * 20, *[50] * 5)) == 1


def halt(event_type: str, event_id: str | None, level: int = 2) -> HaltFrame:
    prices = {"trigger_price": Decimal("86.5"), "reference_price": Decimal(100), "decline_pct": Decimal("13.5")}
    fields = prices if event_type == "TradingHalt" else {}
    return HaltFrame(event_type, Halt("A", level, 300, event_id=event_id, reason="CircuitBreaker", **fields))  # type: ignore[arg-type]


def test_every_halt_and_resume_is_an_alert_and_a_doubled_frame_is_not() -> None:
    rule = Halts()
    frames = [halt("TradingHalt", "h1"), halt("TradingHalt", "h1"), halt("TradingResume", "r1")]
    alerts = [alert for frame in frames for alert in rule.event(frame, START)]
    assert [(alert.alert_type, alert.severity) for alert in alerts] == [
        ("trading_halt", "HIGH"),
        ("trading_resume", "HIGH"),
    ]
    assert alerts[0].record()["pct_change"] == Decimal("-13.5")
    assert alerts[0].record()["baseline_price"] == 100
    assert (alerts[0].record()["direction"], alerts[0].record()["threshold"]) == ("DOWN", 13)


def test_a_pause_at_the_upper_price_band_is_up_and_has_no_threshold() -> None:
    data = Halt(
        *("A", 1, 300), event_id="h", reason="LimitUpLimitDown", trigger_price=Decimal(105),
        reference_price=Decimal(100), decline_pct=Decimal(-5),
    )  # fmt: skip
    [alert] = Halts().event(HaltFrame("TradingHalt", data), START)
    assert alert.record() | {"direction": "UP", "pct_change": Decimal(5), "threshold": None} == alert.record()
