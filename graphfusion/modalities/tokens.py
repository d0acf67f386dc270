"""What a modality makes of one cell: tokens that know their place in the input.

Letters: `n` tokens, `P` coordinates of a position, `S` numbers of a span.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphfusion.errors import GraphError, unknown_name

SPAN_UNITS: dict[str, int] = {"none": 0, "characters": 2, "seconds": 2, "pixels": 4}
"""Numbers per span: (start, end) half-open in a text or in time; (left, top, right, bottom) in an image."""


@dataclass(frozen=True)
class NodeType:
    """The layout that all tokens of one node type share, so that an absent modality is known as 0 rows of it.

    `kind`: the modality's name; `shape`: shape of one token's values; `dtype`: numpy name of their type;
    `coordinates`: numbers of a position (1: index, 2: row and column); `span`: a key of `SPAN_UNITS`.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    coordinates: int = 1
    span: str = "none"

    def __post_init__(self) -> None:
        if self.span not in SPAN_UNITS:
            raise GraphError(unknown_name("span unit", self.span, SPAN_UNITS))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "shape": list(self.shape)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> NodeType:
        """Read what `to_dict` wrote."""
        return cls(**{**document, "shape": tuple(document["shape"])})


@dataclass(frozen=True)
class Tokens:
    """One modality of one sample.

    `values` (n, …); `position` (n, P) integers, the place in the sequence or grid; `span` (n, S) float64, the place in
    the raw input (characters, seconds or pixels); `attributes`: further arrays of length n that relations ask for by
    name (`speaker`, `entity`); `cut`: what of the raw input is not in them, in words.

    Raises:
        GraphError: the arrays differ in length, or a value is NaN or infinite.
    """

    values: NDArray[Any]
    position: NDArray[np.int64]
    span: NDArray[np.float64]
    attributes: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    cut: str = ""

    def __post_init__(self) -> None:
        lengths = {"values": len(self.values), "position": len(self.position), "span": len(self.span)}
        lengths |= {name: len(array) for name, array in self.attributes.items()}
        if len(set(lengths.values())) > 1:
            raise GraphError(f"tokens differ in length: {lengths}.")
        if np.issubdtype(self.values.dtype, np.floating) and not np.isfinite(self.values).all():
            bad = int(np.flatnonzero(~np.isfinite(self.values).reshape(len(self.values), -1).all(axis=1))[0])
            raise GraphError(f"token {bad}: values must be finite, got NaN or infinity.")

    def __len__(self) -> int:
        return len(self.values)

    def check(self, node_type: NodeType, name: str) -> None:
        """GraphError unless the arrays have the layout of `node_type`."""
        found = (self.values.shape[1:], self.values.dtype.name, self.position.shape[1:], self.span.shape[1:])
        expected = (node_type.shape, node_type.dtype, (node_type.coordinates,), (SPAN_UNITS[node_type.span],))
        if found != expected:
            raise GraphError(
                f"tokens of {name!r}: expected values (n, *{expected[0]}) {expected[1]}, position (n, {expected[2][0]}), "
                f"span (n, {expected[3][0]}); got (n, *{found[0]}) {found[1]}, (n, *{found[2]}), (n, *{found[3]})."
            )

    @classmethod
    def empty(cls, node_type: NodeType) -> Tokens:
        """No tokens, in the layout of `node_type`."""
        return cls(
            np.empty((0, *node_type.shape), node_type.dtype),
            np.empty((0, node_type.coordinates), np.int64),
            np.empty((0, SPAN_UNITS[node_type.span])),
        )


@dataclass(frozen=True)
class TokenizedSample:
    """One row as tokens: node type → `Tokens` (absent = missing modality), target → raw value or None."""

    id: int
    tokens: Mapping[str, Tokens]
    targets: Mapping[str, Any] = field(default_factory=dict)

    def without(self, node_types: frozenset[str]) -> TokenizedSample:
        """The same row with some modalities missing."""
        kept = {name: tokens for name, tokens in self.tokens.items() if name not in node_types}
        return TokenizedSample(self.id, kept, self.targets)


def sequence(length: int) -> NDArray[np.int64]:
    """Positions (n, 1) of a sequence: 0, 1, 2 …"""
    return np.arange(length, dtype=np.int64)[:, None]


def no_span(length: int) -> NDArray[np.float64]:
    """Spans (n, 0) of tokens that have no place in a raw input."""
    return np.empty((length, 0))
