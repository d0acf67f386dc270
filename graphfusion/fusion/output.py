"""Output fusion: each modality answers by itself, and the answers are joined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from graphfusion.fusion.fused_graph import FusedGraph, in_order
from graphfusion.fusion.strategy import FusionStrategy, equal_shares, two_layers
from graphfusion.graph_builder import GraphBatch, GraphBuilder
from graphfusion.nn import TypedModules


class OutputFusion(FusionStrategy):
    """y = Σ_m β_m y_m with β = 1 / M over logits or numbers (a logarithmic opinion pool; product rule of Kittler et al. 1998, On
    combining classifiers): a readout and two layers of its own for each modality, `feedforward` wide (0: 4 · dim), and an answer
    from each. The task joins them (`VotingTask`); each learns from its own loss alone.

    Absent modality: it has no answer, the other β are scaled up to sum 1. `unified` is the mean over the modalities that are
    there, for embeddings; no answer is made from it, and `weights` are those of this mean (`modality_weights` of a predictor has
    β).
    """

    leaves_out = True
    weighs = True
    ignores = ("layers",)
    vote = "average"

    def __init__(
        self, builder: GraphBuilder, dim: int, dropout: float = 0.0, feedforward: int = 0, **settings: Any
    ) -> None:
        super().__init__(builder, **settings)
        self.add_readouts(dim, **settings)
        self.maps = TypedModules({m: two_layers(dim, feedforward or 4 * dim, dropout) for m in self.modalities})

    def forward(self, batch: GraphBatch, features: Mapping[str, Tensor]) -> FusedGraph:
        """features[type] (N, D) → `FusedGraph`, its states the encoders' features, its weights equal."""
        features = in_order(features, self.types)
        readouts = self.read(features, batch)
        for m in self.modalities:
            there = (batch.nodes[m].ptr.diff() > 0)[:, None]
            readouts[m] = (readouts[m] + self.maps[m](readouts[m])) * there
        vectors = torch.stack([readouts[m] for m in self.modalities], dim=1)
        equal = equal_shares(self.present(batch), vectors)
        unified = (equal[:, :, None] * vectors).sum(1)
        return FusedGraph(features, readouts, unified, dict(zip(self.modalities, equal.unbind(1), strict=True)))


class SoftVoteFusion(OutputFusion):
    """`OutputFusion` by the mean of probabilities: p = Σ_m p_m / M (soft vote; sum rule of Kittler et al. 1998); of a number,
    which has none, `output_average`. Absent modality: the mean is over the others.
    """

    vote = "soft"


class HardVoteFusion(OutputFusion):
    """`OutputFusion` by the most frequent answer: argmax_c Σ_m 1[y_m = c] (majority vote: Kittler et al. 1998); even votes go to
    the larger mean probability. Absent modality: it has no vote.

    Raises:
        ConfigError: a target is a number (from its task, once the table is read).
    """

    vote = "hard"


class WeightedVoteFusion(OutputFusion):
    """`OutputFusion` by p = Σ_m β_m p_m (linear opinion pool: Stone 1961), β on the simplex fitted on validation rows when the
    fit ends (stacking: Wolpert 1992). Absent modality: it has no answer, the other β are scaled up to sum 1.

    Raises:
        ConfigError: a fit has no validation rows (from `FusionPredictor.fit`).
    """

    vote = "weighted"
