"""Reference files: what is wrong, where, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from lakehouse.dimensions.reference import ReferenceFileError, read_reference


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("key,size\na,small\n", "line 1: no column name; the first line must be key,name,size"),
        ("key,name,size\na,A,\n", "line 2, column size: is empty; fill it in"),
        ("key,name,size\na,A\n", "line 2, column size: is empty; fill it in"),
        ("key,name,size\na,A,tiny\n", "line 2, column size: 'tiny' is not one of small, large; use one of these"),
        ("key,name,size\na,A,small,x\n", "line 2: more values than columns; put a value with a comma in quotes"),
        (
            "key,name,size\na,A,small\nb,B,small\na,C,large\n",
            "line 4, column key: a stands twice, on line 2 too; remove one of them",
        ),
        (
            "key,name,size,valid_from\na,A,small,yesterday\n",
            "line 2, column valid_from: 'yesterday' is no time; write it as 2026-03-13 or 2026-03-13T14:30:00Z",
        ),
        (
            "key,name,size,valid_from\na,A,small,2026-03-13\na,B,small,2026-03-13\n",
            "line 3, column key: a stands twice, on line 2 too",
        ),
    ],
)
def test_a_fault_is_named_with_its_place_and_its_remedy(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "things.csv"
    path.write_text(text)
    with pytest.raises(ReferenceFileError) as caught:
        read_reference(path, ["key", "name", "size"], "key", allowed={"size": ["small", "large"]}, dated=True)
    assert str(caught.value).startswith(f"{path}, {said}")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReferenceFileError, match=r"things\.csv: cannot be read .*; put a CSV in UTF-8 there"):
        read_reference(tmp_path / "things.csv", ["key"], "key")


def test_a_good_file_is_read_whatever_an_editor_made_of_it(tmp_path: Path) -> None:
    path = tmp_path / "things.csv"
    path.write_bytes(
        b'\xef\xbb\xbfkey,name,comment\r\na, "Alpha, Inc." ,x\r\nb,"Beta, Inc.",\r\n'.replace(b' "', b'"')
    )
    assert read_reference(path, ["key", "name"], "key") == [
        {"key": "a", "name": "Alpha, Inc."},
        {"key": "b", "name": "Beta, Inc."},
    ]
