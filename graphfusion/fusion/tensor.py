"""Tensor fusion: all products of features of different modalities."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from graphfusion.errors import ConfigError
from graphfusion.fusion.strategy import PooledFusion, two_layers
from graphfusion.graph_builder import GraphBuilder
from graphfusion.nn import TypedModules

CELLS = 1024
"""Numbers in the tensor of a sample, about."""


class TensorFusion(PooledFusion):
    """h = MLP(flatten([z_1; 1] ⊗ … ⊗ [z_M; 1])), z_m = GELU(W_m h_m) (Zadeh et al. 2017, Tensor fusion network for multimodal
    sentiment analysis): all products of up to M features, one a modality.

    The tensor grows with a power of M, so z_m is narrow: as wide as about 1,024 numbers allow (31 for two modalities, 9 for
    three). The two layers after it are `feedforward` wide (0: 2 · dim). Absent modality: z_m = 0, which leaves the tensor of
    the others.

    Raises:
        ConfigError: more than ten modalities.
    """

    leaves_out = True

    def __init__(
        self, builder: GraphBuilder, dim: int, feedforward: int = 0, dropout: float = 0.0, **settings: Any
    ) -> None:
        super().__init__(builder, dim, **settings)
        count = len(self.modalities)
        narrow = min(dim, int(round(CELLS ** (1 / count), 6)) - 1)
        if narrow < 1:
            raise ConfigError(f"fusion='tensor': expected at most 10 modalities, got {count}; use 'low_rank_tensor'.")
        self.maps = TypedModules({m: nn.Linear(dim, narrow) for m in self.modalities})
        self.products = two_layers((narrow + 1) ** count, feedforward or 2 * dim, dropout, dim)

    def join(self, vectors: Tensor, present: Tensor) -> tuple[Tensor, None]:
        """See `PooledFusion`."""
        one = vectors.new_ones(len(vectors), 1)
        product = one
        for f, h, there in zip(self.maps.parts, vectors.unbind(1), present.unbind(1), strict=True):
            z = torch.cat([nn.functional.gelu(f(h)).to(one.dtype) * there[:, None], one], dim=1)
            product = (product[:, :, None] * z[:, None]).flatten(1)
        return self.products(product), None
