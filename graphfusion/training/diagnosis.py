"""Which sample or tensor is to blame for a number that is not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from graphfusion.errors import TrainingError
from graphfusion.graph_builder import GraphBatch
from graphfusion.model import FusionModel

SHOWN = 5


def check_weights(model: nn.Module, when: str) -> None:
    """TrainingError naming the first weight that has a value that is not finite."""
    name = first_broken(model.state_dict())
    if name:
        raise TrainingError(f"weight {name!r} is not finite {when}; lower lr, or start from a checkpoint before it.")


def check_gradients(model: nn.Module, norm: Tensor | float, rows: Sequence[Tensor]) -> None:
    """TrainingError naming the first tensor whose gradient is not finite, if the norm of all is not. `rows`: numbers of the rows of
    each batch.
    """
    if bool(torch.isfinite(torch.as_tensor(norm))):
        return
    name = first_broken({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    raise TrainingError(
        f"the gradient of {name or 'all weights together'!r} is not finite in a step over rows "
        f"{_listed([row for part in rows for row in part.tolist()])}; the weights "
        "are as they were before it. Lower lr, or look for extreme values in these rows."
    )


def blame(model: FusionModel, batch: GraphBatch, alone: Callable[[int], GraphBatch], value: float) -> TrainingError:
    """Why the loss of `batch` is `value`: a weight, rows whose own loss is not finite, or neither. `alone` makes a batch of one
    row (by its number in the table).
    """
    weight = first_broken(model.state_dict())
    if weight:
        return TrainingError(f"the loss is {value}: weight {weight!r} is not finite; lower lr.")
    rows = batch.ids.tolist()
    guilty = [row for row in rows if not _finite_alone(model, alone(row))]
    if guilty and (len(guilty) < len(rows) or len(rows) == 1):
        places = "".join(f", {place}" for place in _extremes(alone(guilty[0])))
        rows_named = f"row{'s' if len(guilty) > 1 else ''} {_listed(guilty)}"
        return TrainingError(
            f"the loss is {value} because of {rows_named}{places}: look at these cells, or leave the rows out."
        )
    share = "each of them alone too" if guilty else "none of them alone"
    return TrainingError(f"the loss is {value} in a batch of rows {_listed(rows)} ({share}); lower lr.")


def first_broken(tensors: Mapping[str, Tensor]) -> str:
    """The name of the first tensor with NaN or infinity; empty if there is none."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return name
    return ""


def _finite_alone(model: FusionModel, batch: GraphBatch) -> bool:
    with torch.no_grad():
        return bool(torch.isfinite(model.loss(batch)))


def _extremes(batch: GraphBatch) -> Iterable[str]:
    """Where the largest numbers of a row are."""
    for name, store in batch.nodes.items():
        values = store.values
        if values.is_floating_point() and values.numel() and (largest := float(values.abs().max())) > 1e4:
            yield f"{name} has values up to {largest:.3g}"
    for name, target in batch.targets.items():
        if target.is_floating_point() and target.numel() and (largest := float(target.abs().max())) > 1e4:
            yield f"target {name} is {largest:.3g}"


def _listed(rows: Sequence[int]) -> str:
    return ", ".join(map(str, rows[:SHOWN])) + (", …" if len(rows) > SHOWN else "")
