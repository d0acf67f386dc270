"""Concatenation of modality vectors, without a graph: the baseline that every fusion claim stands beside."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from graphfusion.fusion.fused_graph import FusedGraph, in_order
from graphfusion.graph_builder import EdgeType, GraphBatch, GraphBuilder
from graphfusion.nn import READOUTS, TypedModules


class ConcatFusion(nn.Module):
    """A readout per node type straight from the encoders, joined by `layers` hidden layers (feature fusion by concat
    and linear), each `feedforward` wide (0: 2 · dim). Edges are not looked at. Absent modality: its readout is a learned vector.
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
        kind = READOUTS["mean" if readout == "hub" else readout]
        self.readouts = TypedModules({name: kind(dim, heads) for name in types})
        wide = feedforward or 2 * dim
        hidden = [nn.Sequential(nn.Linear(wide, wide), nn.GELU(), nn.Dropout(dropout)) for _ in range(layers - 1)]
        self.join = nn.Sequential(nn.Linear(dim * len(types), wide), nn.GELU(), *hidden, nn.Linear(wide, dim))

    def forward(self, batch: GraphBatch, features: Mapping[str, Tensor]) -> FusedGraph:
        """features[type] (N, D) → `FusedGraph`, its states the encoders' features."""
        features = in_order(features, self.types)
        readouts = {name: self.readouts[name](h, batch.nodes[name].ptr) for name, h in features.items()}
        return FusedGraph(features, readouts, self.join(torch.cat(list(readouts.values()), dim=1)))
