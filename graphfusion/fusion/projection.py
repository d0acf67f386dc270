"""Projection to one space."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from graphfusion.fusion.strategy import PooledFusion, equal_shares, map_each
from graphfusion.graph_builder import GraphBuilder
from graphfusion.nn import TypedModules


class ProjectionFusion(PooledFusion):
    """h = W mean_m(W_m h_m): a linear map of each modality into one space of `feedforward` dimensions (0: 4 · dim), the mean
    there, and a linear map back (linear joint embedding, as in Weston et al. 2011, WSABIE). No non-linearity: more width than
    `dim` adds parameters but no functions. Absent modality: the mean is over the others; h is the bias of W where there are none.
    """

    leaves_out = True

    def __init__(
        self, builder: GraphBuilder, dim: int, feedforward: int = 0, dropout: float = 0.0, **settings: Any
    ) -> None:
        super().__init__(builder, dim, **settings)
        width = feedforward or 4 * dim
        self.maps = TypedModules({m: nn.Linear(dim, width) for m in self.modalities})
        self.back = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, dim))

    def join(self, vectors: Tensor, present: Tensor) -> tuple[Tensor, None]:
        """See `PooledFusion`."""
        mapped = map_each(self.maps, vectors)
        return self.back((equal_shares(present, mapped)[:, :, None] * mapped).sum(1)), None
