"""JSON files: an object a line, or a list of objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from graphfusion.data import read_table
from graphfusion.errors import TableError

ROWS = [{"a": "ä\u2028b", "n": 1, "v": [1.0, 2.0]}, {"a": None, "n": 2.5, "v": []}, {"n": None, "s": {"array": [0]}}]


def columns(path: Path) -> dict[str, list[Any]]:
    return {name: list(cells) for name, cells in read_table(path).columns.items()}


@pytest.mark.parametrize("ending", [".jsonl", ".ndjson", ".json"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lines_and_lists_agree_with_rows(ending: str, encoding: str, tmp_path: Path) -> None:
    expected = {name: list(cells) for name, cells in read_table(ROWS).columns.items()}
    path = tmp_path / f"t{ending}"
    lines = [json.dumps(row, ensure_ascii=False) for row in ROWS]
    for text in ("\n".join(lines), "\r\n\r\n".join(lines) + "\r\n", "\n " + json.dumps(ROWS, indent=2)):
        path.write_bytes(text.encode(encoding))
        assert columns(path) == expected
    assert read_table(path).root == tmp_path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n\n{"a": }\n', r"t.jsonl, line 3, character 7: no JSON .*expected one object a line"),
        ('{"a": 1}\n[1]\n', r"line 2: expected an object.*got list"),
        ('{"a": 1}\n3\n', r"line 2: expected an object.*got int 3|got int '3'"),
        ('{"a": 1, "a": 2}\n', r"line 1: .*key 'a' appears twice"),
        ('\n[{"a": 1},\n {"a": 2},\n 7]\n', r"item 2 of the list: expected an object"),
        ('\n[{"a": 1},\n {"a" 2}]\n', r"line 3, character 7: no JSON"),
        ('{\n "a": 1\n}\n', r"line 1, character 2: no JSON"),
        ('{"a": ' + "[" * 100_000 + "\n", r"line 1: cannot be read as JSON"),
        ('{"a": ' + "9" * 5000 + "}\n", r"line 1: cannot be read as JSON"),
        ('{"a\\ud800": 1}\n', r"half of a character \(a lone surrogate\) in its name"),
        ('{"a": "\0"}\n', r"line 1: a NUL character"),
    ],
    ids=lambda x: repr(x)[:25],
)
def test_wrong_lines_are_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(text)
    with pytest.raises(TableError, match=message):
        read_table(path)


def test_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    for text in ("", "\n", "[]"):
        path.write_text(text)
        assert len(read_table(path)) == 0
