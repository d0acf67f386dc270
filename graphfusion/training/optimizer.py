"""Optimisers by name, and the learning rate over a fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from graphfusion.errors import CheckpointError, ConfigError, unknown_name

Groups = list[dict[str, Any]]
OPTIMIZERS: dict[str, Callable[[Groups, float], Optimizer]] = {
    # fused: one pass over the weights, a tenth of a step on a CPU
    "adamw": lambda groups, lr: AdamW(groups, lr=lr, fused=True),
    "sgd": lambda groups, lr: SGD(groups, lr=lr, momentum=0.9, nesterov=True),
}


def make_optimizer(name: str, model: nn.Module, lr: float, weight_decay: float) -> Optimizer:
    """The optimiser `name`; weight decay is for matrices only, not for biases, norms and single vectors. A module's `lr_share`
    (1 where it has none) becomes the `share` of its parameters' groups: they learn at that share of the learning rate.
    """
    if name not in OPTIMIZERS:
        raise ConfigError(unknown_name("optimizer", name, OPTIMIZERS))
    shares = {p: m.lr_share for m in model.modules() if hasattr(m, "lr_share") for p in m.parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {
            "params": [p for p in trained if shares.get(p, 1.0) == share and (p.dim() > 1) == matrix],
            "weight_decay": decay,
            "share": share,
        }
        for share in dict.fromkeys(shares.get(p, 1.0) for p in trained)
        for matrix, decay in ((True, weight_decay), (False, 0.0))
    ]
    return OPTIMIZERS[name]([g for g in groups if g["params"]], lr)


def warmup_cosine(step: int, steps: int, warmup: float) -> float:
    """Factor of the learning rate at `step` of `steps`: linear up over the share `warmup`, then a half cosine to 0
    (Loshchilov and Hutter 2017, without restarts).
    """
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as tensors named `<parameter number>.<key>`."""
    state = optimizer.state_dict()["state"]
    return {
        f"{i}.{key}": torch.as_tensor(value).detach().clone()
        for i, entry in state.items()
        for key, value in entry.items()
        if value is not None
    }


def load_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave.

    Raises:
        CheckpointError: the state is of another model.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, key = name.split(".", 1)
        state.setdefault(int(number), {})[key] = tensor
    parameters: Iterable[Tensor] = (p for g in optimizer.param_groups for p in g["params"])
    for i, parameter in enumerate(parameters):
        for key, tensor in state.get(i, {}).items():
            if tensor.dim() and tensor.shape != parameter.shape:
                raise CheckpointError(
                    f"optimiser state {i}.{key}: expected {tuple(parameter.shape)}, got {tuple(tensor.shape)}."
                )
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
