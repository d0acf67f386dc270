"""Concatenation of modality vectors, without a graph: the baseline that every fusion claim stands beside."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from graphfusion.fusion.fused_graph import FusedGraph, in_order
from graphfusion.fusion.strategy import FusionStrategy
from graphfusion.graph_builder import GraphBatch, GraphBuilder


class ConcatFusion(FusionStrategy):
    """h = MLP([h_1; …; h_M]): a readout per modality straight from the encoders, joined by `layers` hidden layers (0: a linear
    map), each `feedforward` wide (0: 2 · dim) (early fusion by concatenation: Ngiam et al. 2011, Multimodal deep learning;
    Baltrušaitis et al. 2019). Absent modality: its readout is a learned vector.
    """

    def __init__(
        self,
        builder: GraphBuilder,
        dim: int,
        layers: int = 2,
        dropout: float = 0.0,
        feedforward: int = 0,
        **settings: Any,
    ) -> None:
        super().__init__(builder, **settings)
        self.add_readouts(dim, **settings)
        widths = [dim * len(self.types), *[feedforward or 2 * dim] * layers]
        hidden = [nn.Sequential(nn.Linear(a, b), nn.GELU(), nn.Dropout(dropout)) for a, b in pairwise(widths)]
        self.join = nn.Sequential(*hidden, nn.Linear(widths[-1], dim))

    def forward(self, batch: GraphBatch, features: Mapping[str, Tensor]) -> FusedGraph:
        """features[type] (N, D) → `FusedGraph`, its states the encoders' features."""
        features = in_order(features, self.types)
        readouts = self.read(features, batch)
        return FusedGraph(features, readouts, self.join(torch.cat(list(readouts.values()), dim=1)))
