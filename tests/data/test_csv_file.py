"""CSV as people write it: the right table, or an error that names line and fix."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from graphfusion.data import read_table
from graphfusion.errors import TableError


def read(path: Path, data: str | bytes, **options: Any) -> dict[str, list[Any]]:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return {name: list(cells) for name, cells in read_table(path, **options).columns.items()}


FRAME = pd.DataFrame({"näme": ["a, b; c|d\te", 'say "hi"\nthere', "Größe"], "n": [1, 2, 3], "x": [1.5, -2.25, 1e6]})


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_any_delimiter_and_encoding(delimiter: str, encoding: str, ending: str, tmp_path: Path) -> None:
    FRAME.to_csv(tmp_path / "new", sep=delimiter, encoding=encoding, index=False)
    data = (tmp_path / "new").read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error" if encoding != "cp1252" else "ignore")
        assert read(tmp_path / f"t{ending}", data) == {name: FRAME[name].tolist() for name in FRAME}


def test_lines_of_another_encoding_are_said(tmp_path: Path) -> None:
    data = 'a,b\n"é\né",1\n'.encode() + "ü,2\nö,3\n".encode("cp1252")
    with pytest.warns(UserWarning, match=r"t.csv: 2 lines are not UTF-8 .*the first is line 4: 'ü,2'"):
        assert read(tmp_path / "t.csv", data) == {"a": ["é\né", "ü", "ö"], "b": [1, 2, 3]}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("n;m\n1,5;2\n-1.234,5;3\n;4\n", {"n": [1.5, -1234.5, None], "m": [2, 3, 4]}),
        ("n;m\n1,5;x\n2,5;y\nmany;z\n", {"n": ["1.5", "2.5", "many"], "m": ["x", "y", "z"]}),
        ("n;m\n1,5;x\n1.5;y\n2,5;z\n", {"n": [1.5, 1.5, 2.5], "m": ["x", "y", "z"]}),
        ("n;m\n1,2,3;x\n4,5,6;y\n", {"n": ["1,2,3", "4,5,6"], "m": ["x", "y"]}),
        ('n,m\n"1,5",x\n"2,5",y\n', {"n": ["1,5", "2,5"], "m": ["x", "y"]}),
        ("n;m\nabout 1,5;x\n2,5;y\n", {"n": ["about 1,5", "2,5"], "m": ["x", "y"]}),
    ],
)
def test_decimal_commas(data: str, expected: dict[str, list[Any]], tmp_path: Path) -> None:
    assert read(tmp_path / "t.csv", data) == expected


def test_columns_told_to_be_text_keep_their_commas(tmp_path: Path) -> None:
    assert read(tmp_path / "t.csv", "n ;m\n1,5;007\n", as_text=["n", "m"]) == {"n": ["1,5"], "m": ["007"]}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("sep=;\r\na;b\r\n1;2\r\n", {"a": [1], "b": [2]}),
        ("a , b\n1, 2\n", {"a": [1], "b": [2]}),
        ("a,b\r1,2\r3,4", {"a": [1, 3], "b": [2, 4]}),
        ("a,b\n1,2\n\n\n3,4\n\n", {"a": [1, 3], "b": [2, 4]}),
        ('"a;b",c\n"1;2",3\n', {"a;b": ["1;2"], "c": [3]}),
        ("text\none; two\nthree\n", {"text": ["one; two", "three"]}),
        ("a,b,\n1,2,\n", {"a": [1], "b": [2], "": [None]}),
        ('a,b\n5" pipe,1\n', {"a": ['5" pipe'], "b": [1]}),
        ("a\n", {"a": []}),
        (f"a,b\n{'x' * 2_000_000},1\n", {"a": ["x" * 2_000_000], "b": [1]}),
    ],
    ids=lambda x: repr(x)[:30],
)
def test_odd_but_right(data: str, expected: dict[str, list[Any]], tmp_path: Path) -> None:
    assert read(tmp_path / "t.csv", data) == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a,b\n1,2\n\n1,2,3\n", r"t.csv, line 4: expected 2 cells as in the header, got 3: '1,2,3'; .*quotes"),
        ('a,b\n1,"x\r\ny"\n1\n', r"line 4: expected 2 cells as in the header, got 1"),
        ("sep=;\na;b\n1;2;3\n", r"line 3: expected 2"),
        ("text\nhello, world\n", r"line 2: expected 1 cells as in the header, got 2"),
        ("a,b, a\n1,2,3\n", r"line 1: column 'a' appears more than once, as columns 1, 3; rename"),
        ('a,b\n1,2\n3,"x\n4,y\n', r"line 3: the quotes of this row do not match .*close them"),
        ('a,b\n1,"he "said" so"\n', r"line 2: the quotes .*double those"),
        ("a;b,c\n1;2,3\n", r"line 1: cannot tell which of ',' and ';'"),
        ("", r"line 1: no names of columns"),
        (" \n\n", r"line 1: no names of columns"),
        ("a,b\n1,\0\n", r"line 2: a NUL character"),
        (b"a,b\n\xe9,1\n2,\0\n", r"line 3: a NUL character"),
        ("a,b\n1,2\n".encode("utf-16-be"), r"line 1: a NUL character.*UTF-16 without"),
        ("a,b\n1,2\n".encode("utf-16")[:-1], r"byte-order mark says utf-16, but .*truncated"),
        (b"a,b\n1,\x81\n", r"line 2: neither UTF-8 nor Windows-1252 \(byte 0x81\)"),
    ],
    ids=lambda x: repr(x)[:30],
)
def test_wrong_files_are_named(data: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=message):
        read(tmp_path / "t.csv", data)


def test_row_numbers_of_pandas_are_left_out_and_said(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="the column without a name counts the rows and is left out"):
        assert read(tmp_path / "t.csv", FRAME[["n"]].to_csv()) == {"n": [1, 2, 3]}
    assert read(tmp_path / "t.csv", ",n\n7,1\n9,2\n") == {"": [7, 9], "n": [1, 2]}
