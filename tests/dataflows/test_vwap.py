"""The vwap flow: rows, dead letters, early publication, and exact results over crashes."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, run_main
from confluent_kafka import Message

from dataflows.kafka import Frames
from dataflows.metrics import DUPLICATE_TRADES
from dataflows.settings import StreamSettings
from dataflows.sink import DeadLetter, Output
from dataflows.vwap import SETTLE, VwapLogic, op_windows

MINUTE_US = 60_000_000
BASE = 1_900_000_020_000_000 // (15 * MINUTE_US) * (15 * MINUTE_US)
"""Later than any other test's trades, so that theirs do not make these late."""


def frames(values: list[bytes], first_offset: int = 0, written_us: int = 2 * BASE) -> Frames:
    offsets = range(first_offset, first_offset + len(values))
    count = len(values)
    return Frames("raw.trades", 0, offsets, values, [b"key"] * count, [written_us // 1000] * count)


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2024, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def rows(items: Any) -> list[dict[str, Any]]:
    return [json.loads(item.value, parse_float=Decimal) for _, item in items if isinstance(item, Output)]


def test_a_row_has_the_contract_s_fields_with_exact_numbers(trade_frame: Callable[..., bytes]) -> None:
    logic = VwapLogic(StreamSettings(), Clock(), None)
    values = [
        trade_frame("BTC", BASE, 61800.2, 0.006, 1),
        trade_frame("BTC", BASE + 1, 61800.3, 0.003, 2),
        trade_frame("BTC", BASE + 65_000_000, 1, 1, 3),
    ]
    outputs, _ = logic.on_batch([frames(values)])
    (row,) = [row for row in rows(outputs) if row["window"] == "1m"]
    assert row == {
        "symbol": "BTC",
        "window": "1m",
        "window_start": "2030-03-17T17:45:00.000000Z",
        "window_end": "2030-03-17T17:46:00.000000Z",
        "open": Decimal("61800.2"),
        "high": Decimal("61800.3"),
        "low": Decimal("61800.2"),
        "close": Decimal("61800.3"),
        "volume": Decimal("0.009"),
        "notional": Decimal("556.2021"),
        "vwap": Decimal("61800.23333333"),
        "trade_count": 2,
        "buy_volume": Decimal("0.003"),
        "sell_volume": Decimal("0.006"),
        "revision": 1,
        "computed_at": "2024-01-01T00:00:00.000000Z",
    }


def test_what_is_no_trade_becomes_a_dead_letter_and_the_rest_goes_on(trade_frame: Callable[..., bytes]) -> None:
    logic = VwapLogic(StreamSettings(), Clock(), None)
    good = [trade_frame("A", BASE), trade_frame("A", BASE + 70_000_000)]
    outputs, _ = logic.on_batch([frames([good[0], b"{]", good[1]], first_offset=40)])
    (letter,) = [item.output for _, item in outputs if isinstance(item, DeadLetter)]
    headers = dict(letter.headers)
    assert letter.value == b"{]"
    assert (letter.key, headers["stage"], headers["source_topic"]) == ("key", b"vwap", b"raw.trades")
    assert (headers["source_partition"], headers["source_offset"]) == (b"0", b"41")
    assert b"malformed" in headers["error"]
    assert {row["trade_count"] for row in rows(outputs)} == {1}


def test_a_trade_too_late_to_correct_its_windows_becomes_a_dead_letter(trade_frame: Callable[..., bytes]) -> None:
    logic = VwapLogic(StreamSettings(window_keep_seconds=60), Clock(), None)
    late = trade_frame("A", BASE, sequence=2)
    outputs, _ = logic.on_batch([frames([trade_frame("A", BASE + 10 * MINUTE_US), late])])
    (letter,) = [item.output for _, item in outputs if isinstance(item, DeadLetter)]
    assert letter.value == late


def test_a_trade_of_the_far_future_becomes_a_dead_letter_wherever_it_stands_in_a_batch(
    trade_frame: Callable[..., bytes],
) -> None:
    logic = VwapLogic(StreamSettings(window_ahead_seconds=60), Clock(), None)
    values = [trade_frame("A", BASE + i, sequence=i) for i in range(1_000)]
    places = [1, 500, 501, 999]
    for place in places:
        values[place] = trade_frame("A", BASE + 61_000_000, sequence=place)
    outputs, _ = logic.on_batch([frames(values, first_offset=100, written_us=BASE)])
    letters = [item.output for _, item in outputs if isinstance(item, DeadLetter)]
    assert [dict(letter.headers)["source_offset"] for letter in letters] == [b"%d" % (100 + p) for p in places]
    assert [letter.value for letter in letters] == [values[place] for place in places]
    assert all(b"too far ahead" in dict(letter.headers)["error"] for letter in letters)
    closing = frames([trade_frame("A", BASE + 70_000_000, sequence=9999)], written_us=BASE + 70_000_000)
    (minute,) = [row for row in rows(logic.on_batch([closing])[0]) if row["window"] == "1m"]
    assert minute["trade_count"] == 1_000 - len(places)


def test_a_copy_of_a_trade_is_counted_in_the_metrics_and_nowhere_else(trade_frame: Callable[..., bytes]) -> None:
    logic = VwapLogic(StreamSettings(), Clock(), None)
    numbered = trade_frame("A", BASE, sequence=5)
    unnumbered = trade_frame("A", BASE, sequence=4).replace(b'"sequence": 4', b'"sequence": null')
    before = DUPLICATE_TRADES._value.get()
    logic.on_batch([frames([numbered, unnumbered, numbered])])
    logic = VwapLogic(StreamSettings(), Clock(), pickle.loads(pickle.dumps(logic.snapshot())))  # noqa: S301
    closing = trade_frame("A", BASE + 70_000_000, sequence=6)
    outputs, _ = logic.on_batch([frames([unnumbered, numbered, closing])])
    (minute,) = [row for row in rows(outputs) if row["window"] == "1m"]
    assert minute["trade_count"] == 2
    assert DUPLICATE_TRADES._value.get() - before == 3


def test_a_silent_shard_publishes_early_but_only_what_a_snapshot_has_recorded(
    trade_frame: Callable[..., bytes],
) -> None:
    clock = Clock()
    logic = VwapLogic(StreamSettings(idle_close_seconds=10), clock, None)
    logic.on_batch([frames([trade_frame("A", BASE)])])
    assert logic.notify_at() == clock.now + timedelta(seconds=10)
    clock.now += timedelta(seconds=10)
    assert logic.on_notify() == ((), False)  # decided
    clock.now += SETTLE
    assert logic.on_notify() == ((), False)  # no snapshot yet
    state = logic.snapshot()
    clock.now += SETTLE
    published, _ = logic.on_notify()
    assert {(row["window"], row["revision"]) for row in rows(published)} == {
        ("1m", 1),
        ("5m", 1),
        ("15m", 1),
        ("5m/1m", 1),
    }
    assert logic.notify_at() is None

    resumed = VwapLogic(StreamSettings(idle_close_seconds=10), clock, state)
    resumed.snapshot()
    clock.now += SETTLE
    again, _ = resumed.on_notify()
    assert [item.origin for _, item in again] == [item.origin for _, item in published]
    assert [item.version for _, item in again] == [item.version for _, item in published]


def test_data_that_comes_before_an_early_publication_replaces_it(trade_frame: Callable[..., bytes]) -> None:
    clock = Clock()
    logic = VwapLogic(StreamSettings(idle_close_seconds=10), clock, None)
    logic.on_batch([frames([trade_frame("A", BASE)])])
    clock.now += timedelta(seconds=10)
    logic.on_notify()
    outputs, _ = logic.on_batch([frames([trade_frame("A", BASE + 65_000_000, sequence=1)])])
    (minute,) = [row for row in rows(outputs) if row["window"] == "1m"]
    assert (minute["trade_count"], minute["revision"]) == (1, 2)


def shuffled(
    trade_frame: Callable[..., bytes], symbols: list[str], count: int, seed: int
) -> list[tuple[str, bytes]]:
    """Keyed frames over about half an hour, one in ten late by up to three minutes."""
    dice = random.Random(seed)
    made = []
    for i in range(count):
        late = dice.randrange(180_000_000) if dice.random() < 0.1 else 0
        time_us = max(BASE, BASE + i * 1_800_000_000 // count - late)
        symbol = dice.choice(symbols)
        price, quantity = dice.randrange(1, 10**7) / 100, dice.randrange(1, 10**4) / 1000
        sequence = seed * 1_000_000 + i  # two tests on one broker: else they would be copies of each other
        made.append((symbol, trade_frame(symbol, time_us, price, quantity, sequence)))
    return made


def naive_minutes(values: list[bytes]) -> dict[str, tuple[Any, ...]]:
    """symbol|1m|start → the row's figures, from scratch."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for value in values:
        data = json.loads(value, parse_float=Decimal)["data"]
        groups.setdefault(f"{data['symbol']}|1m|{data['timestamp'][:17]}00.000000Z", []).append(data)
    table = {}
    for key, trades in groups.items():
        trades.sort(key=lambda trade: (trade["timestamp"], trade["sequence"]))
        prices = [trade["price"] for trade in trades]
        volume = sum(trade["quantity"] for trade in trades)
        notional = sum(trade["quantity"] * trade["price"] for trade in trades)
        table[key] = (prices[0], max(prices), min(prices), prices[-1], volume, notional, len(trades))
    return table


def figures(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("open", "high", "low", "close", "volume", "notional", "trade_count"))


@pytest.mark.parametrize("abort_at", [1, 7, 20, 39])
def test_a_flow_that_is_aborted_and_resumed_repeats_itself_exactly(
    abort_at: int, trade_frame: Callable[..., bytes], tmp_path: Path
) -> None:
    trades = [value for _, value in shuffled(trade_frame, ["A", "B", "C"], 400, seed=abort_at)]
    batches: list[Any] = [frames(trades[i : i + 10], i) for i in range(0, 400, 10)]
    batches.append(frames([trade_frame("A", BASE + 50 * MINUTE_US, sequence=999)], 400))
    batches.insert(abort_at, TestingSource.ABORT())
    out: list[tuple[str, Output]] = []

    flow = Dataflow("test_vwap")
    kept, _ = op_windows(op.input("in", flow, TestingSource(batches)), StreamSettings())
    op.output("out", kept, TestingSink(out))
    init_db_dir(tmp_path, 1)
    for _ in range(2):  # the first is aborted
        run_main(flow, epoch_interval=timedelta(0), recovery_config=RecoveryConfig(tmp_path))

    by_version: dict[tuple[str, int], dict[str, Any]] = {}
    for (key, output), row in zip(out, rows(out), strict=True):
        del row["computed_at"]
        assert by_version.setdefault((key, output.version), row) == row
    newest = {key: by_version[key, version] for key, version in sorted(by_version)}
    minutes = {key: figures(row) for key, row in newest.items() if row["window"] == "1m"}
    assert minutes == naive_minutes(trades)


@pytest.mark.integration
def test_a_killed_process_loses_no_trade_and_doubles_no_row(
    service: Callable[..., Any],
    stream_settings: StreamSettings,
    produce: Callable[..., None],
    count_messages: Callable[[str], int],
    read_topic: Callable[..., list[Message]],
    trade_frame: Callable[..., bytes],
    unique: str,
    until: Callable[..., Any],
) -> None:
    trades = shuffled(trade_frame, [f"{unique}{i}" for i in range(12)], 6000, seed=1)
    # the trades are of the year 2030, so that those of other tests do not make them late
    vwap = service("dataflows.vwap", idle_close_seconds="2", window_ahead_seconds="1e9")

    def written() -> list[Message]:
        return [m for m in read_topic("processed.vwap") if m.key().startswith(unique.encode())]

    for begin in (0, 3000):
        vwap.start()
        before = count_messages("processed.vwap")
        for symbol, value in trades[begin : begin + 2000]:
            produce("raw.trades", value, symbol)
        until("rows come out", lambda before=before: count_messages("processed.vwap") > before)
        for symbol, value in trades[begin + 2000 : begin + 3000]:
            produce("raw.trades", value, symbol)
        vwap.kill()
    vwap.start()

    expected = naive_minutes([value for _, value in trades])

    def final() -> bool:
        table = {}
        for message in written():
            table[message.key().decode()] = json.loads(message.value(), parse_float=Decimal)
        return {key: figures(row) for key, row in table.items() if row["window"] == "1m"} == expected

    until("the newest rows are the exact ones", final)
    versions = [(m.key(), json.loads(m.value())["revision"]) for m in written()]
    assert len(versions) == len(set(versions))
    assert vwap.stop() == 0
