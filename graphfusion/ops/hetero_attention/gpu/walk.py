"""Launches of the kernels that walk pairs one by one: any relation, one launch a node type and pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from graphfusion.ops.hetero_attention.gpu.config import power, walked
from graphfusion.ops.hetero_attention.gpu.kernels import walk as kernels
from graphfusion.ops.hetero_attention.index import by_source
from graphfusion.ops.hetero_attention.plan import Row

if TYPE_CHECKING:
    from graphfusion.ops.hetero_attention.gpu.calls import Call

TARGETS = 32
"""Targets that a program of `gatv2` adds up the gradient of att over."""


def forward(call: Call, t: int, rows: Sequence[Row], out: Tensor, add: bool) -> None:
    """Write the outputs of the node type `t`, or add to them."""
    sizes = _sizes(call)
    kernels.forward[(_programs(len(out), sizes),)](
        *_inputs(call, t, rows), out, *call.numbers, len(out),
        RELATIONS=call.entries(rows), ACROSS=call.across, ADD=add, **sizes,
    )  # fmt: skip


def of_targets(call: Call, t: int, rows: Sequence[Row]) -> None:
    """Gradients of query, edge features and att, and what `of_sources` needs."""
    query, v2, sizes = call.query[t], call.mode == "gatv2", _sizes(call)
    if not len(query):
        return
    targets = min(TARGETS, power(_programs(len(query), sizes))) if v2 else 1
    programs = _programs(len(query), sizes, targets)
    datt = torch.zeros((programs, len(rows), call.heads, call.width) if v2 else (1,), device=call.device)
    dedge = tuple(call.dedge[call.number(row)] if call.dedge else query for row in rows)
    kernels.backward_targets[(programs,)](
        *_inputs(call, t, rows), call.grad[t], *call.numbers, len(query), call.dquery[t], dedge, datt, call.log_sum[t],
        call.mean[t], RELATIONS=call.entries(rows), ACROSS=call.across, T=targets, **sizes,
    )  # fmt: skip
    if call.datt is not None:
        call.datt[[call.number(row) for row in rows]] = datt.sum(0)


def of_sources(call: Call, t: int, rows: Sequence[Row]) -> None:
    """Gradients of value and key."""
    value, sizes = call.value[t], _sizes(call)
    if not len(value):
        return
    lists = [_by_source(row, len(value), call.index[t]) for row in rows]
    ends = [row.target for row in rows]
    kernels.backward_sources[(_programs(len(value), sizes),)](
        value, call.key[t] if call.key else value, _each(call.query, ends), value if call.att is None else call.att,
        _edges(call, rows), *(tuple(part) for part in zip(*lists, strict=True)), _each(call.index, ends), call.index[t],
        _each(call.grad, ends), _each(call.log_sum, ends), _each(call.mean, ends), *call.numbers, len(value),
        call.dvalue[t], call.dkey[t] if call.key else value, RELATIONS=call.entries(rows), **sizes,
    )  # fmt: skip


def _sizes(call: Call) -> dict[str, Any]:
    padded, columns = power(call.heads), power(call.width)
    return {
        **call.sizes, "HP": padded, "CP": columns, "V": 1 if call.shared else call.heads, **walked(padded * columns),
    }  # fmt: skip


def _programs(nodes: int, sizes: dict[str, Any], times: int = 1) -> int:
    return -(-nodes // (times * int(sizes["M"])))


def _inputs(call: Call, t: int, rows: Sequence[Row]) -> tuple[Any, ...]:
    """Arguments that the passes over targets share."""
    ends = [row.source for row in rows]
    value = _each(call.value, ends)
    return (
        value, _each(call.key, ends) if call.key else value, call.query[t], value[0] if call.att is None else call.att,
        _edges(call, rows), *call.pairs(rows), _each(call.index, ends), call.index[t],
    )  # fmt: skip


def _each(tensors: Sequence[Tensor], types: Sequence[int]) -> tuple[Tensor, ...]:
    return tuple(tensors[t] for t in types)


def _edges(call: Call, rows: Sequence[Row]) -> tuple[Tensor, ...]:
    """Edge features of each relation; any tensor where it has none."""
    return tuple(call.edge[call.number(row)] if call.has_edge(row) else call.index[0] for row in rows)


def _by_source(row: Row, sources: int, any_tensor: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tensors that a walk from the source takes; for a list: where the edges of each target begin, targets by source, edges
    by source, where the edges of each source begin.
    """
    if row.kind != "csr":
        first, second = (*row.tensors, any_tensor, any_tensor)[:2]
        return first, second, any_tensor, any_tensor
    first, source, *turned = row.tensors
    if not len(turned[0]):  # a plan that was made on a CPU
        turned = list(by_source(first, source, sources))
    begins, target, place = turned
    return first, target, place, begins
