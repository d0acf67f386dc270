"""Logits and metrics of rows that nothing is learned from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from graphfusion.errors import TrainingError
from graphfusion.graph_builder import GraphBatch
from graphfusion.model import FusionModel
from graphfusion.tasks import VotingTask
from graphfusion.training.rows import Batches


def predict_logits(model: FusionModel, rows: Batches) -> dict[str, Tensor]:
    """Target → logits of all rows in order, on the CPU.

    Raises:
        TrainingError: a logit is not finite (the message names the rows), or memory does not do for a row.
    """
    device = next(model.parameters()).device

    def logits_of(batch: GraphBatch) -> dict[str, Tensor]:
        found = {name: logits.float().cpu() for name, logits in model.logits(batch.to(device)).items()}
        for name, logits in found.items():
            _check_finite(logits, batch, name)
        return found

    model.eval()
    with torch.no_grad():
        parts = list(rows.in_order(logits_of))
    return {name: torch.cat([part[name] for part in parts]) for name in model.tasks.names}


def embed_rows(model: FusionModel, rows: Batches) -> Tensor:
    """The unified representation of all rows in order (rows, dim), on the CPU.

    Raises:
        TrainingError: memory does not do for a row.
    """
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad():
        return torch.cat(list(rows.in_order(lambda batch: model(batch.to(device)).unified.float().cpu())))


def weigh_rows(model: FusionModel, rows: Batches) -> dict[str, dict[str, Tensor]]:
    """Target → modality → its share in the answers for all rows in order (rows,), on the CPU.

    Raises:
        TrainingError: memory does not do for a row.
    """
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad():
        parts = list(rows.in_order(lambda batch: model(batch.to(device)).weights))
    names = list(parts[0])
    shares = torch.stack([torch.cat([part[m].float().cpu() for part in parts]) for m in names], dim=1)
    found = {}
    for target, task in model.tasks.items():
        own = task.shares(shares.sign().to(task.beta.device)) if isinstance(task, VotingTask) else shares
        found[target] = dict(zip(names, own.cpu().unbind(1), strict=True))
    return found


def weigh_tokens(model: FusionModel, rows: Batches) -> dict[str, list[Tensor]]:
    """Modality → for each row in order the share of each of its tokens in what is read from them (tokens,), on the CPU.

    Raises:
        TrainingError: memory does not do for a row.
    """
    device = next(model.parameters()).device

    def shares_of(batch: GraphBatch) -> dict[str, list[Tensor]]:
        found = model(batch.to(device)).token_weights
        return {m: list(w.float().cpu().split(batch.nodes[m].ptr.diff().tolist())) for m, w in found.items()}

    model.eval()
    with torch.no_grad():
        parts = list(rows.in_order(shares_of))
    return {m: [row for part in parts for row in part[m]] for m in parts[0]}


def _check_finite(logits: Tensor, batch: GraphBatch, name: str) -> None:
    broken = ~torch.isfinite(logits.flatten(1) if logits.dim() > 1 else logits[:, None]).all(dim=1)
    if bool(broken.any()):
        rows = batch.ids.cpu()[broken].tolist()
        raise TrainingError(
            f"target {name!r}: the answer for row {rows[0]} is not finite ({len(rows)} such rows in its batch); look for "
            "extreme values in its cells, or lower lr in the fit."
        )


def score_logits(model: FusionModel, logits: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Any]:
    """Metrics of each target (`name/metric` when there are several), `loss` of the answers, and `score`: the mean of the primary
    ones. Targets that no row has are left out; loss and score are NaN where that is all.
    """
    found: dict[str, Any] = {"loss": 0.0 if _any_known(model, targets) else math.nan}
    primary = []
    for name, task in model.tasks.items():
        metrics = task.metrics(logits[name], targets[name])  # type: ignore[operator]
        prefix = f"{name}/" if len(model.tasks.names) > 1 else ""
        found |= {prefix + key: value for key, value in metrics.items()}
        loss = task.answer_loss if isinstance(task, VotingTask) else task.loss
        found["loss"] += float(loss(logits[name], targets[name]))  # type: ignore[operator]
        if not math.isnan(metrics.get(task.primary, math.nan)):  # type: ignore[arg-type, operator]
            primary.append(metrics[task.primary])  # type: ignore[index]
    found["score"] = sum(primary) / len(primary) if primary else float("nan")
    return found


def _any_known(model: FusionModel, targets: Mapping[str, Tensor]) -> bool:
    return any(bool(task.known(targets[name]).any()) for name, task in model.tasks.items())  # type: ignore[operator]


def fit_votes(model: FusionModel, held: Batches) -> list[str]:
    """The weights of answers that tasks fit on validation rows, once the model is fitted; a line that tells those of each."""
    voting = {n: t for n, t in model.tasks.items() if isinstance(t, VotingTask) and t.vote == "weighted"}
    if not voting:
        return []
    logits, targets, lines = predict_logits(model, held), held.targets(), []
    for name, task in voting.items():
        count = int(task.known(targets[name]).sum())
        fitted = task.fit_weights(logits[name], targets[name])
        how = f"fitted on {count:,} validation rows, after the epochs, which had equal ones" if fitted else "not fitted"
        shares = ", ".join(f"{m} {w:.3f}" for m, w in task.weights.items())
        lines.append(f"weights of the answers for {name}, {how}: {shares}")
    return lines
