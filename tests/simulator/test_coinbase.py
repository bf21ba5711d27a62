"""simulator.recorded.coinbase: small captures made by hand, broken in known ways."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.events import parse_frame
from simulator.recorded.binance import BinanceReplay
from simulator.recorded.capture import OtherFormatError
from simulator.recorded.coinbase import CoinbaseReplay
from simulator.replay import open_replay

CONNECT = "wss://ws-feed.pro.coinbase.com <-> 1618677816.8434298"
SUBSCRIBE = (
    "wss://ws-feed.pro.coinbase.com <- 1618677817.02: "
    '{"type":"subscribe","product_ids":["A-USD","B-USD"],"channels":["level2"]}'
)


def received(**fields: Any) -> str:
    return f"1618677817.1295161: {json.dumps(fields)}"


def time(ms: int) -> str:
    return f"2021-04-17T16:43:{37 + ms // 1000}.{ms % 1000:03d}001Z"


def match(
    trade_id: int, price: str = "10.5", size: str = "0.25", ms: int = 0, side: str = "sell", **fields: Any
) -> str:
    return received(
        **{
            "type": "match",
            "trade_id": trade_id,
            "maker_order_id": "maker",
            "taker_order_id": "taker",
            "side": side,
            "size": size,
            "price": price,
            "product_id": "A-USD",
            "sequence": 1_000 + 7 * trade_id,
            "time": time(ms),
            **fields,
        }
    )


def snapshot(product: str = "A-USD") -> str:
    return received(
        type="snapshot",
        product_id=product,
        asks=[["10.60", "2.50"], ["10.70", "3"]],
        bids=[["10.50", "1.00"], ["10.4", "4"]],
    )


def update(side: str, price: str, size: str, ms: int = 0, product: str = "A-USD") -> str:
    return received(type="l2update", product_id=product, changes=[[side, price, size]], time=time(ms))


def heartbeat(last_trade_id: int) -> str:
    return received(
        type="heartbeat", last_trade_id=last_trade_id, product_id="A-USD", sequence=1, time="2021-04-17T16:43:38Z"
    )


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def frames(replay: CoinbaseReplay, kind: str = "") -> list[dict[str, Any]]:
    """The ``data`` of every frame, or of those of one kind, numbers as Decimal; each one is validated."""
    found = []
    for sequence, (_, frame) in enumerate(replay.events(), 1):
        event = parse_frame(frame)
        assert event.data.sequence == sequence
        if kind in ("", event.event_type):
            found.append(json.loads(frame, parse_float=Decimal, parse_int=Decimal)["data"])
    return found


def test_numbers_are_written_exactly_as_the_venue_wrote_them(tmp_path: Path) -> None:
    path = write(tmp_path / "c", snapshot(), match(7, "0.00001305", "985.00000001"))
    book, quote, trade, _ = (frame for _, frame in CoinbaseReplay(path).events())
    assert b'"price":0.00001305,"quantity":985.00000001,' in trade
    assert b'"bids":[{"price":10.50,"quantity":1.00,"order_count":0},{"price":10.4,' in book
    assert b'"best_bid":10.50,"best_bid_size":1.00,"best_ask":10.60,"best_ask_size":2.50,"spread":0.10}' in quote


def test_the_side_of_a_match_is_the_makers(tmp_path: Path) -> None:
    path = write(tmp_path / "c", match(1, side="sell"), match(2, side="buy"))
    bought, sold = frames(CoinbaseReplay(path), "TradeExecuted")
    assert (bought["is_aggressive_buy"], bought["buy_order_id"], bought["sell_order_id"]) == (
        True,
        "taker",
        "maker",
    )
    assert (sold["is_aggressive_buy"], sold["buy_order_id"], sold["sell_order_id"]) == (False, "maker", "taker")


def test_a_snapshot_is_printed_with_the_next_event_time(tmp_path: Path) -> None:
    path = write(tmp_path / "c", snapshot(), snapshot("B-USD"), update("buy", "10.51", "1", ms=5))
    events = frames(CoinbaseReplay(path))
    assert [(e["symbol"], "bids" in e, e["timestamp"][17:]) for e in events] == [
        ("A-USD", True, "37.005001Z"),
        ("A-USD", False, "37.005001Z"),
        ("B-USD", True, "37.005001Z"),
        ("B-USD", False, "37.005001Z"),
        ("A-USD", False, "37.005001Z"),
    ]
    assert [e["best_bid"] for e in events if "best_bid" in e] == [
        Decimal("10.50"),
        Decimal("10.50"),
        Decimal("10.51"),
    ]


def test_a_quote_comes_only_when_the_top_changes_and_a_side_may_be_empty(tmp_path: Path) -> None:
    path = write(
        tmp_path / "c",
        snapshot(),
        update("buy", "9", "1"),
        update("sell", "10.60", "0.00"),
        update("sell", "10.70", "0", ms=1),
        update("sell", "10.70", "0", ms=2),
    )
    quotes = frames(CoinbaseReplay(path), "QuoteUpdate")
    assert [q["best_ask"] for q in quotes] == [Decimal("10.60"), Decimal("10.70"), None]
    assert (quotes[-1]["best_ask_size"], quotes[-1]["spread"]) == (0, None)


def test_books_come_at_most_each_100_ms_of_event_time(tmp_path: Path) -> None:
    updates = [update("buy", "10.00", str(n), ms=10 * n) for n in range(1, 51)]
    books = frames(CoinbaseReplay(write(tmp_path / "c", snapshot(), *updates)), "OrderBookSnapshot")
    assert [b["timestamp"][20:23] for b in books] == ["010", "110", "210", "310", "410"]


def test_updates_before_a_snapshot_wait_for_it(tmp_path: Path) -> None:
    replay = CoinbaseReplay(write(tmp_path / "c", update("buy", "1", "1"), match(1)))
    assert [e for e in frames(replay) if "symbol" in e and "trade_id" not in e and "trade_count" not in e] == []
    assert replay.counts.gaps == 0


def test_the_trade_before_the_capture_begins_its_chain_and_is_not_of_it(tmp_path: Path) -> None:
    replay = CoinbaseReplay(write(tmp_path / "c", match(4, type="last_match"), match(6)))
    assert [t["trade_id"] for t in frames(replay, "TradeExecuted")] == ["COINBASE-A-USD-6"]
    assert (replay.counts.gaps, replay.counts.missing) == (1, 1)


@pytest.mark.parametrize(
    ("last", "printed", "missing"), [(3, [2, 3, 4], 0), (2, [2, 4], 1), (4, [2, 4, 5], 1), (9, [2, 9, 10], 6)]
)
def test_what_was_missed_between_two_connections_is_told_by_the_last_match(
    tmp_path: Path, last: int, printed: list[int], missing: int
) -> None:
    path = write(
        tmp_path / "c",
        CONNECT,
        snapshot(),
        match(2),
        update("buy", "10.52", "1"),
        CONNECT,
        update("buy", "10.53", "1", ms=500),
        snapshot(),
        match(last, type="last_match"),
        match(max(4, last + 1)) if last != 4 else match(5),
        update("buy", "10.54", "1", ms=900),
    )
    replay = CoinbaseReplay(path)
    events = frames(replay)
    assert [int(e["trade_id"].rpartition("-")[2]) for e in events if "trade_id" in e] == printed
    assert (replay.counts.missing, replay.counts.repeated) == (missing, 0)
    bids = [e["best_bid"] for e in events if "best_bid" in e]
    assert Decimal("10.53") not in bids, "the book of the old connection is gone"


def test_a_trade_that_comes_again_is_left_out(tmp_path: Path) -> None:
    replay = CoinbaseReplay(write(tmp_path / "c", match(1), match(2), match(1), match(2), match(3)))
    assert [t["trade_id"][-1] for t in frames(replay, "TradeExecuted")] == ["1", "2", "3"]
    assert (replay.counts.repeated, replay.counts.gaps) == (2, 0)


def test_a_heartbeat_may_overtake_a_trade_but_the_next_one_proves_it_missing(tmp_path: Path) -> None:
    lines = [match(1), heartbeat(2), match(2), heartbeat(2), heartbeat(3)]
    replay = CoinbaseReplay(write(tmp_path / "a", *lines))
    assert len(frames(replay, "TradeExecuted")) == 2
    assert replay.counts.gaps == 0
    replay = CoinbaseReplay(write(tmp_path / "b", *lines, heartbeat(3), match(4)))
    assert len(frames(replay, "TradeExecuted")) == 3
    assert (replay.counts.gaps, replay.counts.missing) == (1, 1)


def test_a_crossed_book_is_a_lost_one(tmp_path: Path) -> None:
    path = write(
        tmp_path / "c",
        snapshot(),
        update("buy", "10.60", "1", ms=100),
        update("buy", "10.55", "1", ms=200),
        snapshot(),
        update("buy", "10.56", "1", ms=300),
    )
    replay = CoinbaseReplay(path)
    bids = [q["best_bid"] for q in frames(replay, "QuoteUpdate")]
    assert bids == [Decimal("10.50"), Decimal("10.50"), Decimal("10.56")]
    assert (replay.counts.gaps, replay.counts.book_resyncs) == (1, 1)


BAD = [
    ('1618677817.1: {"type":"l2update","product_id":"A-USD","cha', "malformed"),
    ("hello", "neither `<time>: {…}` received"),
    ("1618677817.1: [1, 2]", "neither"),
    ('1618677817.1: {"product_id":"A-USD"}', "missing required field `type`"),
    (match(2, price="-5"), "'-5' is not a decimal number"),
    (match(2, size="1e3"), "'1e3' is not a decimal number"),
    (match(2, side="up"), "Invalid enum value"),
    (match(2, time="yesterday"), "Invalid RFC3339"),
    (match(2, time="2021-04-17T16:43:37.089723"), "timezone"),
    (match(2, time="1950-04-17T16:43:37Z"), "before 1970"),
    (match(2, product_id="A" * 40), "length <= 32"),
    (update("buy", "0", "1"), "a level with the price 0"),
    (update("buy", "10.1", "x"), "'x' is not a decimal number"),
    (received(type="snapshot", product_id="A-USD", bids=[["1", "NaN"]], asks=[]), "'NaN' is not"),
    ("1618677817.1: {" + '"type":{' * 100_000, "recursion"),
]


@pytest.mark.parametrize(("line", "reason"), BAD)
def test_a_bad_line_is_named_counted_and_passed_over_and_its_book_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, line: str, reason: str
) -> None:
    path = write(
        tmp_path / "c",
        snapshot(),
        match(1),
        line,
        update("buy", "10.55", "1", ms=500),
        match(2, ms=600),
        snapshot(),
        update("buy", "10.58", "1", ms=700),
    )
    replay = CoinbaseReplay(path)
    events = frames(replay)
    assert [t["trade_id"][-1] for t in events if "trade_id" in t] == ["1", "2"]
    assert (replay.counts.lines, replay.counts.bad_lines, replay.counts.book_resyncs) == (7, 1, 1)
    assert f"{path}:3: line passed over" in caplog.text
    assert reason in caplog.text
    assert Decimal("10.55") not in [e.get("best_bid") for e in events]
    assert events[-1]["best_bid"] == Decimal("10.58")


def test_a_bad_line_costs_only_the_book_of_the_product_that_it_names(tmp_path: Path) -> None:
    torn = '1618677817.1: {"type":"l2update","product_id":"B-USD","cha'
    for bad, left in ((torn, {"A-USD"}), (torn.replace("B-USD", "?"), set()), ("x", set())):
        path = write(
            tmp_path / "c",
            snapshot(),
            snapshot("B-USD"),
            update("buy", "10.51", "1"),
            bad,
            update("buy", "10.52", "1", ms=900),
            update("buy", "10.52", "1", ms=901, product="B-USD"),
        )
        late = [e["symbol"] for e in frames(CoinbaseReplay(path)) if e["timestamp"][20:] >= "9"]
        assert set(late) == left


def test_many_bad_lines_do_not_fill_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    replay = CoinbaseReplay(write(tmp_path / "c", snapshot(), *["x"] * 500, *(match(2 * n) for n in range(300))))
    frames(replay)
    assert (replay.counts.bad_lines, replay.counts.gaps) == (500, 299)
    assert len(caplog.records) < 60


def test_the_symbols_are_those_of_the_subscription_and_those_seen(tmp_path: Path) -> None:
    replay = CoinbaseReplay(write(tmp_path / "c", CONNECT, SUBSCRIBE, snapshot("C-USD"), match(1)))
    assert replay.symbols == ["A-USD", "B-USD", "C-USD"]


def test_too_many_products_are_refused_line_by_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulator.recorded.coinbase.MAX_PRODUCTS", 2)
    replay = CoinbaseReplay(write(tmp_path / "c", *(match(1, product_id=f"{n}-USD") for n in range(4))))
    assert len(frames(replay, "TradeExecuted")) == 2
    assert (replay.counts.bad_lines, len(replay.symbols)) == (2, 2)


def test_the_format_is_told_by_the_content(tmp_path: Path) -> None:
    path = write(tmp_path / "capture.gz", CONNECT, SUBSCRIBE, match(1))
    assert isinstance(open_replay(path), CoinbaseReplay)
    with pytest.raises(OtherFormatError, match="is no Binance USD-M capture"):
        BinanceReplay(path)
    with pytest.raises(OtherFormatError, match="is no Coinbase capture"):
        CoinbaseReplay(write(tmp_path / "empty", CONNECT, SUBSCRIBE))


def test_the_same_file_gives_the_same_session_and_frames(tmp_path: Path) -> None:
    first = CoinbaseReplay(write(tmp_path / "a", snapshot(), match(1), update("buy", "10.55", "1")))
    same = CoinbaseReplay(write(tmp_path / "b", snapshot(), match(1), update("buy", "10.55", "1")))
    assert first.session_id == same.session_id
    assert list(first.events()) == list(same.events()) == list(first.events())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 200), st.binary(max_size=6)), max_size=6), st.data())
def test_damaged_bytes_never_stop_the_replay_nor_give_an_invalid_frame(
    tmp_path: Path, damages: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    lines = [snapshot(), match(1), heartbeat(1), update("buy", "10.55", "1"), match(2), CONNECT, SUBSCRIBE]
    middle = bytearray(data.draw(st.sampled_from(lines)).encode())
    for position, patch in damages:
        middle[position : position + len(patch)] = patch
    path = tmp_path / "c"
    path.write_bytes("\n".join(lines).encode() + b"\n" + bytes(middle) + b"\n" + "\n".join(lines).encode())
    assert len(frames(CoinbaseReplay(path), "TradeExecuted")) >= 2
