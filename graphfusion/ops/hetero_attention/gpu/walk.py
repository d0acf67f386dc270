"""Launches of the kernels that walk pairs one by one: any relation, one launch a pass."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from graphfusion.ops.hetero_attention.gpu.config import power, walked
from graphfusion.ops.hetero_attention.gpu.group import Group, each
from graphfusion.ops.hetero_attention.gpu.kernels import walk as kernels
from graphfusion.ops.hetero_attention.index import by_source
from graphfusion.ops.hetero_attention.plan import Row

if TYPE_CHECKING:
    from graphfusion.ops.hetero_attention.gpu.calls import Call, Gradients

TARGETS = 32
"""Targets that a program of `gatv2` adds up the gradient of att over."""


def forward(call: Call, rows: Sequence[Row], out: Sequence[Tensor], begun: Collection[int]) -> None:
    """Write the outputs of each node type, or add to those of types that have `begun`."""
    group, sizes = Group.of(rows, "target"), _sizes(call)
    tensors, index = call.at_targets(group)
    programs = group.blocks(call.query, sizes["M"])
    if programs:
        kernels.forward[(programs,)](
            *tensors, _edges(call, group.rows), *index, each(out, group.own), *call.numbers,
            RELATIONS=call.entries(group.rows), TYPES=group.types(begun), ACROSS=call.across, **sizes,
        )  # fmt: skip


def of_targets(call: Call, rows: Sequence[Row], found: Gradients) -> None:
    """Gradients of query, edge features and att, and what `of_sources` needs."""
    group, sizes = Group.of(rows, "target"), _sizes(call)
    tensors, index = call.at_targets(group)
    most = max(len(call.query[t]) for t in group.own)
    if not most:
        return
    together = 1 if found.att is None else min(TARGETS, power(-(-most // sizes["M"])))
    programs = group.blocks(call.query, together * sizes["M"])
    datt = call.partial_att(-(-most // (together * sizes["M"])))
    dedge = tuple(found.edge[call.number(row)] if found.edge else index[0][0] for row in group.rows)
    left = (each(part, group.own) for part in (found.query, found.log_sum, found.mean))
    kernels.backward_targets[(programs,)](
        *tensors, _edges(call, group.rows), *index, each(found.out, group.own), *call.numbers, *left, dedge, datt,
        RELATIONS=call.entries(group.rows), TYPES=group.types(), RELATED=len(call.rows), ACROSS=call.across, T=together, **sizes,
    )  # fmt: skip
    if found.att is not None:
        found.att.add_(datt.sum(0))


def of_sources(call: Call, rows: Sequence[Row], found: Gradients) -> None:
    """Gradients of value and key."""
    group, sizes = Group.of(rows, "source"), _sizes(call)
    tensors, left, written = call.at_sources(group, found)
    lists = zip(*(_by_source(row, len(call.value[row.source]), call.index[0]) for row in group.rows), strict=True)
    programs = group.blocks(call.value, sizes["M"])
    if programs:
        kernels.backward_sources[(programs,)](
            *tensors, _edges(call, group.rows), *lists, *left, *call.numbers, *written,
            RELATIONS=call.entries(group.rows), TYPES=group.types(), **sizes,
        )  # fmt: skip


def _sizes(call: Call) -> dict[str, Any]:
    padded, columns = power(call.heads), power(call.width)
    return {
        **call.sizes, "HP": padded, "CP": columns, "V": 1 if call.shared else call.heads, **walked(padded * columns),
    }  # fmt: skip


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
