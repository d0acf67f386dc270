"""Gated fusion."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from graphfusion.fusion.strategy import PooledFusion, map_each
from graphfusion.graph_builder import GraphBuilder
from graphfusion.nn import TypedModules


class GatedFusion(PooledFusion):
    """Gated multimodal unit (Arevalo et al. 2017, Gated multimodal units for information fusion), its form for any number of
    modalities: g_m = tanh(W_m h_m), z_m = σ(U_m [h_1; …; h_M]), h = W Σ_m z_m ∘ g_m.

    Gates are `feedforward` wide (0: 2 · dim). Absent modality: its gate is 0, and the others' gates see its learned vector; h is
    the bias of W where none is there.
    The weight of a modality is the mean of its gate over the width: gates are independent, so weights do not sum to 1.
    """

    weighs = True

    def __init__(
        self, builder: GraphBuilder, dim: int, feedforward: int = 0, dropout: float = 0.0, **settings: Any
    ) -> None:
        super().__init__(builder, dim, **settings)
        width = feedforward or 2 * dim
        self.maps = TypedModules({m: nn.Linear(dim, width) for m in self.modalities})
        self.gates = nn.Linear(dim * len(self.modalities), width * len(self.modalities))
        self.back = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, dim))

    def join(self, vectors: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """See `PooledFusion`."""
        mapped = map_each(self.maps, vectors)
        gate = self.gates(vectors.flatten(1)).sigmoid().view_as(mapped) * present[:, :, None]
        return self.back((gate * mapped.tanh()).sum(1)), gate.mean(2)
