from __future__ import annotations

import itertools
from collections import Counter

import pytest

from simulator.faults import Faults, FaultyWire
from simulator.market import DataQuality


def wire(rates: dict[str, float], count: int, cuts: list[int]) -> list[bytes]:
    """Frames 1 … count as one client gets them, when they are printed in blocks that end at ``cuts``."""
    client = FaultyWire(Faults(DataQuality(**rates), seed=3))
    received = []
    for first, after in zip([1, *cuts], [*cuts, count + 1], strict=True):
        received += client.send(first, [b"frame-%08d" % n for n in range(first, after)])
    return received + client.flush()


def numbers(received: list[bytes]) -> list[int]:
    return [int(frame.removeprefix(b"frame-")) for frame in received]


def test_without_rates_nothing_happens():
    assert not Faults(DataQuality(), seed=1).enabled
    assert numbers(wire({}, 1_000, [10])) == list(range(1, 1_001))


def test_missing_frames_are_missing_at_their_rate():
    received = numbers(wire({"missing_data_rate": 0.1}, 5_000, []))
    assert 4_350 < len(received) < 4_650
    assert received == sorted(set(received))


def test_duplicates_follow_at_once():
    received = numbers(wire({"duplicate_rate": 0.1}, 5_000, []))
    assert sorted(set(received)) == list(range(1, 5_001))
    assert 5_350 < len(received) < 5_650
    assert received == sorted(received)
    assert set(Counter(received).values()) == {1, 2}


def test_disorder_swaps_neighbours_and_loses_nothing():
    received = numbers(wire({"out_of_order_rate": 0.05}, 5_001, []))
    assert sorted(received) == list(range(1, 5_002))
    swapped = [a for a, b in itertools.pairwise(received) if b < a]
    assert 170 < len(swapped) < 340
    assert all(a - b <= 3 for a, b in itertools.pairwise(received) if b < a)


def test_malformed_frames_are_cut_in_half():
    received = wire({"malformed_rate": 0.1}, 5_000, [])
    assert len(received) == 5_000
    assert 400 < sum(len(frame) == 7 for frame in received) < 600
    assert {len(frame) for frame in received} == {7, 14}


@pytest.mark.parametrize("cuts", [[2, 3, 4, 5, 6], [100], list(range(2, 1_000))])
def test_a_client_meets_the_same_faults_however_the_frames_are_grouped(cuts):
    rates = {
        "duplicate_rate": 0.05,
        "missing_data_rate": 0.05,
        "out_of_order_rate": 0.05,
        "malformed_rate": 0.05,
    }
    assert wire(rates, 1_000, cuts) == wire(rates, 1_000, [])


def test_the_kinds_counted_are_the_faults_received():
    rates = {"duplicate_rate": 0.1, "missing_data_rate": 0.1, "malformed_rate": 0.1}
    faults = Faults(DataQuality(**rates), seed=3)
    counted = Counter(kind for sequence in range(1, 2_001) for kind in faults.of(sequence))
    received = wire(rates, 2_000, [])
    assert len(received) == 2_000 - counted["missing"] + counted["duplicate"]
    assert (
        len({frame for frame in received if len(frame) == 14}) == 2_000 - counted["missing"] - counted["malformed"]
    )
