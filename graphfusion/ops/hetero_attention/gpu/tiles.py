"""Launches of the kernels that evaluate a relation in tiles: dense ones and bit masks, one launch a pass."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from graphfusion.ops.hetero_attention.gpu.config import architecture, power, precision, tiled
from graphfusion.ops.hetero_attention.gpu.group import Group, each
from graphfusion.ops.hetero_attention.gpu.kernels import tiles as kernels
from graphfusion.ops.hetero_attention.plan import Row

if TYPE_CHECKING:
    from graphfusion.ops.hetero_attention.gpu.calls import Call, Gradients


def forward(call: Call, rows: Sequence[Row], out: Sequence[Tensor], begun: Collection[int]) -> None:
    """Write the outputs of each node type, or add to those of types that have `begun`."""
    group, sizes = Group.of(rows, "target"), _sizes(call)
    tensors, index = call.at_targets(group)
    kernels.forward[_grid(call, group, call.query, sizes)](
        *tensors, *index, each(out, group.own), *call.numbers,
        RELATIONS=call.entries(group.rows), TYPES=group.types(begun), **sizes,
    )  # fmt: skip


def of_targets(call: Call, rows: Sequence[Row], found: Gradients) -> None:
    """Gradients of query and att, and what `of_sources` needs."""
    group, sizes = Group.of(rows, "target"), _sizes(call)
    tensors, index = call.at_targets(group)
    datt = call.partial_att(max(_blocks(call, len(call.query[t]), sizes) for t in group.own))
    left = (each(part, group.own) for part in (found.query, found.log_sum, found.mean))
    kernels.backward_targets[_grid(call, group, call.query, sizes)](
        *tensors, *index, each(found.out, group.own), *call.numbers, *left, datt,
        RELATIONS=call.entries(group.rows), TYPES=group.types(), RELATED=len(call.rows), **sizes,
    )  # fmt: skip
    if found.att is not None:
        found.att.add_(datt.sum(0))


def of_sources(call: Call, rows: Sequence[Row], found: Gradients) -> None:
    """Gradients of value and key."""
    group, sizes = Group.of(rows, "source"), _sizes(call)
    tensors, left, written = call.at_sources(group, found)
    kernels.backward_sources[_grid(call, group, call.value, sizes)](
        *tensors, *call.lists(group.rows), *left, *call.numbers, *written,
        RELATIONS=call.entries(group.rows), TYPES=group.types(), **sizes,
    )  # fmt: skip


def _sizes(call: Call) -> dict[str, Any]:
    columns = max(16, power(call.width))  # tensor cores take sixteen at least
    return {
        **call.sizes,
        "CP": columns,
        "PRECISION": precision(call.value[0].dtype),
        **tiled(columns, call.value[0].element_size(), architecture(call.device)),
    }


def _grid(call: Call, group: Group, tensors: Sequence[Tensor], sizes: dict[str, Any]) -> tuple[int, int]:
    """Programs for the blocks of all types, and for the heads."""
    return sum(_blocks(call, len(tensors[t]), sizes) for t in group.own), call.heads


def _blocks(call: Call, nodes: int, sizes: dict[str, Any]) -> int:
    """Enough for the blocks of all samples, whatever their sizes."""
    return nodes // int(sizes["M"]) + call.samples
