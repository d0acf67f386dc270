"""A `Dataset` of the library of that name → columns of cells, without importing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass, replace
from typing import Any

from graphfusion.data.tables.cell import plain_cell
from graphfusion.errors import TableError


def is_hub_dataset(source: Any) -> bool:
    """Whether an object is a Dataset, streamed or not, or several by split."""
    return hasattr(source, "column_names") and (hasattr(source, "features") or isinstance(source, Mapping))


def read_hub_dataset(source: Any) -> dict[str, Sequence[Any]]:
    """Column → cells. Numbers of a `ClassLabel` become its names, -1 a missing cell. Images and sounds that the dataset would
    decode are taken as the bytes or path that it holds, and decoded by `read_image` and `read_audio` instead.

    Raises:
        TableError: it is a dict of splits or streamed, or a class number has no name.
    """
    if isinstance(source, Mapping):
        raise TableError(
            f"this dataset has several splits ({', '.join(map(str, source))}); pass one, as dataset['train']."
        )
    if not hasattr(source, "__getitem__") or not hasattr(source, "__len__"):
        raise TableError("this dataset is streamed; load it with streaming=False, or pass list(dataset.take(n)).")
    for name in source.column_names:
        feature = _feature(source, name)
        if getattr(feature, "decode", False) is True and is_dataclass(feature) and hasattr(source, "cast_column"):
            source = source.cast_column(name, replace(feature, decode=False))  # type: ignore[type-var]
    return {str(name): _cells(source, name) for name in source.column_names}


def _feature(source: Any, name: str) -> Any:
    return (source.features or {}).get(name)


def _cells(source: Any, name: str) -> list[Any]:
    feature = _feature(source, name)
    return [_named(plain_cell(cell), feature, name, row) for row, cell in enumerate(source[name])]


def _named(cell: Any, feature: Any, column: str, row: int) -> Any:
    """A cell with the names of classes in place of their numbers, also within a list."""
    inner = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)
    if isinstance(cell, list | tuple) and inner is not None:
        return [_named(c, inner, column, row) for c in cell]
    names = getattr(feature, "names", None)
    if names is None or cell is None or cell == -1:
        return None if names is not None else cell
    if isinstance(cell, bool) or not isinstance(cell, int) or not 0 <= cell < len(names):
        raise TableError(f"row {row}, column {column!r}: class number {cell!r} has no name; there are {len(names)}.")
    return names[cell]
