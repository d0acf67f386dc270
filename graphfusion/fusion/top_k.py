"""The edges of `TopKSimilarity`, chosen from node states at every pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphfusion.graph_builder import NodeStore, TopKSimilarity
from graphfusion.ops.hetero_attention import Dense


class LearnedTopK(nn.Module):
    """For each target the `k` sources of its sample with the largest cosine in a learned space.

    Chosen anew at every pass as in Wang et al. 2019 (Dynamic graph CNN for learning on point clouds), in a space of its own. The
    similarity comes back as a feature of the edge: through it the two projections are trained, since the choice itself has no
    gradient.
    """

    def __init__(self, relation: TopKSimilarity, dim: int) -> None:
        super().__init__()
        self.k = relation.k
        self.within = relation.source == relation.target
        self.query = nn.Linear(dim, relation.width, bias=False)
        self.key = nn.Linear(dim, relation.width, bias=False)

    def forward(self, x: Tensor, source: NodeStore, y: Tensor, target: NodeStore) -> tuple[Tensor, Tensor]:
        """Sources x (N, D), targets y (M, D) → edges (2, E) sorted by target, similarity (E, 1)."""
        key = nn.functional.normalize(self.key(x), dim=1)
        query = nn.functional.normalize(self.query(y), dim=1)
        with torch.no_grad():  # of all pairs, none of which is padding; a choice has no gradient
            pairs = Dense(loops=not self.within).edge_index(source.ptr, target.ptr)
            similarity = (query[pairs[1]] * key[pairs[0]]).sum(1)
            order = similarity.argsort(descending=True, stable=True)
            order = order[pairs[1, order].argsort(stable=True)]
            count = pairs[1].bincount(minlength=len(y))
            rank = torch.arange(len(order), device=x.device) - (count.cumsum(0) - count)[pairs[1]]
            edges = pairs[:, order[rank < self.k]]
        return edges, (query[edges[1]] * key[edges[0]]).sum(1, keepdim=True)
