"""Concatenation of modality vectors, without a graph: the baseline that every fusion claim stands beside."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from graphfusion.fusion.strategy import PooledFusion
from graphfusion.graph_builder import GraphBuilder


class ConcatFusion(PooledFusion):
    """h = MLP([h_1; …; h_M]): a readout per modality straight from the encoders, joined by `layers` hidden layers (0: a linear
    map), each `feedforward` wide (0: 2 · dim) (early fusion by concatenation: Ngiam et al. 2011, Multimodal deep learning;
    Baltrušaitis et al. 2019). Absent modality: its readout is a learned vector.
    """

    ignores = ()

    def __init__(
        self,
        builder: GraphBuilder,
        dim: int,
        layers: int = 2,
        dropout: float = 0.0,
        feedforward: int = 0,
        **settings: Any,
    ) -> None:
        super().__init__(builder, dim, **settings)
        widths = [dim * len(self.modalities), *[feedforward or 2 * dim] * layers]
        hidden = [nn.Sequential(nn.Linear(a, b), nn.GELU(), nn.Dropout(dropout)) for a, b in pairwise(widths)]
        self.mlp = nn.Sequential(*hidden, nn.Linear(widths[-1], dim))

    def join(self, vectors: Tensor, present: Tensor) -> tuple[Tensor, None]:
        """See `PooledFusion`."""
        return self.mlp(vectors.flatten(1)), None
