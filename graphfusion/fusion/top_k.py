"""The edges of `TopKSimilarity`, chosen from node states at every pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphfusion.graph_builder import NodeStore, TopKSimilarity
from graphfusion.graph_builder.batch import owner_of_row


class LearnedTopK(nn.Module):
    """For each target the `k` sources of its sample with the largest cosine in a learned space.

    The similarity comes back as a feature of the edge: through it the two projections are trained, since the choice
    itself has no gradient.
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
        count = source.ptr.diff()
        longest = int(count.max()) if len(count) else 0
        sample = owner_of_row(target.ptr, len(y))
        if not len(y) or not longest:
            return torch.empty(2, 0, dtype=torch.int64, device=x.device), x.new_empty(0, 1)
        candidate = source.ptr[sample][:, None] + torch.arange(longest, device=x.device)  # (M, longest)
        valid = candidate < source.ptr[sample + 1][:, None]
        candidate = torch.where(valid, candidate, 0)
        if self.within:
            valid &= candidate != torch.arange(len(y), device=x.device)[:, None]
        similarity = (query[:, None] * key[candidate]).sum(2)
        best = similarity.masked_fill(~valid, -torch.inf).argsort(dim=1, descending=True, stable=True)[:, : self.k]
        kept = valid.gather(1, best)
        here = torch.arange(len(y), device=x.device)[:, None].expand_as(best)[kept]
        edges = torch.stack([candidate.gather(1, best)[kept], here])
        return edges, similarity.gather(1, best)[kept][:, None]
