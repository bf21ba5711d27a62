"""Bookkeeping of sequence numbers."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from dataflows.sequences import MISSING_MAX, Arrival, Sequences


def arrive(sequences: Sequences, *numbers: int, at: float = 0) -> list[Arrival]:
    return [sequences.arrived(number, at) for number in numbers]


def test_a_hole_holds_the_acknowledged_sequence_back_until_it_is_filled() -> None:
    sequences = Sequences()
    assert arrive(sequences, 1, 3) == [Arrival.NEW, Arrival.NEW]
    assert sequences.acknowledged() == 1
    assert arrive(sequences, 2) == [Arrival.NEW]
    assert sequences.acknowledged() == 3


def test_a_hole_is_given_up_when_it_is_old() -> None:
    sequences = Sequences()
    arrive(sequences, 1, 4, at=10)
    assert sequences.give_up(10) == 0
    assert sequences.give_up(11) == 2
    assert sequences.acknowledged() == 4


def test_what_arrives_twice_is_a_duplicate() -> None:
    assert arrive(Sequences(), 1, 2, 1, 2) == [Arrival.NEW, Arrival.NEW, Arrival.DUPLICATE, Arrival.DUPLICATE]


def test_what_was_asked_for_again_is_no_duplicate_but_a_repetition_and_holes_are_filled() -> None:
    sequences = Sequences()
    arrive(sequences, 1, 2, 4)
    assert sequences.resume_at() == 3
    assert arrive(sequences, 3, 4, 5) == [Arrival.NEW, Arrival.REPEATED, Arrival.NEW]
    assert arrive(sequences, 5) == [Arrival.DUPLICATE]


def test_what_the_exchange_no_longer_has_counts_as_lost() -> None:
    sequences = Sequences(acknowledged=10)
    assert sequences.begins_at(11) == 0
    assert sequences.begins_at(15) == 4
    assert arrive(sequences, 15) == [Arrival.NEW]
    assert sequences.acknowledged() == 15


def test_a_huge_jump_takes_bounded_memory_and_is_counted() -> None:
    sequences = Sequences()
    arrive(sequences, 10**12)
    assert sequences.resume_at() == 10**12 - MISSING_MAX
    assert sequences.give_up(1) == 10**12 - 1


def test_a_doubled_frame_is_acknowledged_when_both_are() -> None:
    sequences = Sequences()
    arrive(sequences, 1, 1)
    sequences.sent(1)
    sequences.sent(1)
    sequences.delivered(1)
    assert sequences.acknowledged() == 0
    sequences.delivered(1)
    assert sequences.acknowledged() == 1


@given(st.lists(st.integers(1, 60), max_size=80), st.integers(0, 2**32))
def test_acknowledged_is_the_end_of_the_gapless_delivered_prefix(arrivals: list[int], seed: int) -> None:
    sequences, dice = Sequences(), random.Random(seed)
    waiting: list[int] = []
    delivered: set[int] = set()
    for number in arrivals:
        if sequences.arrived(number, 0) is Arrival.NEW:
            sequences.sent(number)
            waiting.append(number)
        while waiting and dice.random() < 0.6:
            done = waiting.pop(dice.randrange(len(waiting)))
            sequences.delivered(done)
            delivered.add(done)
        prefix = 0
        while prefix + 1 in delivered:
            prefix += 1
        assert sequences.acknowledged() == prefix
