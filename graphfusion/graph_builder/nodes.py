"""The packed nodes that relation policies look at, and the index arithmetic that they share.

Letters: `B` samples, `N` nodes of a type, `E` edges, `P` coordinates, `S` numbers of a span.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphfusion.errors import GraphError
from graphfusion.modalities import NodeType, Tokens

Index = NDArray[np.int64]
Edges = tuple[Index, Index]
"""(source node, target node) of each edge, counted over the whole batch."""


@dataclass(frozen=True)
class Nodes:
    """All nodes of one type in a batch: sample `b` owns the nodes `ptr[b]` to `ptr[b + 1]`."""

    name: str
    layout: NodeType
    ptr: Index
    values: NDArray[Any]
    position: Index
    span: NDArray[np.float64]
    attributes: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def sample(self) -> Index:
        """(N,) sample of each node."""
        return np.repeat(np.arange(len(self.ptr) - 1), np.diff(self.ptr))

    def attribute(self, name: str, relation: str) -> NDArray[Any]:
        """(N,) attribute that a relation needs; GraphError if the tokens do not carry it."""
        if name not in self.attributes:
            raise GraphError(
                f"relation {relation!r} needs the attribute {name!r} of {self.name!r} nodes; they have none."
            )
        return self.attributes[name]

    def spans(self, unit: str, relation: str) -> NDArray[np.float64]:
        """(N, S) spans; GraphError if they are measured in another unit."""
        if self.layout.span != unit:
            raise GraphError(
                f"relation {relation!r} needs spans of {self.name!r} nodes in {unit}, got {self.layout.span}; "
                "use it between node types that have them."
            )
        return self.span


def pack(name: str, layout: NodeType, rows: Sequence[Tokens]) -> Nodes:
    """Lay the tokens of many samples one after another."""
    for tokens in rows:
        tokens.check(layout, name)
    empty = Tokens.empty(layout)
    parts = [empty, *rows]
    lengths = [len(tokens) for tokens in rows]
    carriers = [tokens for tokens in rows if len(tokens)]
    shared = set.intersection(*(set(t.attributes) for t in carriers)) if carriers else set()
    return Nodes(
        name=name,
        layout=layout,
        ptr=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        values=np.concatenate([t.values for t in parts]),
        position=np.concatenate([t.position for t in parts]),
        span=np.concatenate([t.span for t in parts]),
        attributes={key: np.concatenate([t.attributes[key] for t in carriers]) for key in sorted(shared)},
    )


def expand(first: Index, count: Index) -> Edges:
    """For each i the pairs (first[i], i), (first[i] + 1, i) … `count[i]` of them."""
    target = np.repeat(np.arange(len(count)), count)
    within = np.arange(len(target)) - np.repeat(np.cumsum(count) - count, count)
    return first[target] + within, target


def match(keys: Index, queries: Index) -> Edges:
    """All pairs (i, j) with keys[i] == queries[j]."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    first = np.searchsorted(ordered, queries, "left")
    found, target = expand(first, np.searchsorted(ordered, queries, "right") - first)
    return order[found], target


def by_target(edges: Edges, sources: int) -> Edges:
    """Edges without duplicates, sorted by target, then source."""
    source, target = edges
    keys = target * max(sources, 1) + source
    if not (np.diff(keys) > 0).all():
        keys = np.unique(keys)
    return keys % max(sources, 1), keys // max(sources, 1)


def microseconds(seconds: NDArray[np.float64]) -> Index:
    """Times as whole microseconds, so that comparisons at the edge of a window are exact."""
    return np.rint(seconds * 1e6).astype(np.int64)
