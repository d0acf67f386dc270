"""A schema from a look at the cells of a table."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import Image as PILImage

from graphfusion.data.media.audio_file import is_sound
from graphfusion.data.media.containers import VIDEO_ENDINGS, container_of
from graphfusion.data.media.image import read_image
from graphfusion.data.media.kind import AUDIO_ENDINGS, IMAGE_ENDINGS
from graphfusion.data.tables.cell import as_number
from graphfusion.data.tables.table import Table
from graphfusion.errors import CellError, SchemaError, unknown_name
from graphfusion.schema import (
    Audio,
    Class,
    Features,
    Image,
    Input,
    MultiLabel,
    Number,
    Schema,
    Tabular,
    Target,
    Text,
    Video,
    column_of,
)

LOOK = 1000
"""Cells of a column that are looked at."""
MANY = 20
"""Different cells that are no accident."""
MAX_CATEGORIES = 50
MAX_INTEGER_CLASSES = 100


def infer_schema(
    table: Table, targets: Sequence[str], columns: Mapping[str, Input | Target | None] | None = None
) -> Schema:
    """What each column seems to be; `columns` says otherwise for some, None leaves one out. So is a column without any
    value.

    Texts with at most 50 different values in which values recur are categories; a target of whole numbers with at most
    100 different values is a class. A warning tells of columns that look like names of rows.

    Raises:
        SchemaError: a target or a column of `columns` is not in the table, or a column is of no known kind.
    """
    given = dict(columns or {})
    for name in (*targets, *(column_of(name, spec) for name, spec in given.items())):
        if name not in table.columns:
            raise SchemaError(f"the table lacks a column: {unknown_name('column', name, table.columns)}")
    for name, spec in given.items():
        if name in table.columns and column_of(name, spec) != name:
            raise SchemaError(
                f"columns: {name!r} reads {column_of(name, spec)!r}, but the table has a column {name!r}; choose another name."
            )
    found = Schema(targets={name: _target(name, table.column(name)) for name in targets if name not in given})
    inputs: dict[str, Input] = {}
    for name, cells in table.columns.items():
        if name in targets or name in given:
            continue
        values = [c for c in cells if c is not None][:LOOK]
        if values:
            inputs[name] = _input(name, values, table.root)
            if _names_rows(inputs[name], cells):
                warnings.warn(
                    f"every value of column {name!r} differs, as numbers and codes of rows do; if it is such, leave it out: pass "
                    f"columns={{{name!r}: None}}.",
                    stacklevel=4,
                )
    return Schema(inputs, found.targets).override({name: spec for name, spec in given.items() if spec is not None})


def _target(name: str, cells: Sequence[Any]) -> Target:
    values = [c for c in cells if c is not None]
    if not values:
        raise SchemaError(f"target {name!r}: no row has a value.")
    if all(isinstance(v, list | tuple | set | frozenset | np.ndarray) for v in values):
        return MultiLabel()
    if all(isinstance(v, float) for v in values):
        _warn_of_whole_numbers(name, values)
        return Number()
    if all(isinstance(v, int) and not isinstance(v, bool) for v in values):
        return Class() if len(set(values)) <= MAX_INTEGER_CLASSES else Number()
    if all(isinstance(v, str | bool) for v in values):
        return Class()
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return Number()
    kinds = sorted({type(v).__name__ for v in values})
    raise SchemaError(
        f"target {name!r}: cannot tell a class from a number, cells are of {', '.join(kinds)}; pass columns=."
    )


def _names_rows(spec: Input, cells: Sequence[Any]) -> bool:
    """Whether the cells look like names of rows: all different, and whole numbers that count or codes of one length."""
    values = [c for c in cells if c is not None]
    if len(values) < MANY or not isinstance(spec, Tabular | Text):
        return False
    if isinstance(spec, Tabular) and all(isinstance(v, int) for v in values):
        return bool(len(set(values)) == len(values) > (max(values) - min(values)) / 2)
    codes = isinstance(spec, Text) and all(isinstance(v, str) and v.isascii() and " " not in v for v in values)
    return (
        codes
        and len({len(v) for v in values}) == 1
        and all(any(map(str.isdigit, v)) for v in values)
        and len(set(values)) == len(values)
    )


def _warn_of_whole_numbers(name: str, values: Sequence[float]) -> None:
    """Classes 0, 1, 2 become floats in a DataFrame as soon as one of them is missing."""
    different = len(set(values))
    if 2 * different <= len(values) and different <= MAX_CATEGORIES and all(v.is_integer() for v in values):
        warnings.warn(
            f"target {name!r} is taken for a number, its values are {different} whole ones; pass columns={{{name!r}: "
            "Class()} if they are classes, Number() if not.",
            stacklevel=5,
        )


def _input(name: str, values: Sequence[Any], root: Path) -> Input:
    first = values[0]
    if isinstance(first, Mapping):
        return _of_mapping(name, first, values, root)
    if isinstance(first, str | os.PathLike):
        return _of_text(values, root)
    if isinstance(first, bytes | bytearray):
        return _of_bytes(bytes(first), values, root)
    if isinstance(first, PILImage.Image):
        return _image(values, root)
    if isinstance(first, bool | int | float):
        return Tabular(values="category" if isinstance(first, bool) else "number")
    if hasattr(first, "shape") or isinstance(first, list | tuple):
        shape = np.shape(first)
        is_image = len(shape) == 3 or (len(shape) == 2 and str(getattr(first, "dtype", "")).endswith("uint8"))
        return _image(values, root) if is_image else Features()
    raise SchemaError(
        f"column {name!r}: cannot tell what {type(first).__name__} cells are; pass columns= with its kind."
    )


def _is_number(text: str) -> bool:
    try:
        as_number(text)
    except ValueError:
        return False
    return True


def _of_bytes(first: bytes, values: Sequence[Any], root: Path) -> Input:
    if is_sound(first[:12]):
        return Audio()
    return Video() if container_of(first) else _image(values, root)


def _of_mapping(name: str, first: Mapping[str, Any], values: Sequence[Any], root: Path) -> Input:
    if "array" in first:
        return Audio()
    if "values" in first:
        return Features()
    for key in ("bytes", "path"):
        if first.get(key) is not None:
            return _input(name, [first[key]], root)
    raise SchemaError(
        f"column {name!r}: cannot tell what mappings with {', '.join(first)} are; pass columns= with its kind."
    )


def _of_text(values: Sequence[Any], root: Path) -> Input:
    values = [os.fspath(v) for v in values if isinstance(v, str | os.PathLike)]
    endings = [PurePath(v).suffix.lower() for v in values]
    for known, make in ((IMAGE_ENDINGS, lambda: _image(values, root)), (AUDIO_ENDINGS, Audio), (VIDEO_ENDINGS, Video)):
        if sum(e in known for e in endings) > len(endings) / 2:  # a stray "n/a" is for the policy for bad cells
            return make()
    if sum(map(_is_number, values)) > len(values) / 2:  # numbers or dates, some of them mistyped
        return Tabular(values="number")
    different = len(set(values))
    if different <= MAX_CATEGORIES and different <= len(values) / 4 and all(len(str(v).split()) <= 3 for v in values):
        return Tabular(values="category")
    return Text()


def _image(values: Sequence[Any], root: Path) -> Image:
    """Size and channels from a few images; what cannot be read is left to the policy for bad cells."""
    sides, grey = [], True
    for value in values[:16]:
        try:
            pixels = read_image(value, root)
        except CellError:
            continue
        sides.append(max(pixels.shape[1:]))
        grey &= bool((pixels == pixels[:1]).all())
    side = float(np.median(sides)) if sides else 64.0
    size, patch = (16, 4) if side <= 20 else (32, 8) if side <= 40 else (64, 8)
    return Image(size=size, patch=patch, channels=1 if grey and sides else 3)
