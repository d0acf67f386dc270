"""Calls of the Triton kernels: a launch a node type and pass.

Letters: `N` nodes of a type, `Q` relations that enter it, `H` heads, `C` width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphfusion.ops.hetero_attention.gpu import walk
from graphfusion.ops.hetero_attention.gpu.config import power, tile
from graphfusion.ops.hetero_attention.plan import Row, outputs_of, read_layout, width_of
from graphfusion.ops.hetero_attention.reference import check_samples

TARGETS = 32
"""Targets that a program of `gatv2` adds up the gradient of att over."""
Relation = tuple[Any, ...]
"""An entry of `RELATIONS`, see `walk`."""


def forward(
    value: Sequence[Tensor],
    key: Sequence[Tensor],
    query: Sequence[Tensor],
    att: Tensor | None,
    edge: Sequence[Tensor],
    index: Sequence[Tensor],
    layout: Sequence[int],
    mode: str,
    slope: float,
    dropout: float,
    seed: Tensor,
    top_k: int,
    across: bool,
) -> list[Tensor]:
    """Outputs of each node type; see `reference.attention`."""
    call = _Call(value, key, query, att, edge, index, layout, mode, slope, dropout, seed, across)
    for row in call.rows:  # no rule ties two samples; the look waits for the device
        if call.samples > 1 and row.kind in ("csr", "bitmask"):
            source, target = row.edge_index(call.index)
            check_samples(row, source, target, call.index)
    return [call.outputs(t) for t in range(len(call.query))]


def backward(
    grad: Sequence[Tensor],
    value: Sequence[Tensor],
    key: Sequence[Tensor],
    query: Sequence[Tensor],
    att: Tensor | None,
    edge: Sequence[Tensor],
    index: Sequence[Tensor],
    layout: Sequence[int],
    mode: str,
    slope: float,
    dropout: float,
    seed: Tensor,
    top_k: int,
    across: bool,
) -> list[Tensor]:
    """Gradients of value, key, query, att (if there is one) and edge, one after another."""
    call = _Call(value, key, query, att, edge, index, layout, mode, slope, dropout, seed, across)
    return call.gradients([g.contiguous() for g in grad])


class _Call:
    """Tensors of one call, contiguous, and what all launches share."""

    def __init__(
        self,
        value: Sequence[Tensor],
        key: Sequence[Tensor],
        query: Sequence[Tensor],
        att: Tensor | None,
        edge: Sequence[Tensor],
        index: Sequence[Tensor],
        layout: Sequence[int],
        mode: str,
        slope: float,
        dropout: float,
        seed: Tensor,
        across: bool,
    ) -> None:
        self.value, self.key, self.query = ([t.contiguous() for t in part] for part in (value, key, query))
        self.att = None if att is None else att.float().contiguous()
        self.edge = [e.float().contiguous() for e in edge]
        self.given = (value, key, query, att, edge)
        self.index, self.mode, self.merged = [t.contiguous() for t in index], mode, bool(layout[2])
        self.rows = read_layout(layout, self.index)
        self.across = across
        self.heads, self.width = query[0].shape[2], width_of(value)
        self.device = query[0].device
        self.shared = any(v.shape[1] and v.shape[2] == 1 for v in value) and self.heads > 1
        self.samples = samples = len(index[0]) - 1
        self.numbers = (
            seed.to(self.device, non_blocking=True), math.ceil(dropout * 2**32), 1 / (1 - dropout), float(slope),
            self.width**-0.5, samples, samples.bit_length(),
        )  # fmt: skip
        padded, columns = power(self.heads), power(self.width)
        self.sizes: dict[str, Any] = {
            "DROP": dropout > 0, "MERGED": self.merged, "H": self.heads, "HP": padded, "C": self.width, "CP": columns,
            "V": 1 if self.shared else self.heads, "MODE": mode, **tile(padded * columns),
        }  # fmt: skip
        self.leaving, self.entering = (
            [sum(getattr(row, end) == t for row in self.rows) for t in range(layout[0])] for end in ("source", "target")
        )

    def outputs(self, t: int) -> Tensor:
        """Outputs of the node type `t`."""
        rows = self._into(t)
        shape = (len(self.query[t]), outputs_of(self.entering[t], self.merged), self.heads, self.width)
        out = torch.empty(shape, device=self.device)
        if out.numel():
            walk.forward[(self._programs(shape[0]),)](
                *self._inputs(t, rows), out, *self.numbers, shape[0],
                RELATIONS=self._entries(rows), ACROSS=self.across, **self.sizes,
            )  # fmt: skip
        return out

    def gradients(self, grad: Sequence[Tensor]) -> list[Tensor]:
        """See `backward`."""
        value, key, query, att, edge = self.given
        self.grad = grad
        self.dedge = [torch.zeros_like(e) for e in self.edge]
        self.datt = None if self.att is None else torch.zeros_like(self.att)
        stats = [self._of_targets(t) for t in range(len(self.query))]
        self.log_sum, self.mean = [s[0] for s in stats], [s[1] for s in stats]
        dvalue, dkey = zip(*(self._of_sources(t) for t in range(len(self.query))), strict=True)
        found = [*dvalue, *(k for k in dkey if k is not None), *(s[2] for s in stats)]
        found += ([] if self.datt is None else [self.datt]) + self.dedge
        like = [*value, *key, *query, *([] if att is None else [att]), *edge]
        return [f.to(t.dtype).view(t.shape) for f, t in zip(found, like, strict=True)]

    def _of_targets(self, t: int) -> tuple[Tensor, Tensor, Tensor]:
        """Logarithm of the softmax's sum and mean of d (N, Q, H), and the gradient of the query; those of edge features and
        att go where they are kept.
        """
        rows, query = self._into(t), self.query[t]
        stats = torch.zeros(2, *query.shape[:2], self.heads, device=self.device)
        dquery = torch.zeros_like(query)
        if query.shape[0] and rows:
            targets = min(TARGETS, power(self._programs(len(query)))) if self.mode == "gatv2" else 1
            programs = self._programs(len(query), targets)
            shape = (programs, len(rows), self.heads, self.width) if self.mode == "gatv2" else (1,)
            datt = torch.zeros(shape, device=self.device)
            dedge = tuple(self.dedge[self.rows.index(row)] if self.dedge else dquery for row in rows)
            walk.backward_targets[(programs,)](
                *self._inputs(t, rows), self.grad[t], *self.numbers, len(query), dquery, dedge, datt, *stats,
                RELATIONS=self._entries(rows), ACROSS=self.across, T=targets, **self.sizes,
            )  # fmt: skip
            if self.datt is not None:
                self.datt[[self.rows.index(row) for row in rows]] = datt.sum(0)
        return stats[0], stats[1], dquery

    def _of_sources(self, t: int) -> tuple[Tensor, Tensor | None]:
        """Gradients of value and key of a node type."""
        rows = [row for row in self.rows if row.source == t]
        value = self.value[t]
        dvalue = torch.zeros(value.shape, device=self.device)
        dkey = torch.zeros_like(self.key[t]) if self.key else None
        if len(value) and rows:
            lists = [_by_source(row, len(value), self.index[t]) for row in rows]
            ends = [row.target for row in rows]
            walk.backward_sources[(self._programs(len(value)),)](
                value, self.key[t] if self.key else value, self._each(self.query, ends),
                value if self.att is None else self.att, self._edges(rows), *(tuple(part) for part in zip(*lists, strict=True)),
                self._each(self.index, ends), self.index[t], self._each(self.grad, ends), self._each(self.log_sum, ends),
                self._each(self.mean, ends), *self.numbers, len(value), dvalue, value if dkey is None else dkey,
                RELATIONS=self._entries(rows), **self.sizes,
            )  # fmt: skip
        return dvalue, dkey

    def _programs(self, nodes: int, times: int = 1) -> int:
        return -(-nodes // (times * int(self.sizes["M"])))

    def _into(self, t: int) -> list[Row]:
        """Relations that enter a type, in slot order."""
        return sorted((row for row in self.rows if row.target == t), key=lambda row: row.enters)

    def _inputs(self, t: int, rows: Sequence[Row]) -> tuple[Any, ...]:
        """Arguments that the passes over targets share."""
        ends = [row.source for row in rows]
        value = self._each(self.value, ends)
        lists = [(*row.tensors, self.index[t], self.index[t])[:2] for row in rows]
        return (
            value, self._each(self.key, ends) if self.key else value, self.query[t],
            value[0] if self.att is None else self.att, self._edges(rows), *(tuple(part) for part in zip(*lists, strict=True)),
            self._each(self.index, ends), self.index[t],
        )  # fmt: skip

    @staticmethod
    def _each(tensors: Sequence[Tensor], types: Sequence[int]) -> tuple[Tensor, ...]:
        return tuple(tensors[t] for t in types)

    def _edges(self, rows: Sequence[Row]) -> tuple[Tensor, ...]:
        """Edge features of each relation; any tensor where it has none."""
        return tuple(self.edge[self.rows.index(row)] if self._has_edge(row) else self.index[0] for row in rows)

    def _has_edge(self, row: Row) -> bool:
        return bool(self.edge) and self.edge[self.rows.index(row)].numel() > 0

    def _entries(self, rows: Sequence[Row]) -> tuple[Relation, ...]:
        return tuple(
            (
                row.kind, *row.parameters, self.rows.index(row), row.leaves, self.leaving[row.source], row.enters,
                self.entering[row.target], self._has_edge(row),
            )
            for row in rows
        )  # fmt: skip


def _by_source(row: Row, sources: int, any_tensor: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tensors that a walk from the source takes; for a list: where the edges of each target begin, targets by source, edges
    by source, where the edges of each source begin.
    """
    if row.kind != "csr":
        first, second = (*row.tensors, any_tensor, any_tensor)[:2]
        return first, second, any_tensor, any_tensor
    first, source = row.tensors
    target = torch.repeat_interleave(
        torch.arange(len(first) - 1, device=first.device, dtype=torch.int32), first.diff(), output_size=len(source)
    )
    order = torch.argsort(source, stable=True)
    begins = torch.searchsorted(source[order], torch.arange(sources + 1, device=first.device, dtype=torch.int32))
    return first, target[order], order.int(), begins.int()
