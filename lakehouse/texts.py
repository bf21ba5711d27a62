"""Byte strings that lie one after the other in memory: the parts of many messages, without an object for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", str, str | None)

Integers = NDArray[np.int64]
SPARE = 8
"""Bytes behind the last string, so that compiled code may read eight at a time."""


class Texts(Sequence[bytes]):
    """Strings; their bytes and ends may be read, not changed."""

    __slots__ = ("begin", "ends", "text")

    def __init__(self, text: bytes, ends: Integers, begin: int = 0) -> None:
        """``text``: holds the strings, and :data:`SPARE` bytes after them; ``begin``: where the first one begins;
        ``ends``: where each ends."""
        self.text = text
        self.ends = ends
        self.begin = begin

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
        begins = accumulate((part.end - part.begin for part in parts), initial=0)
        ends = [part.ends + (begin - part.begin) for part, begin in zip(parts, begins, strict=False)]
        text = b"".join((*(memoryview(part.text)[part.begin : part.end] for part in parts), bytes(SPARE)))
        return cls(text, np.concatenate([np.empty(0, np.int64), *ends]))

    @property
    def end(self) -> int:
        """Where the last one ends."""
        return int(self.ends[-1]) if len(self.ends) else self.begin

    def part(self, begin: int, end: int) -> Texts:
        """Those from the ``begin``-th to before the ``end``-th; their bytes are shared, not copied."""
        first = int(self.ends[begin - 1]) if 0 < begin <= len(self.ends) else self.begin
        return Texts(self.text, self.ends[begin:end], first)

    def __reduce__(self) -> Any:
        """To another process go these strings alone."""
        return Texts, (self.text[self.begin : self.end + SPARE], self.ends - self.begin)

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[bytes]:
        text = self.text
        return (text[begin:end] for begin, end in pairwise([self.begin, *self.ends.tolist()]))

    @overload
    def __getitem__(self, place: int) -> bytes: ...
    @overload
    def __getitem__(self, place: slice) -> list[bytes]: ...
    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return list(self)[place]
        place = range(len(self.ends))[place]
        return self.text[int(self.ends[place - 1]) if place else self.begin : int(self.ends[place])]


class Codes(dict[T, int]):
    """A number for each string, from 0, as they come."""

    def __missing__(self, string: T) -> int:
        self[string] = len(self)
        return self[string]


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
