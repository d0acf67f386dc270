"""Which source nodes send to which target nodes in one relation: as an edge list, or as a rule that a kernel walks.

Letters: `B` samples, `E` edges; sample `b` owns the nodes `ptr[b]` to `ptr[b + 1]` of a type. The edges of a rule have
one order, by target and then by source, which `edge_index` gives and every backend keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

import torch
from torch import Tensor

from graphfusion.errors import GraphError


class Pairs(Protocol):
    """The pairs of one relation."""

    kind: ClassVar[str]

    def edge_index(self, source_ptr: Tensor, target_ptr: Tensor) -> Tensor:
        """(2, E) int64, row 0 source and row 1 target, sorted by target."""

    def parameters(self) -> tuple[int, ...]:
        """At most four whole numbers that a kernel reads."""

    def tensors(self) -> tuple[Tensor, ...]:
        """Tensors that a kernel reads."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Pairs:
        """The same pairs on another device."""

    def pin_memory(self) -> Pairs:
        """The same pairs in page-locked memory."""


@dataclass(frozen=True)
class EdgeList:
    """Listed pairs (`csr`): index (2, E) int64, row 0 source and row 1 target, in any order."""

    index: Tensor
    kind: ClassVar[str] = "csr"

    def edge_index(self, source_ptr: Tensor, target_ptr: Tensor) -> Tensor:
        """Sorted by target; edges of one target keep their order."""
        return self.index[:, torch.argsort(self.index[1], stable=True)]

    def parameters(self) -> tuple[int, ...]:
        """None."""
        return ()

    def tensors(self) -> tuple[Tensor, ...]:
        """None: `Plan` lays the index."""
        return ()

    def to(self, device: torch.device | str, non_blocking: bool = False) -> EdgeList:
        """The same edges on another device."""
        return EdgeList(self.index.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> EdgeList:
        """See the protocol."""
        return EdgeList(self.index.pin_memory())


class _Rule:
    """What rules without tensors share."""

    def tensors(self) -> tuple[Tensor, ...]:
        """None."""
        return ()

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Itself: nothing lies on a device."""
        return self

    def pin_memory(self) -> Self:
        """Itself."""
        return self


@dataclass(frozen=True)
class Dense(_Rule):
    """Every source node of a sample to every target node; without `loops` not to the node of the same index.

    In mode `gat` with loops it is evaluated in linear time, on a CPU and, where that costs less, on a GPU.
    """

    loops: bool = True
    kind: ClassVar[str] = "dense"

    def edge_index(self, source_ptr: Tensor, target_ptr: Tensor) -> Tensor:
        """See the protocol."""
        sample = _owner(target_ptr)
        source, target = _expand(source_ptr[sample], source_ptr.diff()[sample])
        if not self.loops:
            apart = source - source_ptr[sample[target]] != target - target_ptr[sample[target]]
            source, target = source[apart], target[apart]
        return torch.stack([source, target])

    def parameters(self) -> tuple[int, ...]:
        """Whether loops are in."""
        return (int(self.loops),)


@dataclass(frozen=True)
class Broadcast(Dense):
    """The pairs of `Dense` where one side is a handful of nodes (hubs), which the linear form does not pay for."""

    kind: ClassVar[str] = "broadcast"


@dataclass(frozen=True)
class Window(_Rule):
    """Source i + step · s of the same sample for s = low … high; s = 0 only with `loops`."""

    low: int
    high: int
    step: int = 1
    loops: bool = True
    kind: ClassVar[str] = "window"

    def __post_init__(self) -> None:
        if self.low > self.high or self.step < 1:
            raise GraphError(f"Window: expected low ≤ high and step ≥ 1, got {self.low}, {self.high}, {self.step}.")

    def edge_index(self, source_ptr: Tensor, target_ptr: Tensor) -> Tensor:
        """See the protocol."""
        sample = _owner(target_ptr)
        steps = torch.arange(self.low, self.high + 1, device=target_ptr.device)
        steps = steps if self.loops else steps[steps != 0]
        here = torch.arange(len(sample), device=target_ptr.device) - target_ptr[sample]
        found = here[:, None] + self.step * steps
        valid = (found >= 0) & (found < source_ptr.diff()[sample][:, None])
        target, column = valid.nonzero(as_tuple=True)
        return torch.stack([found[target, column] + source_ptr[sample[target]], target])

    def parameters(self) -> tuple[int, ...]:
        """Low, high, step, loops."""
        return self.low, self.high, self.step, int(self.loops)


@dataclass(frozen=True)
class Grid:
    """Neighbours in a full raster: node k of a sample stands at row k // columns[b], column k % columns[b].

    |Δrow| ≤ radius and |Δcolumn| ≤ radius with `corners`, |Δrow| + |Δcolumn| ≤ radius without. `columns` (B,) int32.
    """

    columns: Tensor
    radius: int = 1
    corners: bool = True
    loops: bool = True
    kind: ClassVar[str] = "grid"

    def __post_init__(self) -> None:
        if self.radius < 0:
            raise GraphError(f"Grid: expected a radius from 0, got {self.radius}.")

    def edge_index(self, source_ptr: Tensor, target_ptr: Tensor) -> Tensor:
        """See the protocol."""
        sample = _owner(target_ptr)
        columns = self.columns.long()[sample]
        here = torch.arange(len(sample), device=target_ptr.device) - target_ptr[sample]
        row, column = here // columns, here % columns
        step = torch.arange(-self.radius, self.radius + 1, device=target_ptr.device)
        offsets = torch.cartesian_prod(step, step)
        reach = offsets.abs().amax(1) if self.corners else offsets.abs().sum(1)
        offsets = offsets[(reach <= self.radius) & (reach >= (0 if self.loops else 1))]
        r, c = row[:, None] + offsets[:, 0], column[:, None] + offsets[:, 1]
        found = r * columns[:, None] + c
        count = source_ptr.diff()[sample][:, None]
        valid = (r >= 0) & (c >= 0) & (c < columns[:, None]) & (found < count)
        target, place = valid.nonzero(as_tuple=True)
        return torch.stack([found[target, place] + source_ptr[sample[target]], target])

    def parameters(self) -> tuple[int, ...]:
        """Radius, corners, loops."""
        return self.radius, int(self.corners), int(self.loops)

    def tensors(self) -> tuple[Tensor, ...]:
        """Columns of each sample."""
        return (self.columns,)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Grid:
        """The same grid on another device."""
        moved = self.columns.to(device, non_blocking=non_blocking)
        return Grid(moved, self.radius, self.corners, self.loops)

    def pin_memory(self) -> Grid:
        """See the protocol."""
        return Grid(self.columns.pin_memory(), self.radius, self.corners, self.loops)


@dataclass(frozen=True)
class Bitmask:
    """One bit for each (target, source) of a sample: the words start[i] … start[i + 1] − 1 hold the bits of target i,
    least significant first, source 0 of its sample first. `words` (·,) int32, `start` (N + 1,) int32.
    """

    words: Tensor
    start: Tensor
    kind: ClassVar[str] = "bitmask"

    @classmethod
    def from_edges(cls, index: Tensor, source_ptr: Tensor, target_ptr: Tensor) -> Bitmask:
        """The mask of an edge list (2, E) within samples; an edge listed twice counts once."""
        sample = _owner(target_ptr)
        width = (source_ptr.diff() + 31) // 32
        start = torch.cat([width.new_zeros(1), width[sample].cumsum(0)])
        source, target = torch.unique(index, dim=1)
        place = source - source_ptr[sample[target]]
        words = torch.zeros(int(start[-1]), dtype=torch.int64, device=index.device)
        words.index_add_(0, start[target] + place // 32, torch.ones_like(place) << (place % 32))
        return cls(torch.where(words >= 2**31, words - 2**32, words).int(), start.int())

    def edge_index(self, source_ptr: Tensor, target_ptr: Tensor) -> Tensor:
        """See the protocol."""
        word, bit = ((self.words[:, None].long() >> torch.arange(32, device=self.words.device)) & 1).nonzero(
            as_tuple=True
        )
        target = torch.bucketize(word, self.start[1:].long(), right=True)
        sample = _owner(target_ptr)[target]
        return torch.stack([source_ptr[sample] + 32 * (word - self.start.long()[target]) + bit, target])

    def parameters(self) -> tuple[int, ...]:
        """None."""
        return ()

    def tensors(self) -> tuple[Tensor, ...]:
        """Words and starts."""
        return self.words, self.start

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Bitmask:
        """The same mask on another device."""
        return Bitmask(*(t.to(device, non_blocking=non_blocking) for t in self.tensors()))

    def pin_memory(self) -> Bitmask:
        """See the protocol."""
        return Bitmask(*(t.pin_memory() for t in self.tensors()))


KINDS: Sequence[str] = ("csr", "dense", "broadcast", "window", "grid", "bitmask")
"""Kinds of pairs; the place in this tuple is the number that kernels know them by."""


def pairs_of(kind: str, parameters: Sequence[int], tensors: Sequence[Tensor]) -> Pairs:
    """Pairs from what `parameters` and `tensors` gave (for an edge list: what `index_edges` gave)."""
    p = list(parameters)
    if kind == "csr":
        ptr, source, *_ = tensors
        target = torch.repeat_interleave(
            torch.arange(len(ptr) - 1, device=ptr.device), ptr.diff().long(), output_size=len(source)
        )
        return EdgeList(torch.stack([source.long(), target]))
    if kind == "window":
        return Window(p[0], p[1], p[2], bool(p[3]))
    if kind == "grid":
        return Grid(tensors[0], p[0], bool(p[1]), bool(p[2]))
    if kind == "bitmask":
        return Bitmask(*tensors)
    return Dense(bool(p[0])) if kind == "dense" else Broadcast(bool(p[0]))


def _owner(ptr: Tensor) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(ptr) - 1, device=ptr.device), ptr.diff())


def _expand(first: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """For each i the pairs (first[i], i), (first[i] + 1, i) … `count[i]` of them."""
    target = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
    within = torch.arange(len(target), device=count.device) - (count.cumsum(0) - count)[target]
    return first[target] + within, target
