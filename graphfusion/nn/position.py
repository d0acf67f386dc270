"""Where a token stands, as a vector."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def sinusoids(position: Tensor, dim: int) -> Tensor:
    """(N, P) integer positions → (N, dim) sines and cosines of falling frequency (Vaswani et al. 2017, section 3.5),
    each coordinate in its own `dim // P` columns; columns left over are 0.
    """
    coordinates = position.shape[1]
    half = dim // (2 * coordinates)
    rate = torch.exp(torch.arange(half, device=position.device) * (-math.log(10_000.0) / max(half, 1)))
    angle = position[:, :, None].to(rate.dtype) * rate  # (N, P, half)
    waves = torch.cat([angle.sin(), angle.cos()], dim=2).flatten(1)
    return nn.functional.pad(waves, (0, dim - waves.shape[1]))


class PositionEncoding(nn.Module):
    """Adds a learned linear map of the sinusoids of the position: (N, dim), (N, P) → (N, dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.linear = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = x + self.linear(sinusoids(position, self.dim).to(x.dtype))
        return out
