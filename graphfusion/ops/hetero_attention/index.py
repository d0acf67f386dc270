"""Lists and pointers as kernels read them: int32, sorted by target (on a GPU by source too), checked.

As operators for traces; called plainly elsewhere, since passing through an operator takes longer than the work.
Letters: `E` edges of a relation.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphfusion.errors import GraphError
from graphfusion.ops.hetero_attention import library
from graphfusion.ops.hetero_attention.tracing import exporting

Lists = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""See `index_edges`."""


def index_edges(edges: Tensor, sources: int, targets: int, name: str) -> Lists:
    """Edges (2, E) → ptr (targets + 1,) int32, sources by target (E,) int32, their places in the given list (E,) int64; and for
    kernels that walk from the source, empty on a CPU, where those turn lists over themselves: begins (sources + 1,) int32,
    targets by source (E,) int32, their places in the list by target (E,) int32.

    Raises:
        GraphError: an edge names a node that is not there; `name` is that of the relation.
    """
    if exporting():  # what the operator gives, in ATen, unchecked
        order = torch.argsort(edges[1], stable=True)
        bounds = torch.arange(targets + 1, device=edges.device)
        return torch.searchsorted(edges[1][order].long(), bounds).int(), edges[0][order].int(), order, *_nothing(edges)
    if torch.compiler.is_compiling():
        found: Lists = torch.ops.graphfusion.index_edges(edges, sources, targets, name)
        return found
    return _index_edges(edges, sources, targets, name)


def by_source(ptr: Tensor, source: Tensor, sources: int) -> tuple[Tensor, Tensor, Tensor]:
    """A list by target turned over: the last three of `index_edges`."""
    numbers = torch.arange(len(ptr) - 1, device=ptr.device, dtype=torch.int32)
    target = torch.repeat_interleave(numbers, ptr.diff(), output_size=len(source))
    order = torch.argsort(source, stable=True)
    bounds = torch.arange(sources + 1, device=ptr.device, dtype=torch.int32)
    return torch.searchsorted(source[order], bounds, out_int32=True), target[order], order.int()


def _nothing(edges: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    first, second, third = (edges.new_empty(0, dtype=torch.int32) for _ in range(3))
    return first, second, third


def index_numbers(numbers: Tensor, least: int, end: int, what: str) -> Tensor:
    """The same as int32.

    Raises:
        GraphError: one is below `least` or, with `end` ≥ 0, they do not ascend from 0 to `end`; looked at on a CPU only.
    """
    if exporting():
        return numbers.to(torch.int32)
    if torch.compiler.is_compiling():
        found: Tensor = torch.ops.graphfusion.index_numbers(numbers, least, end, what)
        return found
    return _index_numbers(numbers, least, end, what)


def _by_kernel(edges: Tensor, sources: int, targets: int, name: str) -> Lists:
    edges = edges.long().contiguous()
    count = edges.shape[1]
    ptr = torch.empty(targets + 1, dtype=torch.int32)
    source, order = torch.empty(count, dtype=torch.int32), torch.empty(count, dtype=torch.int64)
    numbers = [ctypes.c_int64(n) for n in (count, sources, targets)]
    places = [ctypes.c_void_p(t.data_ptr()) for t in (ptr, source, order)]
    bad = library.kernels().graphfusion_index(ctypes.c_void_p(edges.data_ptr()), *numbers, *places)
    if bad >= 0:
        raise GraphError(out_of_range(name, int(bad), edges[:, bad].tolist(), sources, targets))
    return ptr, source, order, *_nothing(edges)


def out_of_range(name: str, place: int, edge: Sequence[int], sources: int, targets: int) -> str:
    """Message for an edge that names a node that is not there."""
    return (
        f"edges of {name}: edge {place} is {edge[0]} → {edge[1]}, but there are {sources} source and {targets} target "
        "nodes; numbers start at 0."
    )


def _index_edges(edges: Tensor, sources: int, targets: int, name: str) -> Lists:
    if edges.device.type == "cpu" and not library.why_not():
        return _by_kernel(edges, sources, targets, name)
    edges = edges.long()
    if edges.device.type == "cpu":  # elsewhere a look would wait for the device: `make_plan` has one for all relations
        refuse_out_of_range(edges, sources, targets, name)
    order = torch.argsort(edges[1], stable=True)
    bounds = torch.arange(targets + 1, device=edges.device)
    ptr, source = torch.searchsorted(edges[1][order], bounds, out_int32=True), edges[0][order].int()
    return ptr, source, order, *(_nothing(edges) if edges.device.type == "cpu" else by_source(ptr, source, sources))


def outside(edges: Tensor, sources: int, targets: int) -> Tensor:
    """(E,) whether an edge names a node that is not there."""
    return (edges < 0).any(0) | (edges[0] >= sources) | (edges[1] >= targets)


def refuse_out_of_range(edges: Tensor, sources: int, targets: int, name: str) -> None:
    """GraphError if an edge names a node that is not there."""
    bad = outside(edges, sources, targets)
    if bool(bad.any()):
        place = int(bad.nonzero()[0])
        raise GraphError(out_of_range(name, place, edges[:, place].tolist(), sources, targets))


def _index_numbers(numbers: Tensor, least: int, end: int, what: str) -> Tensor:
    if numbers.device.type == "cpu":  # elsewhere a look would wait for the device
        wrong = bool((numbers < least).any())
        if end >= 0 and not wrong:
            wrong = int(numbers[0]) != 0 or int(numbers[-1]) != end or bool((numbers.diff() < 0).any())
        if wrong:
            expected = f"numbers from {least}" if end < 0 else f"numbers that ascend from 0 to {end}"
            raise GraphError(f"{what}: expected {expected}, got {numbers.tolist()[:8]}.")
    return numbers.to(torch.int32, copy=True)


def _checked_edges(edges: Tensor, sources: int, targets: int, name: str) -> Lists:
    """In a trace, where `make_plan` does not look."""
    if edges.device.type != "cpu":
        refuse_out_of_range(edges, sources, targets, name)
    return _index_edges(edges, sources, targets, name)


_EDGES = torch.library.custom_op("graphfusion::index_edges", _checked_edges, mutates_args=())
_NUMBERS = torch.library.custom_op("graphfusion::index_numbers", _index_numbers, mutates_args=())


@_EDGES.register_fake
def _(edges: Tensor, sources: int, targets: int, name: str) -> Lists:
    count = edges.shape[1]
    turned = _nothing(edges) if edges.device.type == "cpu" else _lists(edges, sources + 1, count, count)
    return *_lists(edges, targets + 1, count), edges.new_empty(count, dtype=torch.int64), *turned


def _lists(edges: Tensor, *sizes: int) -> Any:
    return tuple(edges.new_empty(size, dtype=torch.int32) for size in sizes)


@_NUMBERS.register_fake
def _(numbers: Tensor, least: int, end: int, what: str) -> Tensor:
    return torch.empty_like(numbers, dtype=torch.int32)
