"""Launches of the kernels for dense `gat` relations in linear time: README.md, section 4. A few small ones a relation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graphfusion.ops.hetero_attention.gpu.config import power, scanned
from graphfusion.ops.hetero_attention.gpu.kernels import scan as kernels
from graphfusion.ops.hetero_attention.plan import Row

if TYPE_CHECKING:
    from graphfusion.ops.hetero_attention.gpu.calls import Call, Gradients


@dataclass(frozen=True)
class Side:
    """Nodes of one end of a relation: their logits (N, slots, H), of which the relation has a slot, and `ptr`."""

    logit: Tensor
    slot: int
    slots: int
    ptr: Tensor

    @property
    def halvings(self) -> int:
        """Steps of a search among the nodes of a sample."""
        return len(self.logit).bit_length()


Sums = tuple[Tensor, Tensor, Tensor, Tensor]
"""Running sums of rows (N + B, H, C) and of numbers (N + B, H), from the front and from the back."""


def forward(call: Call, rows: Sequence[Row], out: Sequence[Tensor], begun: Collection[int]) -> None:
    """Write the outputs of each node type, or add to those of types that have `begun`."""
    for place, row in enumerate(rows):
        order, sums = _of_sources(call, row)
        earlier = call.merged and any(row.target == other.target for other in rows[:place])
        kernels.combine[_grid(call, len(out[row.target]))](
            *_ends(call, row, order), *sums, out[row.target], *_numbers(call, _sources(call, row)),
            ADD=earlier or row.target in begun,
            **_slots(call, row), **_output(call, row), **_widths(call), **_without("K"),
        )  # fmt: skip


def backward(call: Call, rows: Sequence[Row], found: Gradients) -> None:
    """Gradients of query, value and key."""
    for row in rows:
        _backward(call, row, found)


def _backward(call: Call, row: Row, found: Gradients) -> None:
    source, target, grad = _sources(call, row), _targets(call, row), found.out[row.target]
    order, sums = _of_sources(call, row)
    first, second, mean = (torch.empty(len(grad), call.heads, device=call.device) for _ in range(3))
    kernels.backward_targets[_grid(call, len(grad))](
        *_ends(call, row, order), *sums, grad, found.query[row.target], first, second, mean, *_numbers(call, source),
        **_slots(call, row), **_output(call, row), **_widths(call), **_without("K"),
    )  # fmt: skip
    ranked = _rank(call, target)
    slot, slots = _output(call, row).values()
    sums = _running(call, target, ranked, grad, slot, slots, (first, second, mean))
    kernels.backward_sources[_grid(call, len(source.logit))](
        call.value[row.source], source.logit, target.logit, order, ranked, target.ptr, source.ptr, *sums,
        found.value[row.source], found.key[row.source], *_numbers(call, target), **_slots(call, row), **_widths(call),
        **_without("K"),
    )  # fmt: skip


def _sources(call: Call, row: Row) -> Side:
    return Side(call.key[row.source], row.leaves, call.leaving[row.source], call.index[row.source])


def _targets(call: Call, row: Row) -> Side:
    return Side(call.query[row.target], row.enters, call.entering[row.target], call.index[row.target])


def _of_sources(call: Call, row: Row) -> tuple[Tensor, Sums]:
    """Order of the sources, and their sums."""
    side = _sources(call, row)
    order = _rank(call, side)
    return order, _running(call, side, order, call.value[row.source], side.slot, side.slots)


def _rank(call: Call, side: Side) -> Tensor:
    """(N, H) places in the sample of its nodes, largest logit first."""
    order = torch.empty(len(side.logit), call.heads, dtype=torch.int32, device=call.device)
    kernels.rank[_grid(call, len(side.logit))](
        side.logit, side.ptr, order, call.samples, call.samples.bit_length(), SLOT=side.slot, SLOTS=side.slots,
        H=call.heads, **scanned(),
    )  # fmt: skip
    return order


def _running(
    call: Call, side: Side, order: Tensor, rows: Tensor, slot: int, slots: int, weights: Sequence[Tensor] = ()
) -> Sums:
    """Sums of the rows (N, slots, H, C) of a slot; `weights`: of targets, those of sources follow from their logits."""
    count = len(side.logit) + call.samples
    sums = tuple(
        torch.empty(count, call.heads, *tail, device=call.device) for tail in ((call.width,), (), (call.width,), ())
    )
    kernels.running[(call.samples, call.heads)](
        rows, side.logit, order, side.ptr, *(weights or [side.logit] * 3), *sums, call.slope, ROW=slot, ROWS=slots,
        SLOT=side.slot, SLOTS=side.slots, SOURCES=not weights, **_widths(call), **_without("M", call.width),
    )  # fmt: skip
    front, front_number, back, back_number = sums
    return front, front_number, back, back_number


def _ends(call: Call, row: Row, order: Tensor) -> tuple[Tensor, ...]:
    source, target = _sources(call, row), _targets(call, row)
    return source.logit, target.logit, order, source.ptr, target.ptr


def _numbers(call: Call, searched: Side) -> tuple[float, int, int, int]:
    return call.slope, call.samples, call.samples.bit_length(), searched.halvings


def _slots(call: Call, row: Row) -> dict[str, int]:
    source, target = _sources(call, row), _targets(call, row)
    return {"LEAVES": source.slot, "LEAVING": source.slots, "ENTERS": target.slot, "ENTERING": target.slots}


def _output(call: Call, row: Row) -> dict[str, int]:
    """Slot of the outputs, and how many there are."""
    return {"OUT": 0, "OUTS": 1} if call.merged else {"OUT": row.enters, "OUTS": call.entering[row.target]}


def _widths(call: Call) -> dict[str, int]:
    return {"H": call.heads, "C": call.width, "CP": max(16, power(call.width))}


def _without(size: str, columns: int = 1) -> dict[str, int]:
    return {name: number for name, number in scanned(columns).items() if name != size}


def _grid(call: Call, nodes: int) -> tuple[int, int]:
    return nodes // scanned()["M"] + call.samples, call.heads
