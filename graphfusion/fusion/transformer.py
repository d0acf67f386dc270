"""A dense Transformer over the tokens of all modalities, without a graph: what most multimodal models are."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from graphfusion.fusion.fused_graph import FusedGraph, in_order
from graphfusion.graph_builder import EdgeType, GraphBatch, GraphBuilder
from graphfusion.nn import READOUTS, TypedModules


class TransformerFusion(nn.Module):
    """All tokens of a sample as one sequence, a learned vector added for each modality, `layers` pre-norm Transformer
    layers (Vaswani et al. 2017; Xiong et al. 2020) in which every token attends to every other; then readouts as in the
    graph engine. Edges are not looked at; hub nodes take part as further tokens. Absent modality: its readout is a learned
    vector. `feedforward`: width of the hidden layer; 0 for 4 · dim.
    """

    def __init__(
        self,
        builder: GraphBuilder,
        dim: int,
        layers: int = 2,
        heads: int = 4,
        attention: str | Mapping[EdgeType, str] = "gatv2",
        readout: str = "attention",
        dropout: float = 0.0,
        feedforward: int = 0,
    ) -> None:
        super().__init__()
        types = self.types = tuple(builder.node_types)
        self.modality = nn.Parameter(0.02 * torch.randn(len(types), dim))
        options = {"dropout": dropout, "activation": "gelu", "batch_first": True, "norm_first": True}
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(dim, heads, feedforward or 4 * dim, **options)  # type: ignore[arg-type]
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)
        kind = READOUTS["mean" if readout == "hub" else readout]
        self.readouts = TypedModules({name: kind(dim, heads) for name in types})
        self.join = nn.Sequential(nn.Linear(dim * len(types), 8 * dim), nn.GELU(), nn.Linear(8 * dim, dim))

    def forward(self, batch: GraphBatch, features: Mapping[str, Tensor]) -> FusedGraph:
        """features[type] (N, D) → `FusedGraph`."""
        features = in_order(features, self.types)
        ptrs = [batch.nodes[name].ptr for name in self.types]
        counts = torch.stack([ptr.diff() for ptr in ptrs])  # (types, B)
        before = counts.cumsum(0) - counts
        rows, columns = [], []
        for ptr, first in zip(ptrs, before, strict=True):
            sample = torch.repeat_interleave(torch.arange(len(first), device=ptr.device), ptr.diff())
            rows.append(sample)
            columns.append(torch.arange(len(sample), device=ptr.device) - ptr[sample] + first[sample])
        states = self._attend(list(features.values()), rows, columns, counts.sum(0))
        found = dict(zip(self.types, states, strict=True))
        readouts = {name: self.readouts[name](h, batch.nodes[name].ptr) for name, h in found.items()}
        return FusedGraph(found, readouts, self.join(torch.cat(list(readouts.values()), dim=1)))

    def _attend(self, parts: list[Tensor], rows: list[Tensor], columns: list[Tensor], lengths: Tensor) -> list[Tensor]:
        """Node states of each type after all layers; node n of a type is token (rows[n], columns[n])."""
        longest = max(1, int(lengths.max()))
        tokens = torch.cat([part + self.modality[t] for t, part in enumerate(parts)])
        place = torch.cat(rows), torch.cat(columns)
        padded = tokens.new_zeros(len(lengths), longest, tokens.shape[1]).index_put(place, tokens)
        # a sample without any token attends to one row of zeros, which nothing reads
        empty = torch.arange(longest, device=lengths.device) >= lengths.clamp(min=1)[:, None]
        for layer in self.layers:
            padded = layer(padded, src_key_padding_mask=empty)
        return list(self.norm(padded[place]).split([len(part) for part in parts]))
