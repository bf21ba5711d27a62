"""Reference files: what a user says of symbols, traders, accounts and exchanges, as CSV.

In: a CSV with a header. Out: its rows, checked. A fault is an error that names file, line and column and says what
to do; nothing is written then, and the tables stay as they are.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

VALID_FROM = "valid_from"
"""Optional column of a type 2 dimension's file: the moment from which the row holds, or empty."""


class ReferenceFileError(ValueError):
    """A reference file is not as it must be; the message says where, and what to do."""


def read_reference(
    path: Path,
    columns: Sequence[str],
    key: str,
    *,
    allowed: Mapping[str, Sequence[str]] | None = None,
    dated: bool = False,
) -> list[dict[str, str]]:
    """Rows of the file: every column a text that is not empty, but ``valid_from``, which may be.

    Args:
        key: column that may hold each value once; with ``dated``, once for each ``valid_from``.
        allowed: column → the only values it may have.
        dated: whether the file may have a column ``valid_from``.

    Raises:
        ReferenceFileError: the file is not there, or not as described.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ReferenceFileError(f"{path}: cannot be read ({error}); put a CSV in UTF-8 there") from error
    reader = csv.DictReader(lines, restkey="")
    if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
        raise ReferenceFileError(
            f"{path}, line 1: no column {', '.join(missing)}; the first line must be {','.join(columns)}"
        )
    rows: list[dict[str, str]] = []
    seen: dict[tuple[str, str], int] = {}
    for row in reader:
        where = f"{path}, line {reader.line_num}"
        if "" in row:
            raise ReferenceFileError(f"{where}: more values than columns; put a value with a comma in quotes")
        values = {name: (row[name] or "").strip() for name in columns}
        for name, value in values.items():
            if not value:
                raise ReferenceFileError(f"{where}, column {name}: is empty; fill it in, or remove the line")
            choices = (allowed or {}).get(name)
            if choices is not None and value not in choices:
                raise ReferenceFileError(
                    f"{where}, column {name}: {value!r} is not one of {', '.join(choices)}; use one of these"
                )
        if dated:
            values[VALID_FROM] = (row.get(VALID_FROM) or "").strip()
            if values[VALID_FROM]:
                parse_moment(values[VALID_FROM], f"{where}, column {VALID_FROM}")
        ident = values[key], values.get(VALID_FROM, "")
        if ident in seen:
            raise ReferenceFileError(
                f"{where}, column {key}: {values[key]} stands twice, on line {seen[ident]} too; remove one of them"
            )
        seen[ident] = reader.line_num
        rows.append(values)
    return rows


def parse_moment(text: str, where: str) -> datetime:
    """A date or time in ISO 8601 as UTC; without an offset it is taken for UTC.

    Raises:
        ReferenceFileError: it is neither.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ReferenceFileError(
            f"{where}: {text!r} is no time; write it as 2026-03-13 or 2026-03-13T14:30:00Z"
        ) from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
