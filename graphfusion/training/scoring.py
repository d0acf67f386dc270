"""Logits and metrics of rows that nothing is learned from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from graphfusion.errors import TrainingError
from graphfusion.graph_builder import GraphBatch
from graphfusion.model import FusionModel


def predict_logits(model: FusionModel, batches: Iterable[GraphBatch]) -> dict[str, Tensor]:
    """Target → logits of all samples in order, on the CPU.

    Raises:
        TrainingError: a logit is not finite; the message names the rows.
    """
    model.eval()
    parts: dict[str, list[Tensor]] = {name: [] for name in model.tasks.names}
    with torch.no_grad():
        for batch in batches:
            for name, logits in model.logits(batch).items():
                parts[name].append(logits.float().cpu())
                _check_finite(parts[name][-1], batch, name)
    return {name: torch.cat(p) for name, p in parts.items()}


def _check_finite(logits: Tensor, batch: GraphBatch, name: str) -> None:
    broken = ~torch.isfinite(logits.flatten(1) if logits.dim() > 1 else logits[:, None]).all(dim=1)
    if bool(broken.any()):
        rows = batch.ids.cpu()[broken].tolist()
        raise TrainingError(
            f"target {name!r}: the answer for row {rows[0]} is not finite ({len(rows)} such rows in its batch); look for "
            "extreme values in its cells, or lower lr in the fit."
        )


def score_logits(model: FusionModel, logits: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Any]:
    """Metrics of each target (`name/metric` when there are several), `loss`, and `score`: the mean of the primary ones."""
    found: dict[str, Any] = {"loss": 0.0}
    primary = []
    for name, task in model.tasks.items():
        metrics = task.metrics(logits[name], targets[name])  # type: ignore[operator]
        prefix = f"{name}/" if len(model.tasks.names) > 1 else ""
        found |= {prefix + key: value for key, value in metrics.items()}
        found["loss"] += float(task.loss(logits[name], targets[name]))  # type: ignore[operator]
        if task.primary in metrics:  # type: ignore[operator]
            primary.append(metrics[task.primary])  # type: ignore[index]
    found["score"] = sum(primary) / len(primary) if primary else float("nan")
    return found
