"""The oracles themselves, on files small enough to add up by hand."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from tests.e2e import capture, journal
from tests.e2e.figures import Bar, Totals, differences, vwap

MINUTE = 1_723_161_240_000  # 2024-08-08 23:54 UTC
START = datetime(2024, 8, 8, 23, 54, tzinfo=UTC)


def trade(t: int, ms: int, price: str, quantity: str) -> str:
    data = {"e": "trade", "T": MINUTE + ms, "s": "BTCUSDT", "t": t, "p": price, "q": quantity, "m": False}
    return f"1 {json.dumps({'stream': 'btcusdt@trade', 'data': data}, separators=(',', ':'))}\n"


OTHER = '1 {"stream":"x","data":{"e":"bookTicker","s":"BTCUSDT","b":"1","B":"1","a":"2","A":"1","T":1}}\n'


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "it's.gz"
    lines = [
        OTHER,
        trade(3, 59_999, "61100.30", "0.3"),
        trade(1, 10, "61100.10", "0.1"),
        trade(2, 10, "61100.20", "0.2"),
        trade(4, 20, "0", "9"),
        trade(5, 20, "9", "0.000"),
        '1 {"stream":"btcusdt@trade","data":{"e":"trade","T":17231612\n',
        '1 {"lastUpdateId":1,"bids":[["1","1"]],"asks":[]}\n',
        trade(6, 60_000, "99.99", "0.00000001"),
    ]
    path.write_bytes(gzip.compress("".join(lines).encode()))
    return path


def test_totals_of_a_capture_are_exact_and_leave_out_what_is_no_trade(small: Path) -> None:
    assert capture.totals(small) == Totals(4, Decimal("0.60000001"))


def test_bars_of_a_capture_follow_transaction_time_and_then_trade_id(small: Path) -> None:
    # (61100.10 * 0.1 + 61100.20 * 0.2 + 61100.30 * 0.3) / 0.6 = 36660.14 / 0.6
    first = Bar(
        Decimal("61100.10"), Decimal("61100.30"), Decimal("61100.10"), Decimal("61100.30"), Decimal("0.6"), 3,
        Decimal("61100.23333333"),
    )  # fmt: skip
    price = Decimal("99.99")
    second = Bar(price, price, price, price, Decimal("0.00000001"), 1, price)
    assert capture.minute_bars(small) == {START: first, START.replace(minute=55): second}


def test_vwap_is_rounded_half_even() -> None:
    assert vwap(Decimal("0.000000025"), Decimal(2)) == Decimal("0.00000001")
    assert vwap(Decimal("0.00000003"), Decimal(2)) == Decimal("0.00000002")


def test_differences_name_the_minute_the_field_and_both_values(small: Path) -> None:
    bars = capture.minute_bars(small)
    later = START.replace(minute=55)
    assert differences(bars, dict(bars)) == []
    assert differences(bars, {START: bars[START]}) == ["23:55: missing"]
    assert differences({START: bars[START]}, bars) == ["23:55: not in the source"]
    changed = {**bars, later: bars[later]._replace(volume=Decimal("0.00000002"))}
    assert differences(bars, changed) == ["23:55: volume is 2E-8, and 1E-8 in the source"]


def frame(sequence: int, event_type: str = "TradeExecuted", quantity: str = "100") -> str:
    return (
        f'{{"event_type":"{event_type}","data":{{"event_id":"e{sequence}","timestamp":"2026-01-01T00:00:00.000000Z",'
        f'"sequence":{sequence},"symbol":"AAPL","price":10.01,"quantity":{quantity}}}}}\n'
    )


def write_journal(data_dir: Path, session: str, first: int, *frames: str) -> None:
    directory = data_dir / "exchange" / "journal" / session
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{first:020d}.jsonl").write_text("".join(frames))


def test_totals_of_a_journal_are_those_of_the_trades_of_all_sessions(tmp_path: Path) -> None:
    write_journal(tmp_path, "a", 1, frame(1), frame(2, "OrderPlaced", "7"))
    write_journal(tmp_path, "a", 3, frame(3, quantity="0.00000001"))
    write_journal(tmp_path, "b", 1, frame(1, quantity="25"))
    assert journal.totals(tmp_path) == Totals(3, Decimal("125.00000001"))
    assert journal.events(tmp_path) == {"TradeExecuted": 3, "OrderPlaced": 1}
    assert journal.events(tmp_path, since="2026-01-01T00:00:00.000001Z") == {}
    assert journal.events(tmp_path, before="2026-01-01T00:00:00.000000Z") == {}


@pytest.mark.parametrize("sequences", [(2, 3), (1, 3), (1, 2, 2)])
def test_a_journal_that_is_not_whole_is_no_oracle(tmp_path: Path, sequences: tuple[int, ...]) -> None:
    write_journal(tmp_path, "a", 1, *map(frame, sequences))
    with pytest.raises(journal.BrokenJournal, match="'a'"):
        journal.totals(tmp_path)
