"""A number on a continuous scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graphfusion.errors import SchemaError
from graphfusion.fusion import FusedGraph
from graphfusion.tasks.head import head
from graphfusion.tasks.prediction import Prediction


class RegressionTask(nn.Module):
    """Squared error of the target standardised with `mean` and `deviation` of the training rows."""

    primary = "r2"

    def __init__(self, name: str, dim: int, mean: float, deviation: float) -> None:
        super().__init__()
        self.name = name
        self.mean, self.deviation = mean, deviation
        self.head = head(dim, 1)

    def encode(self, labels: Sequence[Any]) -> Tensor:
        """(B,) float64 in the target's own units, NaN where the cell is None; SchemaError for what is no number."""
        return torch.tensor([math.nan if v is None else to_number(v, self.name) for v in labels], dtype=torch.float64)

    def forward(self, fused: FusedGraph) -> Tensor:
        """Standardised value (B,)."""
        value: Tensor = self.head(fused.unified)[:, 0]
        return value

    def known(self, target: Tensor) -> Tensor:
        """(B,) whether a sample has a value."""
        return ~target.isnan()

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean squared error in standard units over the samples whose value is known; 0 if there is none."""
        known = self.known(target)
        if not known.any():
            return logits.sum() * 0.0
        standard = ((target[known] - self.mean) / self.deviation).to(logits.dtype)
        return nn.functional.mse_loss(logits[known], standard)

    def predict(self, logits: Tensor) -> Prediction:
        """Values in the target's own units."""
        return Prediction((logits.double() * self.deviation + self.mean).cpu().tolist())

    def metrics(self, logits: Tensor, target: Tensor) -> dict[str, Any]:
        """r2, mae and rmse, the last two in the target's own units."""
        from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

        known = self.known(target)
        truth = target[known].double().numpy()
        guess = (logits[known].double() * self.deviation + self.mean).numpy()
        if not len(truth):
            return {}
        return {
            "r2": float(r2_score(truth, guess)) if len(truth) > 1 else math.nan,
            "mae": float(mean_absolute_error(truth, guess)),
            "rmse": math.sqrt(mean_squared_error(truth, guess)),
        }


def to_number(cell: Any, name: str) -> float:
    """A finite number; SchemaError naming the target otherwise."""
    try:
        value = float(cell)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise SchemaError(
            f"target {name!r}: expected a finite number, got {str(cell)[:40]!r}; leave the cell empty if it is unknown."
        )
    return value
