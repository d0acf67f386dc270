"""A recurrent network for each modality: the text classifier of before the Transformer, and its kin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from graphfusion.fusion.fused_graph import FusedGraph, in_order
from graphfusion.fusion.strategy import FusionStrategy, learned_absences
from graphfusion.graph_builder import GraphBatch, GraphBuilder
from graphfusion.nn import TypedModules, run_recurrent


class LSTMFusion(FusionStrategy):
    """A bidirectional LSTM (Hochreiter & Schmidhuber 1997; Graves & Schmidhuber 2005) over the tokens of each modality; the
    last states of both directions give the modality's vector, v_m = W_m [h→; h←], and h = W GELU([v_1; …; v_M]). With one text
    column it is the LSTM text classifier. `feedforward`: width of a direction; 0 for dim.

    Absent modality: its vector is a learned one.
    """

    ignores = ("layers", "heads", "readout")

    def __init__(
        self, builder: GraphBuilder, dim: int, feedforward: int = 0, dropout: float = 0.0, **settings: Any
    ) -> None:
        super().__init__(builder, **settings)
        width = feedforward or dim
        self.dropout = nn.Dropout(dropout)
        self.networks = TypedModules({m: nn.LSTM(dim, width, bidirectional=True) for m in self.modalities})
        self.maps = TypedModules({m: nn.Linear(2 * width, dim) for m in self.modalities})
        self.absent = learned_absences(len(self.modalities), dim)
        self.join = nn.Linear(dim * len(self.modalities), dim)

    def forward(self, batch: GraphBatch, features: Mapping[str, Tensor]) -> FusedGraph:
        """features[type] (N, D) → `FusedGraph`."""
        states = in_order(features, self.types)
        readouts = {}
        for m, own, there in zip(self.modalities, self.absent, self.present(batch).unbind(1), strict=True):
            each, last = run_recurrent(self.networks[m], self.dropout(states[m]), batch.nodes[m].ptr)  # type: ignore[arg-type]
            states[m], vector = self.maps[m](each), self.maps[m](last)
            readouts[m] = torch.where(there[:, None], vector, own.to(vector.dtype))
        joined = nn.functional.gelu(torch.cat(list(readouts.values()), dim=1))
        return FusedGraph(states, readouts, self.join(joined))
