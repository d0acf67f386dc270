"""Encoder of tokens that are vectors already: precomputed features, flat patches, flat frames."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from graphfusion.graph_builder import NodeStore
from graphfusion.nn import PositionEncoding


class LinearEncoder(nn.Module):
    """A linear map of each token's flat values, with the position: (N, *shape) → (N, dim)."""

    def __init__(self, dim: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.linear = nn.Linear(math.prod(shape), dim)
        self.position = PositionEncoding(dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, nodes: NodeStore) -> Tensor:
        """See the class."""
        values = nodes.values.flatten(1) if nodes.values.dim() > 1 else nodes.values[:, None]
        out: Tensor = self.norm(self.position(self.linear(values), nodes.position))
        return out
