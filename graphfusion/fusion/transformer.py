"""A dense Transformer over the tokens of all modalities, without a graph: what most multimodal models are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from graphfusion.fusion.fused_graph import FusedGraph, in_order
from graphfusion.fusion.strategy import TokenFusion
from graphfusion.graph_builder import GraphBatch, GraphBuilder
from graphfusion.nn import Packing, TransformerLayer, self_plan


class TransformerFusion(TokenFusion):
    """All tokens of a sample as one sequence, a learned vector added for each modality, `layers` pre-norm Transformer
    layers (Vaswani et al. 2017; Xiong et al. 2020) in which every token attends to every other: a_ij = softmax_j(q_i · k_j /
    √C), ĥ_i = Σ_j a_ij v_j; then readouts as in the graph engine. `feedforward`: width of the hidden layer; 0 for 4 · dim.

    Absent modality: no tokens; its readout is a learned vector.
    """

    scaled = True

    def __init__(
        self,
        builder: GraphBuilder,
        dim: int,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
        feedforward: int = 0,
        **settings: Any,
    ) -> None:
        super().__init__(builder, **settings)
        self.modality = nn.Parameter(0.02 * torch.randn(len(self.types), dim))
        self.layers = nn.ModuleList(
            TransformerLayer(dim, heads, feedforward, dropout, self.scaled) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.add_unifier(dim, heads, **settings)

    def forward(self, batch: GraphBatch, features: Mapping[str, Tensor]) -> FusedGraph:
        """features[type] (N, D) → `FusedGraph`."""
        features = in_order(features, self.types)
        packing = Packing.of([batch.nodes[name] for name in self.types])
        x = packing.pack([h + own for h, own in zip(features.values(), self.modality, strict=True)])
        x = self.norm(self.through(x, packing.ptr))
        return self.unify(dict(zip(self.types, packing.unpack(x), strict=True)), batch)

    def through(self, x: Tensor, ptr: Tensor) -> Tensor:
        """X (N, D), the sequence of each sample from ptr (B + 1,) → (N, D)."""
        plan = self_plan(len(x), ptr)
        for layer in self.layers:
            x = layer(x, plan)
        return x


class DotTransformerFusion(TransformerFusion):
    """`TransformerFusion` with the plain dot product as score: a_ij = softmax_j(q_i · k_j) (Luong et al. 2015). Absent modality:
    no tokens; its readout is a learned vector.
    """

    scaled = False
