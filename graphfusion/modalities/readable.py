"""The cells that a modality can learn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from graphfusion.errors import CellError

T = TypeVar("T")
FIT_ROWS = 256
"""Rows that a mean and a deviation are learned from at most, where reading one takes long."""


def readable(
    rows: Sequence[Mapping[str, Any]], column: str, read: Callable[[Mapping[str, Any]], T], limit: int | None = None
) -> list[T]:
    """What `read` makes of the first `limit` rows that have a value in `column`.

    A cell that cannot be read is passed over here: the policy for bad cells names it when the rows are tokenized.
    """
    found: list[T] = []
    for row in rows:
        if limit is not None and len(found) == limit:
            break
        if row.get(column) is None:
            continue
        try:
            found.append(read(row))
        except CellError:
            continue
    return found
