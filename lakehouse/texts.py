"""Byte strings that lie one after the other in memory: the parts of many messages, without an object for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
SPARE = 8
"""Bytes behind the last string, so that compiled code may read eight at a time."""


class Texts(Sequence[bytes]):
    """Strings; their bytes and ends may be read, not changed."""

    __slots__ = ("ends", "text")

    def __init__(self, text: bytes, ends: Integers) -> None:
        """``text``: the strings and :data:`SPARE` bytes; ``ends``: where each ends, the first begins at 0."""
        self.text = text
        self.ends = ends

    @classmethod
    def of(cls, strings: Iterable[bytes]) -> Texts:
        if isinstance(strings, Texts):
            return strings
        listed = list(strings)
        ends = np.fromiter(accumulate(map(len, listed)), np.int64, len(listed))
        return cls(b"".join((*listed, bytes(SPARE))), ends)

    @classmethod
    def joined(cls, parts: Sequence[Texts]) -> Texts:
        if len(parts) == 1:
            return parts[0]
        sizes = [part.size for part in parts]
        text = b"".join((*(memoryview(part.text)[: part.size] for part in parts), bytes(SPARE)))
        begins = accumulate(sizes, initial=0)
        ends = [part.ends + begin for part, begin in zip(parts, begins, strict=False)]
        return cls(text, np.concatenate([np.empty(0, np.int64), *ends]))

    @property
    def size(self) -> int:
        """Bytes of all strings."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def part(self, begin: int, end: int) -> Texts:
        """Those from the ``begin``-th to before the ``end``-th."""
        begin, end, _ = slice(begin, end).indices(len(self.ends))
        if end - begin == len(self.ends):
            return self
        if end <= begin:
            return Texts.of(())
        first = int(self.ends[begin - 1]) if begin else 0
        return Texts(self.text[first : int(self.ends[end - 1]) + SPARE], self.ends[begin:end] - first)

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[bytes]:
        text = self.text
        return (text[begin:end] for begin, end in pairwise([0, *self.ends.tolist()]))

    @overload
    def __getitem__(self, place: int) -> bytes: ...
    @overload
    def __getitem__(self, place: slice) -> list[bytes]: ...
    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return list(self)[place]
        place = range(len(self.ends))[place]
        return self.text[int(self.ends[place - 1]) if place else 0 : int(self.ends[place])]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


class Keys(Sequence[bytes | None]):
    """The keys of messages; None where one has none."""

    __slots__ = ("missing", "texts")

    def __init__(self, texts: Texts, missing: Integers) -> None:
        """``missing``: 1 where there is no key, and an empty text."""
        self.texts = texts
        self.missing = missing

    @classmethod
    def of(cls, keys: Sequence[bytes | None]) -> Keys:
        if isinstance(keys, Keys):
            return keys
        return cls(Texts.of([key or b"" for key in keys]), np.array([key is None for key in keys], np.int64))

    @classmethod
    def joined(cls, parts: Sequence[Keys]) -> Keys:
        return cls(Texts.joined([part.texts for part in parts]), np.concatenate([part.missing for part in parts]))

    def part(self, begin: int, end: int) -> Keys:
        """Those from the ``begin``-th to before the ``end``-th."""
        return Keys(self.texts.part(begin, end), self.missing[begin:end])

    @overload
    def __getitem__(self, place: int) -> bytes | None: ...
    @overload
    def __getitem__(self, place: slice) -> list[bytes | None]: ...
    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return list(self)[place]
        return None if self.missing[place] else self.texts[place]

    def __len__(self) -> int:
        return len(self.texts)
