"""The samples of a packed batch, found from its edges alone.

Letters: `N` nodes of a type, `E` edges of a relation, `B` blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphfusion.ops.hetero_attention.plan import Relation

MOST_EDGES = 30_000_000
"""With more edges the search for samples would cost more than it saves."""
MOST_BLOCKS = 65_536


def sample_blocks(sizes: Mapping[str, int], edges: Mapping[Relation, Tensor]) -> dict[str, Tensor] | None:
    """Node type → (B + 1,) first node of each of B blocks that no edge leaves; None if all nodes are one block.

    A packed batch is a graph whose components lie one after another, in one order for all types. Nodes without edges
    join the block before them.
    """
    count = sum(e.shape[1] for e in edges.values())
    if not 0 < count <= MOST_EDGES or any(_strays(e, sizes[r[0]], sizes[r[2]]) for r, e in edges.items()):
        return None
    start = dict(zip(sizes, accumulate([0, *sizes.values()]), strict=False))
    ends = [(e.cpu() + torch.tensor([[start[r[0]]], [start[r[2]]]])).numpy() for r, e in edges.items()]
    labels = _components(np.concatenate(ends, axis=1), sum(sizes.values()))
    of_type = {name: labels[start[name] : start[name] + n] for name, n in sizes.items()}
    rank = _one_order([_runs(own[own >= 0]) for own in of_type.values()])
    if rank is None or len(rank) < 2:
        return None
    device = next(iter(edges.values())).device
    return {name: torch.from_numpy(_first_nodes(own, rank)).to(device) for name, own in of_type.items()}


def _strays(edges: Tensor, sources: int, targets: int) -> bool:
    """Whether an edge names a node that is not there: `make_plan` says so better."""
    if not edges.numel():
        return False
    low, high = edges.aminmax(dim=1)
    return bool((low < 0).any()) or int(high[0]) >= sources or int(high[1]) >= targets


def _components(ends: np.ndarray[Any, Any], count: int) -> np.ndarray[Any, Any]:
    """The component of each of `count` nodes, −1 for those without edges."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(ends.shape[1]), (ends[0], ends[1])), (count, count))
    labels = connected_components(graph, directed=False)[1]
    linked = np.zeros(count, dtype=bool)
    linked[ends] = True
    return np.where(linked, labels, -1)


def _runs(labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Labels without repetitions of the one before."""
    return labels[np.flatnonzero(np.diff(labels, prepend=-1))]


def _one_order(runs: Sequence[np.ndarray[Any, Any]]) -> dict[int, int] | None:
    """Component → place in an order that every type keeps; None if there is none, or a component is in two pieces."""
    if any(len(run) > MOST_BLOCKS or len(np.unique(run)) < len(run) for run in runs):
        return None
    sorter: TopologicalSorter[int] = TopologicalSorter()
    for run in runs:
        for first in run[:1].tolist():
            sorter.add(first)
        for before, after in pairwise(run.tolist()):
            sorter.add(after, before)
    try:
        return {component: place for place, component in enumerate(sorter.static_order())}
    except CycleError:
        return None


def _first_nodes(labels: np.ndarray[Any, Any], rank: Mapping[int, int]) -> np.ndarray[Any, Any]:
    """(B + 1,) int32 from the component of each node."""
    places = np.zeros(max(rank) + 2, dtype=np.int64)  # the last one, which −1 finds, is 0
    places[list(rank)] = list(rank.values())
    block = np.maximum.accumulate(places[labels])
    return np.searchsorted(block, np.arange(len(rank) + 1)).astype(np.int32)
