"""Joint training with a shared trunk: one Transformer reads every modality, each by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from graphfusion.fusion.fused_graph import FusedGraph, in_order
from graphfusion.fusion.strategy import TokenFusion, two_layers
from graphfusion.graph_builder import GraphBatch, GraphBuilder
from graphfusion.nn import TransformerLayer, TypedModules, self_plan


class SharedTrunkFusion(TokenFusion):
    """`layers` Transformer layers whose weights all modalities share (Akbari et al. 2021, VATT, modality-agnostic), run
    over the tokens of each modality by itself: H_m = T(X_m); then a layer of its own for each modality, a readout, and two layers
    on all readouts. `feedforward`: hidden width of the trunk's layers; 0 for 4 · dim.

    Absent modality: no tokens; its readout is a learned vector.
    """

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
        super().__init__(builder, dim, **settings)
        self.trunk = nn.ModuleList(TransformerLayer(dim, heads, feedforward, dropout) for _ in range(layers))
        self.own = TypedModules({name: two_layers(dim, dim, dropout) for name in self.types})
        self.norms = TypedModules({name: nn.LayerNorm(dim) for name in self.types})
        self.add_unifier(dim, heads, **settings)

    def forward(self, batch: GraphBatch, features: Mapping[str, Tensor]) -> FusedGraph:
        """features[type] (N, D) → `FusedGraph`."""
        features = in_order(features, self.types)
        x = torch.cat(list(features.values()))
        plan = self_plan(len(x), _one_after_the_other([batch.nodes[name].ptr for name in self.types]))
        for layer in self.trunk:
            x = layer(x, plan)
        parts = x.split([len(h) for h in features.values()])  # type: ignore[no-untyped-call]
        states = {n: self.norms[n](h + self.own[n](h)) for n, h in zip(self.types, parts, strict=True)}
        return self.unify(states, batch)


def _one_after_the_other(ptrs: list[Tensor]) -> Tensor:
    """One `ptr` of the sequences of all types; each type's rows follow those of the type before."""
    counts = torch.cat([ptr.diff() for ptr in ptrs])
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
