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
from graphfusion.modalities.tokens import NodeType, Tokens, no_span, sequence

ATTRIBUTES = ("speaker", "entity")
"""What relations may ask of a vector, beside its place."""
MAX_SECONDS = 1e10
"""About three centuries; beyond it microseconds do not fit 64 bits with room to spare."""


@dataclass(frozen=True)
class FeaturesModality:
    """Values `(n, width)`, standardised with the training rows; position: index; span: seconds, and attributes, if the
    rows give them (all or none).
    """

    column: str
    width: int = 0
    max_tokens: int = 512
    standardize: bool = True
    mean: tuple[float, ...] = ()
    """Of each number over the vectors of the training rows."""
    deviation: tuple[float, ...] = ()
    """Likewise; 1 where all training rows agree."""
    timed: bool = False
    """Whether cells give `seconds`; learned from the first row."""
    attributes: tuple[str, ...] = ()
    """Which of `ATTRIBUTES` cells give; learned from the first row."""

    @property
    def node_type(self) -> NodeType:
        """Layout of the tokens."""
        return NodeType("features", (self.width,), "float32", 1, "seconds" if self.timed else "none")

    def fit(self, rows: Sequence[Mapping[str, Any]], root: Path) -> FeaturesModality:
        """Learn timing and attributes from the first row that has features, the width from the first readable one, and
        means and deviations from all of that width.
        """
        given = [row[self.column] for row in rows if row.get(self.column) is not None]
        first = given[0] if given and isinstance(given[0], Mapping) else {}
        fitted = replace(self, timed="seconds" in first, attributes=tuple(n for n in ATTRIBUTES if n in first))
        if not self.width:
            widths = readable(rows, self.column, lambda row: _vectors(row[self.column]).shape[1], limit=1)
            fitted = replace(fitted, width=max(widths, default=0) or 1)
        return fitted._with_scales(rows) if self.standardize else fitted

    def _with_scales(self, rows: Sequence[Mapping[str, Any]]) -> FeaturesModality:
        from sklearn.preprocessing import StandardScaler

        vectors = [v for v in readable(rows, self.column, self._checked) if len(v)]
        if not vectors:
            return self
        scaler = StandardScaler().fit(np.concatenate(vectors))
        return replace(self, mean=tuple(scaler.mean_.tolist()), deviation=tuple(scaler.scale_.tolist()))

    def _checked(self, row: Mapping[str, Any]) -> NDArray[np.float32]:
        """(n, width) of a cell, as it is."""
        values = _vectors(row[self.column])[: self.max_tokens]
        if len(values) and values.shape[1] != self.width:
            raise CellError(f"expected features of width {self.width}, got {values.shape[1]}.")
        if not np.isfinite(values).all():
            raise CellError("features must be finite, got NaN or infinity.")
        return values

    def tokens(self, row: Mapping[str, Any], root: Path) -> Tokens:
        """Tokens of one cell: a vector, a sequence of vectors, or a mapping with `values` and attributes."""
        cell = row[self.column]
        values = self._checked(row)
        if self.mean and len(values):
            values = ((values - np.array(self.mean)) / np.array(self.deviation)).astype(np.float32)
        count = len(values)
        parts = cell if isinstance(cell, Mapping) else {}
        span = self._seconds(parts) if self.timed else no_span(count)
        attributes = {name: self._part(parts, name) for name in self.attributes}
        given = len(_vectors(cell))
        cut = f"{given:,} vectors, of which the first max_tokens={self.max_tokens:,} are read" if given > count else ""
        return Tokens(values.reshape(count, self.width), sequence(count), span, attributes, cut)

    def augment(self, tokens: Tokens, strength: float, rng: np.random.Generator) -> Tokens:
        """Unchanged."""
        return tokens

    def _seconds(self, cell: Mapping[str, Any]) -> NDArray[np.float64]:
        """(n, 2) start and end of each vector."""
        seconds = self._part(cell, "seconds").astype(np.float64)
        if seconds.ndim != 2 or seconds.shape[1] != 2:
            raise CellError(
                f"'seconds': expected (start, end) for each vector, shape ({len(seconds)}, 2), got {seconds.shape}."
            )
        if (
            not np.isfinite(seconds).all()
            or (np.abs(seconds) > MAX_SECONDS).any()
            or (seconds[:, 1] < seconds[:, 0]).any()
        ):
            raise CellError("'seconds': each start and end must be finite, with start ≤ end.")
        return seconds

    def _part(self, cell: Mapping[str, Any], name: str) -> NDArray[Any]:
        if name not in cell:
            raise CellError(f"expected {name!r} beside 'values', as in the first training row.")
        part = np.asarray(cell[name])[: self.max_tokens]
        count = min(len(_vectors(cell)), self.max_tokens)
        if len(part) != count:
            raise CellError(f"{name!r}: expected {count} entries, one for each vector, got {len(part)}.")
        return part


def _vectors(cell: Any) -> NDArray[np.float32]:
    """(n, width) of a cell."""
    array = as_array(cell["values"] if isinstance(cell, Mapping) else cell, "features")
    if array.ndim == 1:
        array = array.reshape(1 if array.size else 0, -1)
    if array.ndim != 2:
        raise CellError(f"features: expected (width,) or (n, width), got {array.shape}.")
    return array.astype(np.float32)
