"""Attention over modalities: which of them counts is chosen anew for each sample."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from graphfusion.fusion.strategy import PooledFusion, map_each, shares, two_layers
from graphfusion.graph_builder import GraphBuilder
from graphfusion.nn import TypedModules


class ModalityAttentionFusion(PooledFusion):
    """h = Σ_m a_m norm(f_m(h_m)) with a = softmax_m(q · k_m / √D), q = Q [h_1; …; h_M], k_m = K_m h_m: the query depends on the
    sample, so the weights do too (scaled dot product: Vaswani et al. 2017; over modalities: Hori et al. 2017,
    Attention-based multimodal fusion for video description). f_m are two layers, `feedforward` wide (0: 2 · dim); norm is a layer
    norm without parameters, so that a, not the scale of f_m, is the coefficient of the sum (see `WeightedSumFusion`).

    Absent modality: left out of the softmax; the query sees its learned vector. h = 0 where none is there.
    """

    weighs = True

    def __init__(
        self, builder: GraphBuilder, dim: int, feedforward: int = 0, dropout: float = 0.0, **settings: Any
    ) -> None:
        super().__init__(builder, dim, **settings)
        self.query = nn.Linear(dim * len(self.modalities), dim)
        self.keys = TypedModules({m: nn.Linear(dim, dim) for m in self.modalities})
        self.maps = TypedModules({m: two_layers(dim, feedforward or 2 * dim, dropout) for m in self.modalities})
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)

    def join(self, vectors: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """See `PooledFusion`; the weights are a."""
        key = map_each(self.keys, vectors)
        score = (self.query(vectors.flatten(1))[:, None] * key).sum(2) / key.shape[2] ** 0.5
        weight = shares(score, present)
        return (weight[:, :, None] * self.norm(map_each(self.maps, vectors))).sum(1), weight
