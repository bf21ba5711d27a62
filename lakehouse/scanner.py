"""Frames as exchanges print them → Arrow arrays.

In: frames that lie one after the other, and the fields that their data has. Out: an array for each field of the
frames that are plain (:mod:`lakehouse.scan` says which are), and which of them these are. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lakehouse.buffers import decimal_words, packed
from lakehouse.scan import (
    ABSENT,
    BOOL,
    DECIMAL,
    INT,
    LIST,
    LONG,
    MASK,
    NAME,
    NULL,
    NULLABLE,
    SCALE,
    TEXT,
    TIME,
    WORDS,
    Cells,
    Flags,
    Words,
    choose,
    copy,
    scan,
    words_of,
)
from lakehouse.texts import SPARE, Integers, Texts

_NAME_MAX = 8 * WORDS - len('"":')
_FIELDS_MAX = 62
"""Fewer than a machine word has bits."""


class Scanner:
    """Scans the frames of a table.

    Args:
        events: event types that frames may have.
        fields: of the data; a list holds objects, whose own fields are neither lists nor null, or values.
        optional: fields, also of items, that are 0 where they are missing.
    """

    def __init__(self, events: Sequence[str], fields: Sequence[pa.Field], optional: frozenset[str]) -> None:
        self._types = [field.type for field in fields]
        self._layout = _layout(fields, optional)
        prefixes = [f'{{"event_type":{b}"{name}",{b}"data":{b}{{'.encode() for b in ("", " ") for name in events]
        self._prefixes = np.frombuffer(b"".join(prefixes), np.uint8)
        self._prefix_ends = np.cumsum([len(prefix) for prefix in prefixes])
        items = next((_members(kind) for kind in self._types if _is_list(kind)), [])
        if any(_is_list(kind) and _members(kind) != items for kind in self._types):
            raise ValueError("the lists of a table hold different items")
        self._items = _layout(items, optional)
        self._events = len(events)

    def scan(self, frames: Texts) -> tuple[list[pa.Array], Integers, Flags]:
        """The columns of the plain frames; the number of the event type of each; which of all frames they are."""
        count = len(frames)
        raw = np.frombuffer(frames.text, np.uint8)
        words = words_of(frames.text)
        cells = np.empty((count, len(self._types), 2), np.int64)
        listed = np.empty(
            ((frames.end - frames.begin + SPARE) // 2 if len(self._items) else 0, len(self._items), 2), np.int64
        )
        event, plain = np.empty(count, np.int64), np.empty(count, np.bool_)
        scan(
            *(raw, words, frames.begin, frames.ends, self._prefixes, self._prefix_ends, self._layout, self._items),
            *(cells, listed, event, plain),
        )
        if not plain.all():
            cells, event = cells[plain], event[plain]
        columns = [
            _column(words, cells[:, place], kind, listed, nullable=bool(self._layout[place, NULLABLE]))
            for place, kind in enumerate(self._types)
        ]
        return columns, event % self._events, plain


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_list(kind))


def _members(kind: pa.LargeListType) -> list[pa.Field]:
    """Fields of a list's items; the one of plain values has no name."""
    item = kind.value_type
    return list(item) if pa.types.is_struct(item) else [pa.field("", item, nullable=False)]


def _layout(fields: Sequence[pa.Field], optional: frozenset[str]) -> Integers:
    """(fields, numbers)"""
    if len(fields) > _FIELDS_MAX:
        raise ValueError(f"more than {_FIELDS_MAX} fields")
    layout = np.empty((len(fields), MASK + WORDS), np.int64)
    for row, field in zip(layout, fields, strict=True):
        if len(field.name) > _NAME_MAX:
            raise ValueError(f"{field.name} is longer than {_NAME_MAX}")
        nullable = field.nullable and not _is_list(field.type)
        name = f'"{field.name}":'.encode() if field.name else b""
        otherwise = 0 if field.name in optional else NULL if nullable else ABSENT
        row[:NAME] = _kind(field.type), nullable, otherwise, len(name)
        row[NAME:MASK] = np.frombuffer(name.ljust(8 * WORDS, b"\0"), np.int64)
        row[MASK:] = np.frombuffer((b"\xff" * len(name)).ljust(8 * WORDS, b"\0"), np.int64)
    return layout


def _kind(kind: pa.DataType) -> int:
    if pa.types.is_decimal(kind):
        if kind.scale != SCALE or kind.precision < 2 * SCALE + 2:
            raise ValueError(f"{kind} does not hold ten digits and eight decimals")
        return DECIMAL
    if pa.types.is_timestamp(kind):
        return TIME
    if _is_list(kind):
        return LIST
    return {pa.large_string(): TEXT, pa.int64(): LONG, pa.int32(): INT, pa.bool_(): BOOL}[kind]


def _column(words: Words, cells: Cells, kind: pa.DataType, listed: Cells, *, nullable: bool) -> pa.Array:
    """``cells``: (rows, 2)."""
    values, sizes, count = cells[:, 0], cells[:, 1], len(cells)
    validity = None
    if nullable:
        present = sizes != NULL
        if not present.all():
            validity = _buffer(packed(present))
    if pa.types.is_large_string(kind):
        text = np.empty(int(np.maximum(sizes, 0).sum()) + SPARE, np.uint8)
        offsets = np.empty(count + 1, np.int64)
        copy(words, values, sizes, words_of(text), offsets)
        return pa.Array.from_buffers(kind, count, [validity, _buffer(offsets), _buffer(text[:-SPARE])])
    if _is_list(kind):
        chosen = np.empty((int(sizes.sum()), *listed.shape[1:]), np.int64)
        offsets = np.empty(count + 1, np.int64)
        choose(listed, values, sizes, chosen, offsets)
        members = _members(kind)
        columns = [
            _column(words, chosen[:, i], member.type, listed, nullable=False) for i, member in enumerate(members)
        ]
        items = pa.StructArray.from_arrays(columns, fields=members) if members[0].name else columns[0]
        return pa.LargeListArray.from_arrays(pa.array(offsets), items, type=kind)
    if pa.types.is_decimal(kind):
        data = _buffer(decimal_words(values))
    elif pa.types.is_boolean(kind):
        data = _buffer(packed(values.astype(np.bool_)))
    else:
        data = _buffer(values.astype(np.int32 if pa.types.is_int32(kind) else np.int64))
    return pa.Array.from_buffers(kind, count, [validity, data])


def _buffer(array: NDArray[Any]) -> pa.Buffer:
    return pa.py_buffer(np.ascontiguousarray(array))
