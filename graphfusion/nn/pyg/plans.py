"""What is derived from edges and kept: which relations run together, and their plans."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from graphfusion.nn.pyg.blocks import sample_blocks
from graphfusion.nn.pyg.calls import Call
from graphfusion.ops.hetero_attention import EdgeList, Plan, make_plan
from graphfusion.ops.hetero_attention.plan import Relation


@dataclass(frozen=True)
class Bundle:
    """Relations that run in one operator; `few`: gathered before they are projected."""

    few: bool
    calls: tuple[Call, ...]


@dataclass(frozen=True)
class Prepared:
    """A plan for each bundle; of each relation with self loops the edges without them, their places in the list."""

    plans: tuple[Plan, ...]
    plain: Mapping[Relation, tuple[Tensor, Tensor]] = field(default_factory=dict)


class PlanCache:
    """The last few `Prepared`, found by the edge tensors they were made from.

    An entry counts only while each tensor is the same object (weak references: an address may be used again) at the
    same version (in-place writes raise it), and goes when one of them dies.
    """

    def __init__(self, size: int = 8) -> None:
        self.size = size
        self._entries: OrderedDict[Any, tuple[list[weakref.ref[Tensor]], Prepared]] = OrderedDict()

    def get(self, key: Any, edges: Sequence[Tensor], build: Callable[[], Prepared]) -> Prepared:
        """What `build` gave for these edges and this key."""
        if torch.compiler.is_compiling() or any(e.is_inference() for e in edges):  # no identity or no version to go by
            return build()
        full = (key, tuple((id(e), e._version, e.shape) for e in edges))
        found = self._entries.pop(full, None)
        if found is None or any(ref() is not e for ref, e in zip(found[0], edges, strict=True)):
            with torch.inference_mode(False):  # a plan made while predicting may serve in training
                found = self._references(full, edges), build()
        self._entries[full] = found
        while len(self._entries) > self.size:
            self._entries.popitem(last=False)
        return found[1]

    def _references(self, full: Any, edges: Sequence[Tensor]) -> list[weakref.ref[Tensor]]:
        entries = self._entries
        return [weakref.ref(e, lambda _: entries.pop(full, None)) for e in edges]


_PLANS = PlanCache()
"""One for all layers: those that see the same relations share a plan."""


def bundles_of(calls: Iterable[Call], rows: Mapping[str, Tensor], merged: bool) -> list[Bundle]:
    """Relations that share a kind, in one operator; apart from them those that gather first."""
    groups: dict[tuple[Any, ...], list[Call]] = {}
    for call in calls:
        few = merged and _gathers_first(call, rows)
        gathered = rows[call.relation[0]].shape[1] if few else None  # rows that are gathered share a width
        groups.setdefault((few, gathered, *call.kind), []).append(call)
    return [Bundle(few, tuple(group)) for (few, *_), group in groups.items()]


def _gathers_first(call: Call, rows: Mapping[str, Tensor]) -> bool:
    """Whether counted work says to project gathered rows at the targets and not every source."""
    if call.mode != "gat" or call.features is not None:
        return False
    sources, wide = rows[call.relation[0]].shape
    targets, other = rows[call.relation[2]].shape
    if wide != other:  # the operator's backward pass takes features of one width for all types of a plan
        return False
    heads, width = call.conv.heads, call.conv.out_channels
    edges = call.edges.shape[1] + (min(sources, targets) if call.conv.add_self_loops else 0)
    if edges * heads * wide * 3 + targets * heads * width * wide < sources * wide * heads * width:  # noqa: SIM103
        return True  # a branch, not the comparison itself: while a trace has sizes that vary, that is no bool
    return False


def prepared(bundles: Sequence[Bundle], rows: Mapping[str, Tensor], merged: bool) -> Prepared:
    """The plans of all bundles, from the cache if these edges were there before."""
    sizes = {name: len(x) for name, x in rows.items()}
    calls = [c for b in bundles for c in b.calls]
    split = tuple((b.few, tuple((c.relation, bool(c.conv.add_self_loops)) for c in b.calls)) for b in bundles)
    return _PLANS.get(
        (merged, split, tuple(sizes.items())), [c.edges for c in calls], lambda: _build(bundles, sizes, merged)
    )


def _build(bundles: Sequence[Bundle], sizes: Mapping[str, int], merged: bool) -> Prepared:
    edges: dict[Relation, Tensor] = {}
    plain = {}
    for call in (c for b in bundles for c in b.calls):
        edges[call.relation] = call.edges
        if call.conv.add_self_loops:
            edges[call.relation], plain[call.relation] = _with_loops(call, sizes)
    ptr = None if torch.compiler.is_compiling() else sample_blocks(sizes, edges)
    plans = []
    for bundle in bundles:
        relations = [c.relation for c in bundle.calls]
        types = [name for name in sizes if any(name in (r[0], r[2]) for r in relations)]
        blocks = None if ptr is None else {name: ptr[name] for name in types}
        lists = {r: EdgeList(edges[r]) for r in relations}
        plans.append(make_plan({name: sizes[name] for name in types}, lists, blocks, merged and not bundle.few))
    return Prepared(tuple(plans), plain)


def _with_loops(call: Call, sizes: Mapping[str, int]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    from torch_geometric.utils import add_self_loops, remove_self_loops

    places = torch.arange(call.edges.shape[1], device=call.edges.device)
    plain = remove_self_loops(call.edges, places)
    return add_self_loops(plain[0], num_nodes=loops_of(call, sizes))[0], plain


def loops_of(call: Call, sizes: Mapping[str, int]) -> int:
    """How many self loops PyG adds."""
    return min(sizes[call.relation[0]], sizes[call.relation[2]])
