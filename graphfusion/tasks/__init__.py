"""Head, loss, prediction and metrics of a target, one file a kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from graphfusion.errors import SchemaError
from graphfusion.fusion import FusedGraph
from graphfusion.modalities.tabular import scale_of
from graphfusion.schema import Class, MultiLabel, Target
from graphfusion.tasks.classification import UNKNOWN, ClassificationTask
from graphfusion.tasks.multi_label import MultiLabelTask, split_labels
from graphfusion.tasks.prediction import Prediction
from graphfusion.tasks.regression import RegressionTask, to_number


class Task(Protocol):
    """What every task does; all are torch modules as well."""

    name: str
    primary: str
    """The metric (higher is better) that a fit selects by."""

    def encode(self, labels: Sequence[Any]) -> Tensor:
        """Raw cells → targets with one row a sample; None = unknown."""

    def forward(self, fused: FusedGraph) -> Tensor:
        """Logits."""

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar over the samples whose target is known."""

    def predict(self, logits: Tensor) -> Prediction:
        """Logits → prediction."""

    def metrics(self, logits: Tensor, target: Tensor) -> dict[str, Any]:
        """Scores over the samples whose target is known; logits and targets on the CPU."""


@dataclass(frozen=True)
class TargetScale:
    """Mean and deviation of a number target over the training rows."""

    mean: float
    deviation: float


def learn_target(name: str, spec: Target, cells: Sequence[Any]) -> tuple[Target, TargetScale | None]:
    """The specification completed from the training rows: classes for class targets, the scale of a number.

    Raises:
        SchemaError: no row has the target, or classes are of kinds that do not compare.
    """
    known = [c for c in cells if c is not None]
    if not known:
        raise SchemaError(f"target {name!r}: no training row has a value.")
    if isinstance(spec, Class):
        return (spec if spec.classes else replace(spec, classes=_sorted(set(known), name))), None
    if isinstance(spec, MultiLabel):
        labels = {label for cell in known for label in split_labels(cell, spec.separator)}
        return (spec if spec.classes else replace(spec, classes=_sorted(labels, name))), None
    values = np.array([to_number(c, name) for c in known])
    return spec, TargetScale(*scale_of(values))


def _sorted(classes: set[Any], name: str) -> tuple[Any, ...]:
    try:
        return tuple(sorted(classes))
    except TypeError:
        kinds = sorted({type(c).__name__ for c in classes})
        raise SchemaError(
            f"target {name!r}: classes are of mixed kinds ({', '.join(kinds)}); make them one kind."
        ) from None


def make_task(name: str, spec: Target, scale: TargetScale | None, dim: int, label_smoothing: float = 0.0) -> Any:
    """The task of a target completed by `learn_target`."""
    if isinstance(spec, Class):
        return ClassificationTask(name, dim, spec.classes, label_smoothing)
    if isinstance(spec, MultiLabel):
        return MultiLabelTask(name, dim, spec.classes, spec.separator)
    assert scale is not None
    return RegressionTask(name, dim, scale.mean, scale.deviation)


__all__ = [
    "UNKNOWN", "ClassificationTask", "MultiLabelTask", "Prediction", "RegressionTask", "TargetScale", "Task",
    "learn_target", "make_task",
]  # fmt: skip
