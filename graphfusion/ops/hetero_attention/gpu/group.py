"""Relations that one launch evaluates, side by side by node type."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from triton.language import constexpr

from graphfusion.ops.hetero_attention.plan import Row

Static = Any
"""Numbers that a kernel is compiled for: a `constexpr`, since Triton 3.6 hands no plain tuple on to a helper."""


@dataclass(frozen=True)
class Group:
    """Relations that one launch evaluates, side by side by the type that they enter (or leave), the types `own`, in order;
    `others` are those at the other end of each relation. `spans`: of each type the first of its relations and the one after its
    last.
    """

    rows: Sequence[Row]
    own: Sequence[int]
    others: Sequence[int]
    spans: Sequence[tuple[int, int]]

    @classmethod
    def of(cls, rows: Sequence[Row], end: str) -> Group:
        """By `end`, "target" or "source"; those of a type in slot order."""
        other, slot = ("source", "enters") if end == "target" else ("target", "leaves")
        rows = sorted(rows, key=lambda row: (getattr(row, end), getattr(row, slot)))
        ends = [getattr(row, end) for row in rows]
        own = sorted(set(ends))
        first = [ends.index(t) for t in own]
        return cls(
            rows, own, [getattr(row, other) for row in rows], list(zip(first, [*first[1:], len(rows)], strict=True))
        )

    def types(self, begun: Collection[int] = ()) -> tuple[Static, ...]:
        """What kernels know of the types when they are compiled: their span, and whether outputs are added to what is there."""
        return tuple(constexpr((*span, t in begun)) for t, span in zip(self.own, self.spans, strict=True))

    def blocks(self, tensors: Sequence[Tensor], nodes: int) -> int:
        """Programs for the nodes of all types, at most `nodes` each."""
        return sum(-(-len(tensors[t]) // nodes) for t in self.own)


def each(tensors: Sequence[Tensor], numbers: Sequence[int]) -> tuple[Tensor, ...]:
    """The tensors of these numbers."""
    return tuple(tensors[k] for k in numbers)
