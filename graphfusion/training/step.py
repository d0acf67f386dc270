"""One optimiser step over one or several batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from graphfusion.data import counted_seed
from graphfusion.errors import TrainingError
from graphfusion.graph_builder import GraphBatch
from graphfusion.model import FusionModel
from graphfusion.training.diagnosis import blame, check_gradients
from graphfusion.training.fit import Fit
from graphfusion.training.memory import out_of_memory
from graphfusion.training.rows import Parts

Alone = Callable[[int], GraphBatch]


def take_step(fit: Fit, group: Sequence[Parts], rate: float, epoch: int, first: int, alone: Alone) -> float:
    """Gradients of all batches of `group` (the batches `first`, `first + 1` … of `epoch`), then one step with learning rate
    `rate`, of which each parameter group takes its share; the sum of their losses. The weights stay as they are if a loss or
    gradient is not finite, or memory does not do for the gradients.

    Raises:
        TrainingError: a loss or a gradient is not finite, or there is no memory for the optimiser's state.
    """
    fit.optimizer.zero_grad()
    for entry in fit.optimizer.param_groups:
        entry["lr"] = rate * entry["share"]
    total = sum(_backward(fit, parts, len(group), (epoch, first + i), alone) for i, parts in enumerate(group) if parts)
    if any(group):
        _clip(fit, [part.ids for parts in group for part in parts])
        _apply(fit)
    return total


def _apply(fit: Fit) -> None:
    """The optimiser's step; half of one cannot be taken again, so short memory ends the fit here."""
    try:
        fit.optimizer.step()
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise TrainingError(
            f"no memory for the optimiser's state ({error}); lower dim, or use optimizer='sgd'."
        ) from error


def _backward(fit: Fit, parts: Parts, batches: int, place: tuple[int, int], alone: Alone) -> float:
    """Add the gradients of one batch of a step of `batches`; its loss."""
    total = 0.0
    for i, (part, shares) in enumerate(zip(parts, _shares(fit.model, parts), strict=True)):
        torch.manual_seed(counted_seed(fit.seed, "dropout", *place, *((i,) if len(parts) > 1 else ())))
        batch = part.to(fit.accelerator.device, non_blocking=True)
        with fit.accelerator.autocast():
            loss: Tensor = fit.step_module(batch, shares)
        value = float(loss.detach())
        if value != value or value in (float("inf"), -float("inf")):
            with fit.accelerator.autocast():
                raise blame(fit.model, part, lambda row: alone(row).to(fit.accelerator.device), value)
        fit.accelerator.backward(loss / batches)
        total += value
    return total


def _shares(model: FusionModel, parts: Parts) -> list[dict[str, float] | None]:
    """For each part of a batch: target → how much of the batch's known targets it holds; None for a whole batch."""
    if len(parts) == 1:
        return [None]
    known = [
        {name: int(task.known(part.targets[name]).sum()) for name, task in model.tasks.items()}  # type: ignore[operator]
        for part in parts
    ]
    total = {name: max(1, sum(k[name] for k in known)) for name in model.tasks.names}
    return [{name: count / total[name] for name, count in k.items()} for k in known]


def _clip(fit: Fit, rows: Sequence[Tensor]) -> None:
    """Gradients looked at, then scaled to a norm of at most `clip`. With fp16 the scaler leaves out a step that overflows and
    halves its scale; once that is below 1, the scale is not to blame any more.
    """
    fit.accelerator.unscale_gradients()
    parameters = [p for p in fit.step_module.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    scaler = fit.accelerator.scaler if fit.config.precision == "fp16" else None
    if scaler is None or scaler.get_scale() < 1:
        check_gradients(fit.model, norm, rows)
    if fit.config.clip:
        torch.nn.utils.clip_grads_with_norm_(parameters, fit.config.clip, norm)
