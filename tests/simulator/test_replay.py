"""simulator.replay and .capture: small Binance captures made by hand, broken in known ways."""

from __future__ import annotations

import gzip
import json
import logging
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.events import parse_frame
from simulator.recorded.binance import BinanceReplay
from simulator.recorded.capture import ReplayError
from simulator.replay import open_replay

T0 = 1_723_161_256_000


def trade(t: int, price: str = "100.10", quantity: str = "0.006", ms: int = 0, maker: bool = False) -> str:
    data = {"e": "trade", "E": T0, "T": T0 + ms, "s": "BTCUSDT", "t": t, "p": price, "q": quantity, "m": maker}
    return f"1 {json.dumps({'stream': 'btcusdt@trade', 'data': data})}"


def quote(bid: str, bid_size: str, ask: str, ask_size: str, ms: int = 0) -> str:
    data = {
        "e": "bookTicker",
        "u": 1,
        "s": "BTCUSDT",
        "b": bid,
        "B": bid_size,
        "a": ask,
        "A": ask_size,
        "T": T0 + ms,
    }
    return f"1 {json.dumps({'stream': 'btcusdt@bookTicker', 'data': data})}"


def depth(first: int, last: int, previous: int, bids: list[tuple[str, str]], ms: int = 0) -> str:
    ids = {"U": first, "u": last, "pu": previous}
    data = {"e": "depthUpdate", "E": T0, "T": T0 + ms, "s": "BTCUSDT", **ids, "b": bids, "a": []}
    return f"1 {json.dumps({'stream': 'btcusdt@depth@0ms', 'data': data})}"


def snapshot(last_update_id: int, ms: int = 0) -> str:
    levels = {"bids": [["100.10", "1.000"]], "asks": [["100.20", "2.000"]]}
    return f"1 {json.dumps({'lastUpdateId': last_update_id, 'E': T0, 'T': T0 + ms, **levels})}"


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def frames(replay: BinanceReplay, kind: str = "") -> list[dict[str, Any]]:
    """The ``data`` of every frame, or of those of one kind, numbers as Decimal; each one is validated."""
    found = []
    for _, frame in replay.events():
        event = parse_frame(frame)
        if kind in ("", event.event_type):
            found.append(json.loads(frame, parse_float=Decimal)["data"])
    return found


def test_numbers_are_written_exactly_as_the_venue_wrote_them(tmp_path: Path) -> None:
    path = write(tmp_path / "c", trade(7, "61800.20", "0.00000001"), quote("61800.10", "2.500", "61800.20", "10"))
    trade_frame, _, quote_frame = (frame for _, frame in BinanceReplay(path).events())
    assert b'"price":61800.20,"quantity":0.00000001,' in trade_frame
    assert b'"best_bid":61800.10,"best_bid_size":2.500,"best_ask":61800.20,"best_ask_size":10,' in quote_frame
    assert b'"spread":0.10}' in quote_frame


def test_a_trade_is_the_sellers_when_the_buyer_was_the_maker(tmp_path: Path) -> None:
    path = write(tmp_path / "c", trade(1, maker=True), trade(2, maker=False))
    trades = frames(BinanceReplay(path), "TradeExecuted")
    assert [t["is_aggressive_buy"] for t in trades] == [False, True]
    assert [t["trade_id"] for t in trades] == ["BINANCE-USDM-BTCUSDT-1", "BINANCE-USDM-BTCUSDT-2"]
    assert trades[0]["buyer_agent_id"] != trades[0]["seller_agent_id"]


def test_trades_of_nothing_are_counted_and_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "c", trade(1), trade(2, quantity="0"), trade(3, price="0.00"), trade(4))
    replay = BinanceReplay(path)
    assert [t["trade_id"][-1] for t in frames(replay, "TradeExecuted")] == ["1", "4"]
    assert (replay.counts.zero_trades, replay.counts.bad_lines) == (2, 0)


def test_a_quote_with_an_empty_side_has_no_price_and_no_spread_there(tmp_path: Path) -> None:
    path = write(tmp_path / "c", quote("0.00", "0.000", "100.20", "1"), quote("100.10", "1", "100.20", "1"))
    first, second = frames(BinanceReplay(path))
    assert (first["best_bid"], first["best_bid_size"], first["spread"]) == (None, 0, None)
    assert (second["best_bid"], second["spread"]) == (Decimal("100.10"), Decimal("0.10"))


def test_a_crossed_quote_has_a_negative_spread(tmp_path: Path) -> None:
    path = write(tmp_path / "c", quote("100.3", "1", "100.20", "1"))
    assert frames(BinanceReplay(path))[0]["spread"] == Decimal("-0.10")


def test_event_time_may_step_back_and_the_sequence_follows_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "c", quote("1", "1", "2", "1", ms=20), quote("1", "2", "2", "1", ms=13))
    (first_us, _), (second_us, _) = BinanceReplay(path).events()
    assert (first_us, second_us) == ((T0 + 20) * 1000, (T0 + 13) * 1000)
    first, second = frames(BinanceReplay(path))
    assert (first["sequence"], second["sequence"]) == (1, 2)
    assert second["timestamp"] == "2024-08-08T23:54:16.013000Z"


def test_books_come_at_most_each_100_ms_of_event_time(tmp_path: Path) -> None:
    diffs = [depth(n, n, n - 1, [("100.00", str(n))], ms=10 * n) for n in range(11, 61)]
    path = write(tmp_path / "c", snapshot(10, ms=100), *diffs)
    books = frames(BinanceReplay(path), "OrderBookSnapshot")
    assert [b["timestamp"][20:23] for b in books] == ["100", "200", "300", "400", "500", "600"]
    assert books[-1]["sequence_number"] == 60
    assert books[-1]["bids"][1] == {"price": Decimal("100.00"), "quantity": 60, "order_count": 0}


def test_statistics_come_once_a_second_and_only_after_a_trade(tmp_path: Path) -> None:
    lines = [quote("1", "1", "2", "1", ms=ms) for ms in range(0, 3_000, 100)]
    path = write(tmp_path / "c", *lines[:5], trade(1, "100.5", "3", ms=450), *lines[5:])
    stats = frames(BinanceReplay(path), "MarketStats")
    assert [s["timestamp"][17:23] for s in stats] == ["16.450", "17.000", "18.000"]
    assert (stats[0]["vwap"], stats[0]["volume"], stats[0]["trade_count"]) == (Decimal("100.5"), 3, 1)


def test_statistics_end_where_the_volume_is_more_than_the_contract_can_hold(tmp_path: Path) -> None:
    path = write(tmp_path / "c", *(trade(n, quantity="9999999999", ms=1_000 * n) for n in range(3)))
    events = frames(BinanceReplay(path))
    assert [len([e for e in events if field in e]) for field in ("trade_id", "trade_count")] == [3, 1]


def test_a_gap_stops_the_book_until_the_next_snapshot(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(
        tmp_path / "c",
        depth(5, 9, 4, [("99.00", "1")], ms=0),
        snapshot(10, ms=100),
        depth(11, 12, 10, [("100.00", "1")], ms=200),
        depth(20, 22, 19, [("100.01", "1")], ms=300),
        depth(23, 24, 22, [("100.02", "1")], ms=400),
        snapshot(21, ms=500),
        depth(25, 26, 24, [("100.03", "1")], ms=600),
    )
    replay = BinanceReplay(path)
    books = frames(replay, "OrderBookSnapshot")
    assert [b["sequence_number"] for b in books] == [10, 12, 24, 26]
    assert [level["price"] for level in books[2]["bids"]] == [
        Decimal("100.10"),
        Decimal("100.02"),
        Decimal("100.01"),
    ]
    assert (replay.counts.gaps, replay.counts.book_resyncs) == (1, 1)
    assert "breaks after update id 12; no order book until the next snapshot" in caplog.text


def test_a_level_with_the_price_zero_is_a_bad_line(tmp_path: Path) -> None:
    path = write(tmp_path / "c", snapshot(10), depth(11, 12, 10, [("0.00", "1")]), trade(1))
    replay = BinanceReplay(path)
    assert len(frames(replay, "OrderBookSnapshot")) == 1
    assert (replay.counts.bad_lines, replay.counts.gaps) == (1, 1)


def test_a_torn_book_line_is_a_bad_line_and_then_a_gap(tmp_path: Path) -> None:
    torn = depth(13, 14, 12, [("100.00", "2")])
    path = write(
        tmp_path / "c",
        snapshot(10),
        depth(11, 12, 10, [("100.00", "1")]),
        torn[: len(torn) // 2],
        depth(15, 16, 14, [("100.00", "3")]),
        trade(1),
    )
    replay = BinanceReplay(path)
    assert len(frames(replay, "TradeExecuted")) == 1
    assert (replay.counts.bad_lines, replay.counts.gaps) == (1, 1)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('1 {"stream":"x","data":', "truncated"),
        ("", "truncated"),
        ("no space and no json", "malformed"),
        ("1 [1, 2]", "Expected `object`"),
        ('1 {"result":null,"id":1}', "missing required field `data`"),
        (trade(2, price="-5"), "'-5' is not a decimal number"),
        (trade(2, quantity="1e3"), "'1e3' is not a decimal number"),
        (trade(2, price="NaN"), "'NaN' is not a decimal number"),
        (trade(2).replace("BTCUSDT", "ETHUSDT"), "of ETHUSDT, in a capture of BTCUSDT"),
        (trade(2).replace(str(T0), "-1"), "Expected `int` >= 0"),
        (trade(2).replace(str(T0), "9" * 18), "Expected `int` <="),
        (trade(2).replace('"t": 2', f'"t": {"9" * 30}'), "Expected `int`"),
        ("1 " + "[" * 100_000, "recursion"),
    ],
)
def test_a_bad_line_is_named_counted_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, line: str, reason: str
) -> None:
    path = write(tmp_path / "c", trade(1), line, trade(3))
    replay = BinanceReplay(path)
    assert [t["trade_id"][-1] for t in frames(replay, "TradeExecuted")] == ["1", "3"]
    assert (replay.counts.lines, replay.counts.bad_lines) == (3, 1)
    [record] = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert f"{path}:2: line passed over" in record.getMessage()
    assert reason in record.getMessage()


def test_many_bad_lines_do_not_fill_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    replay = BinanceReplay(write(tmp_path / "c", trade(1), *["{"] * 500))
    frames(replay)
    assert replay.counts.bad_lines == 500
    assert len(caplog.records) < 30


def test_other_streams_are_counted_and_are_no_errors(tmp_path: Path) -> None:
    mark = '1 {"stream":"btcusdt@markPrice","data":{"e":"markPriceUpdate","s":"BTCUSDT","p":"1","E":1}}'
    replay = BinanceReplay(write(tmp_path / "c", mark, trade(1), mark))
    assert len(frames(replay, "TradeExecuted")) == 1
    assert (replay.counts.other_streams, replay.counts.bad_lines) == ({"markPriceUpdate": 2}, 0)


def test_a_line_longer_than_the_limit_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulator.recorded.capture.MAX_LINE_BYTES", 1_000)
    long = trade(2).replace("BTCUSDT", "B" * 5_000)
    replay = BinanceReplay(write(tmp_path / "c", trade(1), long, trade(3)))
    assert [t["trade_id"][-1] for t in frames(replay, "TradeExecuted")] == ["1", "3"]
    assert (replay.counts.lines, replay.counts.bad_lines) == (3, 1)


def test_a_torn_gzip_file_is_replayed_up_to_where_it_is_torn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole_file = gzip.compress("".join(f"{trade(n)}\n" for n in range(20_000)).encode())
    path = tmp_path / "capture.gz"
    path.write_bytes(whole_file[: len(whole_file) // 2])
    replay = BinanceReplay(path)
    assert 1_000 < len(frames(replay, "TradeExecuted")) < 19_000
    assert replay.counts.bad_lines == 1
    assert "the compressed data is torn, the replay ends here" in caplog.text


def test_plain_and_compressed_files_of_any_name_give_the_same_events(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain", trade(1), trade(2))
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    trades = [
        [{k: v for k, v in t.items() if k != "event_id"} for t in frames(BinanceReplay(p))]
        for p in (plain, packed)
    ]
    assert trades[0] == trades[1]


def test_the_session_follows_from_the_content_and_not_from_the_name(tmp_path: Path) -> None:
    first = BinanceReplay(write(tmp_path / "a", trade(1), trade(2)))
    same = BinanceReplay(write(tmp_path / "b", trade(1), trade(2)))
    other = BinanceReplay(write(tmp_path / "c", trade(1), trade(3)))
    assert list(first.events()) == list(same.events())
    assert first.session_id == same.session_id != other.session_id


def test_a_second_pass_starts_from_the_beginning(tmp_path: Path) -> None:
    replay = BinanceReplay(write(tmp_path / "c", snapshot(1), trade(1), depth(2, 3, 1, [("1", "1")])))
    assert list(replay.events()) == list(replay.events())


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match=r"cannot read the capture .*nothing: No such file.*give the path"):
        BinanceReplay(tmp_path / "nothing")


@pytest.mark.parametrize("content", [b"", b"hello\n" * 2_000, b"\x1f\x8b not gzip", bytes(range(256))])
def test_a_file_that_is_no_capture_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ReplayError, match="is no Binance USD-M capture"):
        BinanceReplay(path)


def test_the_format_is_told_by_the_content(tmp_path: Path) -> None:
    assert isinstance(open_replay(write(tmp_path / "coinbase.txt", trade(1))), BinanceReplay)


@pytest.mark.parametrize("content", [b"", b"hello\n" * 2_000, b"\x28\xb5\x2f\xfd no zstd", b'{"type":"x"}\n'])
def test_a_file_of_no_known_format_names_those_that_are(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ReplayError, match=r"known are: Tickhouse recording, Binance .* capture, Coinbase capture"):
        open_replay(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 200), st.binary(max_size=6)), max_size=6), st.data())
def test_damaged_bytes_never_stop_the_replay_nor_give_an_invalid_frame(
    tmp_path: Path, damages: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    lines = [trade(n) for n in range(3)] + [snapshot(1), quote("1", "1", "2", "1"), depth(2, 3, 1, [("1", "1")])]
    middle = bytearray(data.draw(st.sampled_from(lines)).encode())
    for position, patch in damages:
        middle[position : position + len(patch)] = patch
    path = tmp_path / "c"
    path.write_bytes("\n".join(lines).encode() + b"\n" + bytes(middle) + b"\n" + "\n".join(lines).encode())
    assert len(frames(BinanceReplay(path), "TradeExecuted")) >= 6
