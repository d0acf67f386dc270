"""Feature fusion by a weighted sum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphfusion.errors import ConfigError
from graphfusion.fusion.strategy import PooledFusion, map_each, shares, two_layers
from graphfusion.graph_builder import HUB, GraphBuilder
from graphfusion.nn import TypedModules
from graphfusion.schema import TABLE


def _check_alpha(name: str, alpha: Mapping[str, float] | None) -> None:
    """ConfigError unless weights are finite, not negative and not all 0."""
    values = [] if alpha is None else list(alpha.values())
    if alpha is not None and (not all(math.isfinite(v) and v >= 0 for v in values) or not sum(values)):
        raise ConfigError(f"fusion_options.{name}: expected weights of 0 or more, not all 0; got {dict(alpha)}.")


class WeightedSumFusion(PooledFusion):
    """h = Σ_m α_m norm(f_m(h_m)), α on the simplex: learned through a softmax, equal at the start, or fixed (joint
    representation by a sum: Baltrušaitis et al. 2019, Multimodal machine learning: a survey and taxonomy).

    f_m are two layers, `feedforward` wide (0: 2 · dim), into a common space; norm is a layer norm without parameters, since
    otherwise f_m could take over the scale and α would say nothing. α is a coefficient of the sum, not what a modality adds to
    the answer: a vector without information may keep a large one, as on CMU-MOSI (`benchmarks/README.md`).

    Absent modality: left out, the other α scaled up to sum 1; h = 0 where none is there.

    Args:
        alpha: fixed weights, modality → weight, scaled to sum 1; None to learn them. A modality of weight 0 counts only where
            all others are absent.

    Raises:
        ConfigError: fixed weights are not one a modality, not finite, negative, or all 0.
    """

    leaves_out = True
    weighs = True
    checks: ClassVar = {"alpha": _check_alpha}

    def __init__(
        self,
        builder: GraphBuilder,
        dim: int,
        feedforward: int = 0,
        dropout: float = 0.0,
        alpha: Mapping[str, float] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(builder, dim, **settings)
        if alpha is not None:
            _check_alpha("alpha", alpha)
            if set(alpha) != set(self.modalities):
                column = " A column of numbers is part of the modality 'table'." if TABLE in self.modalities else ""
                raise ConfigError(
                    f"fusion_options.alpha: expected a weight for each of {', '.join(self.modalities)}; got one for "
                    f"{', '.join(map(str, alpha))}.{column}"
                )
        self.maps = TypedModules({m: two_layers(dim, feedforward or 2 * dim, dropout) for m in self.modalities})
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.score: Tensor
        if alpha is None:
            self.score = nn.Parameter(torch.zeros(len(self.modalities)))
        else:  # shares are a softmax of logarithms; that of a weight of 0 must stay finite
            most = max(alpha.values())
            fixed = torch.tensor([alpha[m] / most for m in self.modalities], dtype=torch.float32)
            self.register_buffer("score", fixed.clamp(min=1e-38).log())

    def join(self, vectors: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """See `PooledFusion`; the weights are α."""
        alpha = shares(self.score, present)
        return (alpha[:, :, None] * self.norm(map_each(self.maps, vectors))).sum(1), alpha


class MeanFusion(WeightedSumFusion):
    """h = 1/M Σ_m norm(f_m(h_m)): `WeightedSumFusion` with equal weights that stay (Baltrušaitis et al. 2019). Absent modality:
    left out of the mean.

    Raises:
        ConfigError: `alpha` is given.
    """

    not_options = ("alpha",)

    def __init__(self, builder: GraphBuilder, dim: int, **settings: Any) -> None:
        if "alpha" in settings:
            raise ConfigError("alpha: those of `mean` are equal; use `weighted_sum` for others.")
        super().__init__(builder, dim, alpha={m: 1.0 for m in builder.node_types if m != HUB}, **settings)
