"""JSON → rows: an object a line, or one list of objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphfusion.data.tables.text_file import line_of, read_text
from graphfusion.errors import TableError


def read_json_lines(path: Path) -> list[Mapping[str, Any]]:
    """The rows of a file with a JSON object on each line, or with one list of objects; blank lines are passed over.

    Raises:
        TableError: a line is no JSON object, or names a key twice; the message names the line.
    """
    text = read_text(path)
    if text.lstrip().startswith("["):
        return _read_list(text, path)
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    return [_object(_load(line, path, number), f"{path}, line {number}") for number, line in lines]


def _read_list(text: str, path: Path) -> list[Mapping[str, Any]]:
    first = line_of(text, text.index("["))
    rows = _load(text.lstrip(), path, first)
    return [_object(row, f"{path}, item {i} of the list") for i, row in enumerate(rows)]


def _load(text: str, path: Path, line: int) -> Any:
    """What a JSON text that begins in `line` says."""
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        raise TableError(
            f"{path}, line {line + error.lineno - 1}, character {error.colno}: no JSON ({error.msg}); expected one object a "
            'line, as {"column": value, …}, or one list of them.'
        ) from error
    except (ValueError, RecursionError) as error:
        raise TableError(f"{path}, line {line}: cannot be read as JSON: {error}; mend or remove the line.") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice!r} appears twice in one object")
    return made


def _object(row: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(row, Mapping):
        raise TableError(
            f'{where}: expected an object, as {{"column": value, …}}, got {type(row).__name__} {str(row)[:40]!r}.'
        )
    return row
