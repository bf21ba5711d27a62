"""Strings that lie one after the other are the list of them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.texts import SPARE, Keys, Texts

STRINGS = st.lists(st.binary(max_size=20), max_size=10)


@given(STRINGS, st.integers(0, 12), st.integers(0, 12))
def test_texts_are_a_list_of_strings(strings: list[bytes], begin: int, end: int) -> None:
    texts = Texts.of(strings)
    assert list(texts) == strings
    assert [texts[place] for place in range(-len(strings), len(strings))] == strings * 2
    assert texts[begin:end] == strings[begin:end]
    assert list(texts.part(begin, end)) == strings[begin:end]
    sent = pickle.loads(pickle.dumps(texts.part(begin, end)))  # noqa: S301
    assert list(sent) == strings[begin:end]
    assert len(sent.text) == sum(map(len, strings[begin:end])) + SPARE
    assert list(texts.part(begin, end).part(1, 3)) == strings[begin:end][1:3]


@given(st.lists(STRINGS, min_size=1, max_size=4))
def test_parts_are_joined(parts: list[list[bytes]]) -> None:
    joined = Texts.joined([Texts.of(part) for part in parts])
    assert list(joined) == [text for part in parts for text in part]
    assert len(joined.text) == joined.end + SPARE
    ones = [joined.part(place, place + 1) for place in range(len(joined))]
    assert not ones or list(Texts.joined(ones)) == list(joined)


def test_a_place_beyond_the_end_is_none() -> None:
    with pytest.raises(IndexError):
        Texts.of([b"a"])[1]


def test_a_missing_key_is_none_and_an_empty_one_is_not() -> None:
    keys = Keys(Texts.of([b"a", b"", b""]), np.array([0, 1, 0]))
    assert list(keys) == [b"a", None, b""]
    assert keys[1:] == [None, b""]
    assert list(Keys.joined([keys.part(1, 2), Keys.of([None, b"b"])])) == [None, None, b"b"]
