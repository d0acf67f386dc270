"""The small network between a representation and logits."""

from __future__ import annotations

from torch import nn


def head(dim: int, outputs: int) -> nn.Module:
    """(B, dim) → (B, outputs)."""
    return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, outputs))
