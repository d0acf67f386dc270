"""Scalars of a row → one token a column."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphfusion.data.tables.cell import as_number
from graphfusion.errors import CellError
from graphfusion.modalities.readable import readable
from graphfusion.modalities.tokens import NodeType, Tokens, no_span

MAX_SCALED = 1e6
"""Deviations from the mean beyond which a number is an error in the data."""
UNSEEN = 0
"""Category id of a value that the training rows did not have."""


@dataclass(frozen=True)
class TabularModality:
    """Values `(n, 2)`: the column's number, and its standardised value or its category id (ids run over all columns
    together, from 1). A missing cell has no token. Position: the column's number.
    """

    columns: Mapping[str, str]
    """Column → `number` or `category`, in order."""
    scales: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Number column → (mean, deviation) of the training rows."""
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Category column → known values, as text."""

    @property
    def node_type(self) -> NodeType:
        """Layout of the tokens."""
        return NodeType("tabular", (2,), "float32", 1, "none")

    @property
    def size(self) -> int:
        """Number of category ids, the one for unseen values included."""
        return 1 + sum(map(len, self.categories.values()))

    def fit(self, rows: Sequence[Mapping[str, Any]], root: Path) -> TabularModality:
        """Learn scales and categories from the training rows."""
        scales, categories = {}, {}
        for column, kind in self.columns.items():
            if kind == "category":
                categories[column] = tuple(
                    sorted({category(row[column]) for row in rows if row.get(column) is not None})
                )
            else:
                numbers = np.array(readable(rows, column, partial(_number_of, column)) or [0.0])
                scales[column] = scale_of(numbers)
        return replace(self, scales=scales, categories=categories)

    def tokens(self, row: Mapping[str, Any], root: Path) -> Tokens:
        """One token for each column whose cell is not missing."""
        offset, found = 1, []
        for number, (column, kind) in enumerate(self.columns.items()):
            cell = row.get(column)
            known = self.categories.get(column, ())
            if cell is not None:
                value = self._category(cell, known, offset) if kind == "category" else self._scaled(cell, column)
                found.append((number, value))
            offset += len(known)
        values = np.array(found, np.float32).reshape(-1, 2)
        return Tokens(values, values[:, :1].astype(np.int64), no_span(len(values)))

    def augment(self, tokens: Tokens, strength: float, rng: np.random.Generator) -> Tokens:
        """Unchanged."""
        return tokens

    def _category(self, cell: Any, known: tuple[str, ...], offset: int) -> int:
        name = category(cell)
        return offset + known.index(name) if name in known else UNSEEN

    def _scaled(self, cell: Any, column: str) -> float:
        mean, deviation = self.scales[column]
        value = (_number(cell) - mean) / deviation
        if abs(value) > MAX_SCALED:
            raise CellError(
                f"{cell} lies {value:.3g} deviations from the training rows' mean {mean:.6g}; at most {MAX_SCALED:.0e}."
            )
        return value


def category(cell: Any) -> str:
    """The name of a category, the same for a value however it was read: `1`, `1.0` and `"1"`; `True` and `"true"`. Lone
    surrogates become `?`, as in a text.
    """
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    text = str(cell).strip().encode("utf-8", "replace").decode()
    return text.lower() if text.lower() in ("true", "false") else text


def scale_of(numbers: NDArray[np.float64]) -> tuple[float, float]:
    """(mean, deviation) to standardise with; a constant has the deviation 1."""
    mean, deviation = float(numbers.mean()), float(numbers.std())
    return mean, deviation if deviation > 1e-9 * abs(mean) else 1.0


def _number_of(column: str, row: Mapping[str, Any]) -> float:
    return _number(row[column])


def _number(cell: Any) -> float:
    try:
        value = as_number(cell)
    except (TypeError, ValueError):
        raise CellError(f"expected a number or an ISO date, got {str(cell)[:40]!r}.") from None
    if not math.isfinite(value):
        raise CellError(f"expected a finite number, got {value}.")
    return value
