"""Faults, told from what a reader received and the clean journal alone, and compared with what is counted."""

from __future__ import annotations

import itertools
import json
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from simulator.events import parse_frame
from simulator.faults import KINDS, LATE_FRAMES, Faults, FaultyWire, event_seconds, without_side
from simulator.market import DEFAULT_CONFIG, DataQuality

SEED = 3


def printed(sequence: int) -> bytes:
    """A frame each 10 ms of event time; every third one is a quote, of which some have one side only."""
    start = datetime(2026, 2, 18, 14, 30, tzinfo=UTC)
    stamp = (start + timedelta(milliseconds=10 * sequence)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    kind, fields = "OrderCancelled", '"reason":"Expired"'
    if sequence % 3 == 0:
        bid = "null" if sequence % 30 == 0 else "185.50"
        kind = "QuoteUpdate"
        fields = f'"best_bid":{bid},"best_bid_size":7,"best_ask": 185.52,"best_ask_size": 9,"spread":0.02'
    data = f'{{"event_id":"e-{sequence}","timestamp":"{stamp}","sequence":{sequence},{fields}}}'
    return f'{{"event_type":"{kind}","data":{data}}}'.encode()


def wire(rates: dict[str, float], count: int, cuts: Sequence[int] = (), seed: int = SEED) -> list[bytes]:
    """Frames 1 … count as one client gets them, when they are printed in blocks that end at ``cuts``."""
    client = FaultyWire(Faults(DataQuality(**rates), seed))
    received = []
    for first, after in zip([1, *cuts], [*cuts, count + 1], strict=True):
        received += client.send(first, [printed(n) for n in range(first, after)])
    return received + client.flush()


def recognise(journal: list[bytes], received: list[bytes]) -> list[tuple[int, str]]:
    """(sequence, "", "malformed" or "one_sided") of each frame received."""
    known = {frame: (n, "") for n, frame in enumerate(journal, 1)}
    for n, frame in enumerate(journal, 1):
        half = frame[: len(frame) // 2]
        assert half not in known
        known[half] = (n, "malformed")
    found = []
    for frame in received:
        if frame not in known:
            data = json.loads(frame)["data"]
            original = json.loads(journal[data["sequence"] - 1])["data"]
            differing = {name for name in original if original[name] != data[name]}
            sides = [side for side in ("bid", "ask") if {f"best_{side}", f"best_{side}_size"} <= differing]
            assert len(sides) == 1
            assert differing - {"spread"} == {f"best_{sides[0]}", f"best_{sides[0]}_size"}
            assert (data[f"best_{sides[0]}"], data[f"best_{sides[0]}_size"], data["spread"]) == (None, 0, None)
            known[frame] = (data["sequence"], "one_sided")
        found.append(known[frame])
    return found


def order_of(recognised: list[tuple[int, str]]) -> list[int]:
    """Sequences in the order in which they came first."""
    return list(dict.fromkeys(sequence for sequence, _ in recognised))


def observe(journal: list[bytes], received: list[bytes], late_seconds: float) -> Counter[str]:
    """How often a reader met each kind of fault."""
    recognised = recognise(journal, received)
    assert all(len(set(texts)) == 1 for texts in grouped(recognised).values()), "copies are alike"
    seen: Counter[str] = Counter()
    for before, (sequence, text) in zip([(0, ""), *recognised], recognised, strict=False):
        if before[0] == sequence:
            seen["duplicate"] += 1
        elif text:
            seen[text] += 1
    order = order_of(recognised)
    seen["missing"] = len(journal) - len(order)
    assert len(recognised) == len(order) + seen["duplicate"], "a copy follows at once"
    newest, highest, last, ended = 0.0, 0, 0, False
    for sequence in order:
        at = event_seconds(journal[sequence - 1])
        early = newest < at + late_seconds
        if ended or (sequence < highest and not (early and last == sequence + 1)):
            seen["late"] += 1
            ended |= early  # before its time: the feed is over, and what was held back is let go
        elif sequence < highest:
            seen["out_of_order"] += 1
        newest, highest, last = max(newest, at), max(highest, sequence), sequence
    return +seen


def grouped(recognised: list[tuple[int, str]]) -> dict[int, list[str]]:
    texts: dict[int, list[str]] = {}
    for sequence, text in recognised:
        texts.setdefault(sequence, []).append(text)
    return texts


def counted(rates: dict[str, float], count: int, seed: int = SEED) -> Counter[str]:
    faults = Faults(DataQuality(**rates), seed)
    return Counter(kind for n in range(1, count + 1) for kind in faults.of(n, printed(n)))


def frames(count: int) -> list[bytes]:
    return [printed(n) for n in range(1, count + 1)]


def test_without_rates_nothing_happens():
    assert not Faults(DataQuality(), seed=1).enabled
    assert wire({}, 1_000, [10]) == frames(1_000)


@pytest.mark.parametrize(
    ("rate", "kind"),
    [
        ("missing_data_rate", "missing"),
        ("duplicate_rate", "duplicate"),
        ("out_of_order_rate", "out_of_order"),
        ("late_rate", "late"),
        ("malformed_rate", "malformed"),
    ],
)
def test_each_fault_alone_comes_at_its_rate_and_brings_no_other(rate, kind):
    rates = {rate: 0.1, "late_seconds": 1.0}
    assert Faults(DataQuality(**rates), SEED).enabled
    seen = observe(frames(5_000), wire(rates, 5_000), 1.0)
    assert set(seen) == {kind}
    assert 400 < seen[kind] < 600
    assert seen == counted(rates, 5_000)


def test_quotes_with_two_sides_lose_one_at_the_rate_and_both_sides_alike():
    received = wire({"one_sided_rate": 0.5}, 6_000)
    seen = observe(frames(6_000), received, 1.0)
    assert set(seen) == {"one_sided"}
    assert 800 < seen["one_sided"] < 1_000, "of 1,800 quotes with two sides"
    bids = sum(b'"best_bid":null' in frame for frame in received) - 200
    assert 380 < bids < 520


def test_a_one_sided_quote_keeps_the_contract():
    data = (
        b'"event_id":"e-1","timestamp":"2026-02-18T14:30:00Z","sequence":1,"symbol":"AAPL","best_bid":185.50,'
        b'"best_bid_size":100,"best_ask":185.52,"best_ask_size":200,"spread":0.02'
    )
    quote = b'{"event_type":"QuoteUpdate","data":{' + data + b"}}"
    assert [b"null" in quote, b"null" in without_side(quote, 0)] == [False, True]
    for side, rest in ((0, "ask"), (1, "bid")):
        event = parse_frame(without_side(quote, side)).data
        assert event.spread is None
        assert getattr(event, f"best_{rest}") is not None


def test_a_late_frame_comes_right_after_the_first_frame_of_its_time():
    order = order_of(recognise(frames(3_000), wire({"late_rate": 0.02, "late_seconds": 2.5}, 3_000)))
    late = [(before, n) for before, n in itertools.pairwise(order) if n < before and n < 2_700]
    assert len(late) > 30
    newest = [max(order[: order.index(n)]) for _, n in late]
    assert all(250 <= before - n <= 255 for before, (_, n) in zip(newest, late, strict=True))


def test_a_late_frame_comes_after_so_many_others_when_time_stands_still():
    faults = Faults(DataQuality(late_rate=0.001, late_seconds=60), SEED)
    still = [printed(1).replace(b'"e-1"', b'"e-%d"' % n) for n in range(1, LATE_FRAMES + 2_000)]
    first = next(n for n, frame in enumerate(still, 1) if faults.of(n, frame) == ("late",))
    received = FaultyWire(faults).send(1, still)
    before = received[received.index(still[first - 1]) - 1]
    assert before == still[first + LATE_FRAMES - 1]


@pytest.mark.parametrize("cuts", [[2, 3, 4, 5, 6], [100], list(range(2, 1_000))])
def test_a_client_meets_the_same_faults_however_the_frames_are_grouped(cuts):
    rates = {
        "duplicate_rate": 0.05,
        "missing_data_rate": 0.05,
        "out_of_order_rate": 0.05,
        "malformed_rate": 0.05,
        "late_rate": 0.05,
        "one_sided_rate": 0.05,
    }
    assert wire(rates, 1_000, cuts) == wire(rates, 1_000, [])


RATE = st.sampled_from([0.0, 0.01, 0.1, 0.4, 1.0])


@given(
    rates=st.fixed_dictionaries(
        {
            "duplicate_rate": RATE,
            "missing_data_rate": RATE,
            "out_of_order_rate": RATE,
            "malformed_rate": RATE,
            "late_rate": RATE,
            "one_sided_rate": RATE,
            "late_seconds": st.sampled_from([0.1, 0.5, 2.0]),
        }
    ),
    count=st.integers(1, 250),
    seed=st.integers(0, 2**32),
)
def test_what_is_counted_is_what_a_reader_finds_out(rates, count, seed):
    received = wire(rates, count, seed=seed)
    faults = Faults(DataQuality(**rates), seed)
    order = order_of(recognise(frames(count), received))
    late = {n for n in order if "late" in faults.of(n, printed(n))}
    in_time = [n for n in order if n not in late]
    # At the end of the feed a late frame may come as if in order, or as if swapped; then nobody can tell.
    assume(in_time)
    over = event_seconds(printed(max(in_time)))
    let_go = [n for n in order if n in late and event_seconds(printed(n)) + rates["late_seconds"] > over]
    assume(not let_go or (let_go[0] < max(in_time) and let_go[0] + 1 != order[order.index(let_go[0]) - 1]))
    assert observe(frames(count), received, rates["late_seconds"]) == counted(rates, count, seed)


ALL_FAULTS = """[data_quality]
duplicate_rate = 0.01
out_of_order_rate = 0.01
missing_data_rate = 0.01
malformed_rate = 0.01
late_rate = 0.01
late_seconds = 1.5
one_sided_rate = 0.05
"""


@pytest.mark.parametrize("batch", [False, True])
def test_all_faults_of_a_session_are_reconciled_to_the_unit(exchange_process, tmp_path, batch):
    text = DEFAULT_CONFIG.read_text(encoding="utf-8")
    head, _, rest = text.partition("[data_quality]")
    config = tmp_path / "faulty.toml"
    config.write_text(head + ALL_FAULTS + rest[rest.index("\n[[symbols]]") :], encoding="utf-8")
    exchange = exchange_process("--speed", "0", "--duration", "12", TICKHOUSE_EXCHANGE_CONFIG=str(config))

    received: list[bytes] = []

    def read() -> None:
        protocols = ["tickhouse.batch.v1"] if batch else None
        url = f"{exchange.url}?from_sequence=0"
        with connect(url, subprotocols=protocols, compression=None) as client:
            json.loads(client.recv())
            try:
                while True:
                    received.extend(client.recv(decode=False).split(b"\n"))
            except ConnectionClosed:
                return

    reader = threading.Thread(target=read)
    reader.start()
    end = time.monotonic() + 30
    while (metrics := scrape(exchange.metrics_port))["tickhouse_exchange_feed_finished"] != 1 or (
        len(received) < wire_frames(metrics)
    ):
        assert time.monotonic() < end, (len(received), metrics)
        time.sleep(0.05)
    assert exchange.terminate() == 0
    reader.join(10)

    assert len(received) == wire_frames(metrics), "and nothing after that"
    segments = sorted((tmp_path / "data").glob("exchange/journal/*/*.jsonl"))
    journal = b"".join(path.read_bytes() for path in segments).splitlines()
    assert len(journal) == metrics["tickhouse_exchange_sequence"] > 3_000
    seen = observe(journal, received, late_seconds=1.5)
    told = Counter({kind: int(metrics[f'tickhouse_exchange_faults_total{{kind="{kind}"}}']) for kind in KINDS})
    assert min(told.values()) > 10
    assert seen == told


def scrape(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    return {name: float(text) for name, _, text in (line.rpartition(" ") for line in lines if line[0] != "#")}


def wire_frames(metrics: dict[str, float]) -> float:
    """How many frames a client gets of the whole session."""
    faults = {kind: metrics[f'tickhouse_exchange_faults_total{{kind="{kind}"}}'] for kind in KINDS}
    return metrics["tickhouse_exchange_sequence"] + faults["duplicate"] - faults["missing"]
