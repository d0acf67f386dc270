"""Bilinear fusion of pairs of modalities."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from graphfusion.fusion.strategy import PooledFusion
from graphfusion.graph_builder import GraphBuilder


class BilinearFusion(PooledFusion):
    """h = P Σ_{m<n} tanh(U_mn h_m) ∘ tanh(V_mn h_n) + Σ_m S_m h_m: a low-rank bilinear form of each pair (Kim et al. 2017,
    Hadamard product for low-rank bilinear pooling) beside a linear map of each modality; with one modality, its form with
    itself.

    Forms are `feedforward` wide (0: 2 · dim). Absent modality: its pairs and its map are left out; h is the biases of
    P and S where none is there.
    """

    leaves_out = True

    def __init__(
        self, builder: GraphBuilder, dim: int, feedforward: int = 0, dropout: float = 0.0, **settings: Any
    ) -> None:
        super().__init__(builder, dim, **settings)
        count = len(self.modalities)
        self.pairs = tuple(combinations(range(count), 2)) or ((0, 0),)
        self.width = feedforward or 2 * dim
        self.first = nn.ModuleList(nn.Linear(dim, self.width) for _ in self.pairs)
        self.second = nn.ModuleList(nn.Linear(dim, self.width) for _ in self.pairs)
        self.back = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.width, dim))
        self.alone = nn.Linear(dim * count, dim)

    def join(self, vectors: Tensor, present: Tensor) -> tuple[Tensor, None]:
        """See `PooledFusion`."""
        vectors = vectors * present[:, :, None]
        total = vectors.new_zeros(len(vectors), self.width)
        for (m, n), u, v in zip(self.pairs, self.first, self.second, strict=True):
            both = (present[:, m] & present[:, n])[:, None]
            total = total + both * torch.tanh(u(vectors[:, m])) * torch.tanh(v(vectors[:, n]))
        return self.back(total) + self.alone(vectors.flatten(1)), None
