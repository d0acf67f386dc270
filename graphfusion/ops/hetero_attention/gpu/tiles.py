"""Launches of the kernels that evaluate a relation in tiles: dense ones and bit masks, one launch a node type and pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from graphfusion.ops.hetero_attention.gpu.config import power, precision, tiled
from graphfusion.ops.hetero_attention.gpu.kernels import tiles as kernels
from graphfusion.ops.hetero_attention.plan import Row

if TYPE_CHECKING:
    from graphfusion.ops.hetero_attention.gpu.calls import Call


def forward(call: Call, t: int, rows: Sequence[Row], out: Tensor, add: bool) -> None:
    """Write the outputs of the node type `t`, or add to them."""
    sizes = _sizes(call)
    kernels.forward[_grid(call, len(out), sizes)](
        *_inputs(call, t, rows), out, *call.numbers, RELATIONS=call.entries(rows), ADD=add, **sizes
    )


def of_targets(call: Call, t: int, rows: Sequence[Row]) -> None:
    """Gradients of query and att, and what `of_sources` needs."""
    query, sizes = call.query[t], _sizes(call)
    if not len(query):
        return
    grid = _grid(call, len(query), sizes)
    shape = (grid[0], len(rows), call.heads, call.width) if call.mode == "gatv2" else (1,)
    datt = torch.empty(shape, device=call.device)
    kernels.backward_targets[grid](
        *_inputs(call, t, rows), call.grad[t], *call.numbers, call.dquery[t], datt, call.log_sum[t], call.mean[t],
        RELATIONS=call.entries(rows), **sizes,
    )  # fmt: skip
    if call.datt is not None:
        call.datt[[call.number(row) for row in rows]] = datt.sum(0)


def of_sources(call: Call, t: int, rows: Sequence[Row]) -> None:
    """Gradients of value and key."""
    value, sizes = call.value[t], _sizes(call)
    if not len(value):
        return
    ends = [row.target for row in rows]
    query, index, grad, log_sum, mean = (
        tuple(part[end] for end in ends) for part in (call.query, call.index, call.grad, call.log_sum, call.mean)
    )
    kernels.backward_sources[_grid(call, len(value), sizes)](
        value, call.key[t] if call.key else value, query, value if call.att is None else call.att, *call.pairs(rows), index,
        call.index[t], grad, log_sum, mean, *call.numbers, call.dvalue[t], call.dkey[t] if call.key else value,
        RELATIONS=call.entries(rows), **sizes,
    )  # fmt: skip


def _sizes(call: Call) -> dict[str, Any]:
    columns = max(16, power(call.width))  # tensor cores take sixteen at least
    return {**call.sizes, "CP": columns, "PRECISION": precision(call.value[0].dtype), **tiled(columns)}


def _grid(call: Call, nodes: int, sizes: dict[str, Any]) -> tuple[int, int]:
    """Programs for the blocks of all samples, whatever their sizes, and for the heads."""
    return nodes // int(sizes["M"]) + call.samples, call.heads


def _inputs(call: Call, t: int, rows: Sequence[Row]) -> tuple[Any, ...]:
    """Arguments that the passes over targets share."""
    ends = [row.source for row in rows]
    value = tuple(call.value[end] for end in ends)
    return (
        value, tuple(call.key[end] for end in ends) if call.key else value, call.query[t],
        value[0] if call.att is None else call.att, *call.pairs(rows), tuple(call.index[end] for end in ends), call.index[t],
    )  # fmt: skip
