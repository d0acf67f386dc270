"""Joint training with a shared trunk: one Transformer reads every modality, each by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    on all readouts. `feedforward`: hidden width of the trunk's layers; 0 for 4 · dim. `shared=False` gives each modality a trunk
    of its own, to see what sharing saves and costs.

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
        shared: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(builder, **settings)

        def trunk() -> nn.ModuleList:
            return nn.ModuleList(TransformerLayer(dim, heads, feedforward, dropout) for _ in range(layers))

        self.shared = shared
        self.trunk: Any = trunk() if shared else TypedModules({name: trunk() for name in self.types})
        self.own = TypedModules({name: two_layers(dim, dim, dropout) for name in self.types})
        self.norms = TypedModules({name: nn.LayerNorm(dim) for name in self.types})
        self.add_unifier(dim, heads, **settings)

    def forward(self, batch: GraphBatch, features: Mapping[str, Tensor]) -> FusedGraph:
        """features[type] (N, D) → `FusedGraph`."""
        features = in_order(features, self.types)
        ptrs = [batch.nodes[name].ptr for name in self.types]
        if self.shared:
            read = _through(self.trunk, torch.cat(list(features.values())), ptrs)
            parts = read.split([len(h) for h in features.values()])  # type: ignore[no-untyped-call]
        else:
            parts = [_through(self.trunk[n], x, [ptr]) for (n, x), ptr in zip(features.items(), ptrs, strict=True)]
        states = {n: self.norms[n](h + self.own[n](h)) for n, h in zip(self.types, parts, strict=True)}
        return self.unify(states, batch)


def _through(trunk: Iterable[nn.Module], x: Tensor, ptrs: list[Tensor]) -> Tensor:
    plan = self_plan(len(x), _one_after_the_other(ptrs))
    for layer in trunk:
        x = layer(x, plan)
    return x


def _one_after_the_other(ptrs: list[Tensor]) -> Tensor:
    """One `ptr` of the sequences of all types; each type's rows follow those of the type before."""
    counts = torch.cat([ptr.diff() for ptr in ptrs])
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
