"""Nodes of one type → one vector a sample, also for a sample that has none.

Letters: `N` nodes, `B` samples, `D` features. A sample without nodes gets `absent`, a learned vector: "there is no sound" must
not look like a silent sound. (Strategies that leave out what is absent put zeros there, which add nothing.)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphfusion.errors import ConfigError
from graphfusion.nn.segment import segment_mean, segment_softmax, segment_sum


class MeanReadout(nn.Module):
    """Mean of a sample's nodes: (N, D), ptr (B + 1,) → (B, D)."""

    def __init__(self, dim: int, heads: int = 1) -> None:
        super().__init__()
        self.absent = nn.Parameter(torch.randn(dim) * 0.02)

    def forward(self, x: Tensor, ptr: Tensor) -> Tensor:
        """See the class."""
        return torch.where((ptr.diff() > 0)[:, None], segment_mean(x, ptr), self.absent.to(x.dtype))


class AttentionReadout(nn.Module):
    """Sum of a sample's nodes, weighted by a softmax of learned scores, a score per head: (N, D), ptr → (B, D).

    Global attention pooling as in Li et al. 2016 (Gated Graph Sequence Neural Networks), with heads.

    Raises:
        ConfigError: a `dim` that `heads` does not divide.
    """

    def __init__(self, dim: int, heads: int = 4) -> None:
        super().__init__()
        if dim % heads:
            raise ConfigError(f"dim: expected a multiple of heads={heads}, got {dim}.")
        self.heads = heads
        self.score = nn.Linear(dim, heads)
        self.value = nn.Linear(dim, dim)
        self.absent = nn.Parameter(torch.randn(dim) * 0.02)

    def forward(self, x: Tensor, ptr: Tensor) -> Tensor:
        """See the class."""
        weight = segment_softmax(self.score(x), ptr)
        values = self.value(x).unflatten(1, (self.heads, -1))
        read = segment_sum(weight[:, :, None] * values, ptr).flatten(1)
        return torch.where((ptr.diff() > 0)[:, None], read, self.absent.to(read.dtype))


class HubReadout(nn.Module):
    """The `hubs` hub nodes of each sample side by side, projected: (B · hubs, D), ptr → (B, D)."""

    def __init__(self, dim: int, hubs: int) -> None:
        super().__init__()
        self.hubs = hubs
        self.linear = nn.Linear(dim * hubs, dim)

    def forward(self, x: Tensor, ptr: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = self.linear(x.reshape(len(ptr) - 1, -1))
        return out


READOUTS: dict[str, type[MeanReadout] | type[AttentionReadout]] = {
    "mean": MeanReadout,
    "attention": AttentionReadout,
}
