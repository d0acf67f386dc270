"""A text that asks the other modalities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from graphfusion.errors import ConfigError, unknown_name
from graphfusion.fusion.fused_graph import FusedGraph, in_order
from graphfusion.fusion.strategy import FusionStrategy, equal_shares, two_layers
from graphfusion.graph_builder import GraphBatch, GraphBuilder
from graphfusion.nn import DotAttention, Packing, cross_plan


class CrossAttentionFusion(FusionStrategy):
    """c_i = W Σ_j softmax_j(q_i · k_j / √C) v_j + b over the tokens j of all other modalities, for each token i of the query
    modality, tokens normed first; s = pool(x_i + c_i); h = s + MLP(s) (scaled dot
    attention: Vaswani et al. 2017; between a text and an image encoder: Lu et al. 2019, ViLBERT, one direction). The query
    modality is the first text, or the first of all where there is none, unless `query` names it. `feedforward`: hidden width of
    the MLP; 0 for 2 · dim. With the attention readout, pool weighs x_i + c_i; with the mean it is mean x + mean c.

    Absent modality: no tokens to attend to. Where that of the query is absent, s is the mean of the readouts of those that are
    there; 0 where none is. What reads the others out then has learned from such rows alone: train with
    `modality_dropout` where the query may be withheld.

    Raises:
        ConfigError: `query` is no modality.
    """

    leaves_out = True
    ignores = ("layers",)

    def __init__(
        self,
        builder: GraphBuilder,
        dim: int,
        heads: int = 4,
        dropout: float = 0.0,
        feedforward: int = 0,
        query: str = "",
        **settings: Any,
    ) -> None:
        super().__init__(builder, **settings)
        self.add_readouts(dim, heads, **settings)
        texts = [name for name in self.modalities if builder.node_types[name].kind == "text"]
        if query and query not in self.modalities:
            raise ConfigError(f"fusion_options.query: {unknown_name('modality', query, self.modalities)}")
        self.query = query or (texts or list(self.modalities))[0]
        self.others = tuple(name for name in self.modalities if name != self.query)
        self.attention = DotAttention(dim, heads, dropout=dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.join = two_layers(dim, feedforward or 2 * dim, dropout)

    def forward(self, batch: GraphBatch, features: Mapping[str, Tensor]) -> FusedGraph:
        """features[type] (N, D) → `FusedGraph`; the states of the query modality hold their context."""
        features = in_order(features, self.types)
        states = dict(features)
        if self.others:
            packing = Packing.of([batch.nodes[name] for name in self.others])
            context = self.norms[1](packing.pack([features[name] for name in self.others]))
            x, ptr = features[self.query], batch.nodes[self.query].ptr
            plan = cross_plan(len(x), ptr, len(context), packing.ptr)
            states[self.query] = x + self.attention(self.norms[0](x), context, plan)
        readouts = self.read(states, batch)
        pooled = self._pooled(readouts, self.present(batch))
        return FusedGraph(states, readouts, pooled + self.join(pooled))

    def _pooled(self, readouts: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """What is pooled (B, D), from readouts (B, D) and what is present (B, M)."""
        own = readouts[self.query]
        if not self.others:
            return own
        there = present[:, [self.modalities.index(name) for name in self.others]]
        rest = (equal_shares(there, own)[..., None] * torch.stack([readouts[name] for name in self.others], dim=1)).sum(
            1
        )
        by_others = there.any(1) & ~present[:, self.modalities.index(self.query)]
        return torch.where(by_others[:, None], rest, own)
