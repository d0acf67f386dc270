"""Any number of labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graphfusion.errors import SchemaError, unknown_name
from graphfusion.fusion import FusedGraph
from graphfusion.tasks.head import head
from graphfusion.tasks.labels import split_labels
from graphfusion.tasks.prediction import Prediction


class MultiLabelTask(nn.Module):
    """Binary cross-entropy for each of `classes` from the unified representation.

    Raises:
        SchemaError: no class.
    """

    primary = "micro_f1"

    def __init__(self, name: str, dim: int, classes: Sequence[Any], separator: str = "|") -> None:
        super().__init__()
        if not classes:
            raise SchemaError(f"target {name!r}: the training rows have no label at all.")
        self.name = name
        self.classes = tuple(classes)
        self.separator = separator
        self.index = {c: i for i, c in enumerate(self.classes)}
        self.head = head(dim, len(self.classes))

    def encode(self, labels: Sequence[Any]) -> Tensor:
        """(B, classes) of 0 and 1, NaN where the cell is None (unknown, which is not the same as no label);
        SchemaError for one that holds what is none of the classes.
        """
        target = torch.zeros(len(labels), len(self.classes))
        for row, cell in enumerate(labels):
            if cell is None:
                target[row] = torch.nan
            for label in split_labels(cell, self.separator, self.name):
                if label not in self.index:
                    raise SchemaError(f"target {self.name!r}: {unknown_name('label', label, map(str, self.classes))}")
                target[row, self.index[label]] = 1.0
        return target

    def forward(self, fused: FusedGraph) -> Tensor:
        """Logits (B, classes)."""
        logits: Tensor = self.head(fused.unified)
        return logits

    def known(self, target: Tensor) -> Tensor:
        """(B,) whether a sample's labels are known."""
        return ~target.isnan().any(dim=1)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean binary cross-entropy over the samples whose labels are known; 0 if there is none."""
        known = self.known(target)
        if not known.any():
            return logits.sum() * 0.0
        return nn.functional.binary_cross_entropy_with_logits(logits[known], target[known])

    def predict(self, logits: Tensor) -> Prediction:
        """The labels with a probability of at least one half."""
        probability = logits.float().sigmoid().cpu().numpy()
        return Prediction(
            [[c for c, p in zip(self.classes, row, strict=True) if p >= 0.5] for row in probability], probability
        )

    def metrics(self, logits: Tensor, target: Tensor) -> dict[str, Any]:
        """micro_f1, macro_f1, exact (share of samples with all labels right), and per_class: label → f1, count."""
        from sklearn.metrics import f1_score

        known = self.known(target)
        truth, guess = target[known].int().numpy(), (logits[known] >= 0).int().numpy()
        if not len(truth):
            return {}
        each = [f1_score(truth[:, i], guess[:, i], zero_division=0.0) for i in range(truth.shape[1])]
        return {
            "micro_f1": float(f1_score(truth.ravel(), guess.ravel(), zero_division=0.0)),
            "macro_f1": float(np.mean(each)),
            "exact": float((truth == guess).all(axis=1).mean()),
            "per_class": {
                str(c): {"f1": float(f), "count": int(n)}
                for c, f, n in zip(self.classes, each, truth.sum(axis=0), strict=True)
            },
        }
