"""Encoders of tokens that are ids: words, hub nodes."""

from __future__ import annotations

from torch import Tensor, nn

from graphfusion.graph_builder import NodeStore
from graphfusion.nn import PositionEncoding


class EmbeddingEncoder(nn.Module):
    """A learned vector per id, with the position: ids (N,) below `size` → (N, dim)."""

    def __init__(self, dim: int, size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, dim)
        self.position = PositionEncoding(dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, nodes: NodeStore) -> Tensor:
        """See the class."""
        out: Tensor = self.norm(self.position(self.embedding(nodes.values), nodes.position))
        return out
