"""Head, loss, prediction and metrics of a target, one file a kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from graphfusion.errors import SchemaError, unknown_name
from graphfusion.fusion import FusedGraph
from graphfusion.modalities.tabular import scale_of
from graphfusion.schema import Class, MultiLabel, Target
from graphfusion.tasks.classification import UNKNOWN, ClassificationTask
from graphfusion.tasks.labels import plain_label, sorted_classes, split_labels, warn_of_odd_classes
from graphfusion.tasks.multi_label import MultiLabelTask
from graphfusion.tasks.prediction import Prediction
from graphfusion.tasks.regression import RegressionTask, to_number
from graphfusion.tasks.voting import VotingTask


class Task(Protocol):
    """What every task does; all are torch modules as well."""

    name: str
    primary: str
    """The metric (higher is better) that a fit selects by."""

    def encode(self, labels: Sequence[Any]) -> Tensor:
        """Raw cells → targets with one row a sample; None = unknown."""

    def forward(self, fused: FusedGraph) -> Tensor:
        """Logits: (B, K) of K classes or labels, (B,) of a number; (B, M, K + 1) of a vote (see there)."""

    def known(self, target: Tensor) -> Tensor:
        """(B,) whether a sample takes part in the loss."""

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean over the samples whose target is known; 0 if there is none."""

    def predict(self, logits: Tensor) -> Prediction:
        """Logits → prediction."""

    def metrics(self, logits: Tensor, target: Tensor) -> dict[str, Any]:
        """Scores over the samples whose target is known; logits and targets on the CPU."""


@dataclass(frozen=True)
class TargetScale:
    """Mean and deviation of a number target over the training rows."""

    mean: float
    deviation: float


def learn_target(
    name: str, spec: Target, cells: Sequence[Any], numbers: Sequence[int] = ()
) -> tuple[Target, TargetScale | None]:
    """The specification completed from the training rows: classes for class targets, the scale of a number.

    `numbers` are those of the rows in their table, for messages; empty means 0, 1, 2 …

    Raises:
        SchemaError: no row has the target, a cell can be no label or number, is none of the declared classes, or the classes
            are of several kinds.
    """
    known = {i: c for i, c in zip(numbers or range(len(cells)), cells, strict=True) if c is not None}
    if not known:
        raise SchemaError(f"target {name!r}: no training row has a value.")
    if isinstance(spec, Class):
        labels = _each(known, lambda cell: [plain_label(cell, name)])
    elif isinstance(spec, MultiLabel):
        labels = _each(known, lambda cell: split_labels(cell, spec.separator, name))
    else:
        values = _each(known, lambda cell: [to_number(cell, name)])
        return spec, TargetScale(*scale_of(np.array([value for _, value in values])))
    if spec.classes:
        _check_declared(name, spec.classes, labels)
        return spec, None
    classes = sorted_classes((label for _, label in labels), name)
    warn_of_odd_classes(name, Counter(label for _, label in labels))
    return replace(spec, classes=classes), None


def _each(cells: Mapping[int, Any], read: Callable[[Any], list[Any]]) -> list[tuple[int, Any]]:
    """(row, label) of all labels; an error names its row."""
    found = []
    for row, cell in cells.items():
        try:
            found += [(row, label) for label in read(cell)]
        except SchemaError as error:
            raise SchemaError(f"row {row}: {error}") from error
    return found


def _check_declared(name: str, classes: Sequence[Any], labels: Sequence[tuple[int, Any]]) -> None:
    known = set(classes)
    if len(known) < len(classes):
        raise SchemaError(f"target {name!r}: a class is declared twice: {', '.join(map(repr, classes))}.")
    for row, label in labels:
        if label not in known:
            raise SchemaError(
                f"row {row}: target {name!r}: {unknown_name('class', label, map(str, classes))} Declare it in the schema too."
            )


def make_task(
    name: str,
    spec: Target,
    scale: TargetScale | None,
    dim: int,
    label_smoothing: float = 0.0,
    vote: str = "",
    modalities: Sequence[str] = (),
) -> Any:
    """The task of a target completed by `learn_target`; with `vote` a head for each modality (`VotingTask`)."""
    if vote:
        return VotingTask({m: make_task(name, spec, scale, dim, label_smoothing) for m in modalities}, vote)
    if isinstance(spec, Class):
        return ClassificationTask(name, dim, spec.classes, label_smoothing)
    if isinstance(spec, MultiLabel):
        return MultiLabelTask(name, dim, spec.classes, spec.separator)
    assert scale is not None
    return RegressionTask(name, dim, scale.mean, scale.deviation)


__all__ = [
    "UNKNOWN", "ClassificationTask", "MultiLabelTask", "Prediction", "RegressionTask", "TargetScale", "Task",
    "VotingTask",
    "learn_target", "make_task",
]  # fmt: skip
