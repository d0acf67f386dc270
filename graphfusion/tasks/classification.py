"""One of several classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graphfusion.errors import SchemaError, unknown_name
from graphfusion.fusion import FusedGraph
from graphfusion.tasks.head import head
from graphfusion.tasks.labels import plain_label
from graphfusion.tasks.prediction import Prediction

UNKNOWN = -1
"""Encoded target of a sample whose label is missing; it takes no part in loss or metrics."""

UNSEEN = -2
"""Encoded target of a sample whose label is none of the classes: no answer is right, and no loss is taken."""


class ClassificationTask(nn.Module):
    """Cross-entropy over `classes` from the unified representation.

    Raises:
        SchemaError: fewer than two classes.
    """

    primary = "accuracy"

    def __init__(self, name: str, dim: int, classes: Sequence[Any], label_smoothing: float = 0.0) -> None:
        super().__init__()
        if len(classes) < 2:
            raise SchemaError(
                f"target {name!r}: a class target needs two classes, the training rows have {list(classes)}."
            )
        self.name = name
        self.classes = tuple(classes)
        self.index = {c: i for i, c in enumerate(self.classes)}
        self.label_smoothing = label_smoothing
        self.head = head(dim, len(self.classes))

    def encode(self, labels: Sequence[Any]) -> Tensor:
        """(B,) int64 index of each label, `UNKNOWN` where it is None; SchemaError for a label of no class."""
        return torch.tensor([self._index(label) for label in labels], dtype=torch.int64)

    def encode_unseen(self, labels: Sequence[Any]) -> Tensor:
        """The same, with `UNSEEN`, `UNSEEN` − 1 … for labels of no class, a number each."""
        strange: dict[Any, int] = {}
        found = []
        for label in labels:
            index = self._index(label, UNSEEN)
            if index == UNSEEN:
                index = strange.setdefault(plain_label(label, self.name), UNSEEN - len(strange))
            found.append(index)
        return torch.tensor(found, dtype=torch.int64)

    def _index(self, label: Any, unseen: int | None = None) -> int:
        """Number of a label's class, `unseen` if it has none; SchemaError if that is None or it can be no label."""
        if label is None:
            return UNKNOWN
        found = self.index.get(plain_label(label, self.name), unseen)
        if found is None:
            raise SchemaError(
                f"target {self.name!r}: {unknown_name('class', label, map(str, self.classes))} The model was fitted without "
                "it: add rows of it to the training table, or evaluate with unseen='wrong'."
            )
        return found

    def forward(self, fused: FusedGraph) -> Tensor:
        """Logits (B, classes)."""
        logits: Tensor = self.head(fused.unified)
        return logits

    def known(self, target: Tensor) -> Tensor:
        """(B,) whether a sample has a label to learn from."""
        return target >= 0

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy over the samples whose label is known, with smoothed labels in training; 0 if there is none."""
        known = self.known(target)
        if not known.any():
            return logits.sum() * 0.0
        smoothing = self.label_smoothing if self.training else 0.0
        return nn.functional.cross_entropy(logits[known], target[known], label_smoothing=smoothing)

    def predict(self, logits: Tensor) -> Prediction:
        """Most probable class of each sample."""
        probability = logits.float().softmax(dim=1).cpu().numpy()
        return Prediction([self.classes[i] for i in probability.argmax(axis=1)], probability)

    def metrics(self, logits: Tensor, target: Tensor) -> dict[str, Any]:
        """accuracy, macro_f1, weighted_f1, and per_class: class → precision, recall, f1, count.

        A label of no class is answered wrongly: averages of F1 count each as a class with F1 = 0, and `per_class` has their
        rows together as `(unseen)`.
        """
        from sklearn.metrics import precision_recall_fscore_support

        known = (target != UNKNOWN).numpy()
        truth, guess = target.numpy()[known], logits.argmax(dim=1).numpy()[known]
        if not len(truth):
            return {}
        every = [*range(len(self.classes)), *sorted({t for t in truth.tolist() if t < 0})]
        scores = precision_recall_fscore_support(truth, guess, labels=every, zero_division=0.0)
        held = scores[3] > 0  # macro: over the classes that the rows have
        strange = int(scores[3][len(self.classes) :].sum())
        unseen = {"(unseen)": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "count": strange}} if strange else {}
        return {
            "accuracy": float((truth == guess).mean()),
            "macro_f1": float(scores[2][held].mean()) if held.any() else 0.0,
            "weighted_f1": float(np.average(scores[2], weights=scores[3])) if held.any() else 0.0,
            "per_class": {
                str(c): {"precision": float(p), "recall": float(r), "f1": float(f), "count": int(n)}
                for c, p, r, f, n in zip(self.classes, *(s[: len(self.classes)] for s in scores), strict=True)
            }
            | unseen,
        }
