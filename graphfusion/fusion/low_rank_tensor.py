"""Low-rank tensor fusion."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphfusion.fusion.strategy import PooledFusion, from_one
from graphfusion.graph_builder import GraphBuilder
from graphfusion.nn import TypedModules


class LowRankTensorFusion(PooledFusion):
    """h = W Σ_r v_r ∘_m (W_m^(r) [h_m; 1]) (Liu et al. 2018, Efficient low-rank multimodal fusion with modality-specific
    factors): a linear map, whose weights have rank `rank` (4), of the tensor [h_1; 1] ⊗ … ⊗ [h_M; 1], which is not made. (That of
    `TensorFusion` is of narrower z_m.)

    The product is `feedforward` wide (0: 2 · dim). Absent modality: its factor is that of [0; 1], so that the others' products
    stay.

    Raises:
        ConfigError: `rank` is below 1.
    """

    leaves_out = True
    checks: ClassVar = {"rank": from_one}

    def __init__(
        self,
        builder: GraphBuilder,
        dim: int,
        feedforward: int = 0,
        dropout: float = 0.0,
        rank: int = 4,
        **settings: Any,
    ) -> None:
        super().__init__(builder, dim, **settings)
        from_one("rank", rank)
        self.rank, self.width = rank, feedforward or 2 * dim
        self.factors = TypedModules({m: nn.Linear(dim, rank * self.width) for m in self.modalities})
        for factor in self.factors.parts:  # products of small numbers would vanish
            nn.init.ones_(factor.bias)  # type: ignore[arg-type]
        self.rank_weight = nn.Parameter(torch.full((rank,), rank**-0.5))
        self.back = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.width, dim))

    def join(self, vectors: Tensor, present: Tensor) -> tuple[Tensor, None]:
        """See `PooledFusion`."""
        product = vectors.new_ones(1)
        for f, h, there in zip(self.factors.parts, vectors.unbind(1), present.unbind(1), strict=True):
            # products of half precision would leave its range
            product = product * f(h * there[:, None]).to(self.rank_weight.dtype).view(-1, self.rank, self.width)
        return self.back((self.rank_weight[:, None] * product).sum(1)), None
