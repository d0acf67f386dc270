"""Precomputed features → one token a vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphfusion.data.media import as_array
from graphfusion.errors import CellError
from graphfusion.modalities.readable import readable
from graphfusion.modalities.tokens import NodeType, Tokens, sequence


@dataclass(frozen=True)
class FeaturesModality:
    """Values `(n, width)`; position: index; span: seconds where the cell gives them, else one unit a vector."""

    column: str
    width: int = 0
    max_tokens: int = 512

    @property
    def node_type(self) -> NodeType:
        """Layout of the tokens."""
        return NodeType("features", (self.width,), "float32", 1, "seconds")

    def fit(self, rows: Sequence[Mapping[str, Any]], root: Path) -> FeaturesModality:
        """Learn the width from the first row that has features."""
        if self.width:
            return self
        widths = readable(rows, self.column, lambda row: _vectors(row[self.column]).shape[1], limit=1)
        return replace(self, width=max(widths, default=0) or 1)

    def tokens(self, row: Mapping[str, Any], root: Path) -> Tokens:
        """Tokens of one cell: a vector, a sequence of vectors, or a mapping with `values` and attributes."""
        cell = row[self.column]
        values = _vectors(cell)[: self.max_tokens]
        if len(values) and values.shape[1] != self.width:
            raise CellError(f"expected features of width {self.width}, got {values.shape[1]}.")
        if not np.isfinite(values).all():
            raise CellError("features must be finite, got NaN or infinity.")
        count = len(values)
        index = np.arange(count, dtype=np.float64)
        parts = cell if isinstance(cell, Mapping) else {}
        span = self._part(parts, "seconds", np.stack([index, index + 1], 1)).astype(np.float64)
        attributes = {name: self._part(parts, name, None) for name in ("speaker", "entity") if name in parts}
        return Tokens(values.reshape(count, self.width), sequence(count), span, attributes)

    def augment(self, tokens: Tokens, strength: float, rng: np.random.Generator) -> Tokens:
        """Unchanged."""
        return tokens

    def _part(self, cell: Mapping[str, Any], name: str, default: NDArray[Any] | None) -> NDArray[Any]:
        if name not in cell:
            assert default is not None
            return default
        part = np.asarray(cell[name])[: self.max_tokens]
        count = min(len(_vectors(cell)), self.max_tokens)
        if len(part) != count:
            raise CellError(f"{name!r}: expected {count} entries, one for each vector, got {len(part)}.")
        if name == "seconds" and part.shape != (count, 2):
            raise CellError(f"'seconds': expected (start, end) for each vector, shape ({count}, 2), got {part.shape}.")
        return part


def _vectors(cell: Any) -> NDArray[np.float32]:
    """(n, width) of a cell."""
    array = as_array(cell["values"] if isinstance(cell, Mapping) else cell, "features")
    if array.ndim == 1:
        array = array.reshape(1 if array.size else 0, -1)
    if array.ndim != 2:
        raise CellError(f"features: expected (width,) or (n, width), got {array.shape}.")
    return array.astype(np.float32)
