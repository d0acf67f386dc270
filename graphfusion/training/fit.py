"""What a fit works with, and where it stands."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.optim import Optimizer

from graphfusion.config import TrainingConfig
from graphfusion.data import Budget
from graphfusion.errors import ConfigError, TrainingError, unknown_name
from graphfusion.graph_builder import GraphBatch
from graphfusion.model import FusionModel
from graphfusion.training.memory import OPEN, on_gpu, out_of_memory, room
from graphfusion.training.optimizer import make_optimizer
from graphfusion.training.rows import Batches

PRECISIONS = ("no", "fp16", "bf16")
DEVICES = ("auto", "cpu", "cuda")


@dataclass
class FitState:
    """Where a fit stands between two steps: all that a later process needs to go on to the same bits, beside the rows.

    `epoch` and `batch`: whole epochs, and batches of the next one, that are done; `step`: optimiser steps; `loss_sum`: over
    those batches. `nodes` and `edges`: what a batch holds at most. `halvings`: how often batches were halved for want of
    memory; `left_out`: rows that no batch could be made of, and why. `score` is (selection score, −validation loss) of
    `best_epoch`, whose weights are `best_weights`.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    nodes: int = 0
    edges: int = 0
    halvings: int = 0
    left_out: list[tuple[int, str]] = field(default_factory=list)
    best_epoch: int = 0
    score: tuple[float, float] = (-float("inf"), -float("inf"))
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    stopped: str = ""

    def __post_init__(self) -> None:
        for name in ("epoch", "batch", "step", "nodes", "edges", "halvings", "best_epoch"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{name}: expected a whole number from 0, got {value!r}")


@dataclass(frozen=True)
class Fit:
    """The objects of one fit, made by `start_fit`."""

    model: FusionModel
    step_module: nn.Module
    optimizer: Optimizer
    accelerator: Accelerator
    config: TrainingConfig
    seed: int
    deadline: float


class _Loss(nn.Module):
    """The loss as a forward pass, so that accelerate can wrap it."""

    def __init__(self, model: FusionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: GraphBatch, shares: dict[str, float] | None = None) -> Tensor:
        return self.model.loss(batch, shares)


def refuse_launchers() -> None:
    """ConfigError in one of several processes that a launcher (torchrun, accelerate) started: each would fit on all rows."""
    if os.environ.get("WORLD_SIZE", "1") not in ("", "1"):
        raise ConfigError(
            f"this fit is one of WORLD_SIZE={os.environ['WORLD_SIZE']} processes of a launcher; start it in one, without."
        )


def check_device(config: TrainingConfig) -> None:
    """ConfigError where there is no GPU and one is asked for, or a precision that needs one."""
    if config.device not in DEVICES:
        raise ConfigError(unknown_name("device", config.device, DEVICES))
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device='cuda': torch sees no GPU here; use device='auto' or 'cpu'.")
    if config.precision == "fp16" and not on_gpu(config.device):
        raise ConfigError("precision='fp16' needs a GPU; on a CPU use 'bf16' or 'no'.")


def start_fit(model: FusionModel, config: TrainingConfig, seed: int, deadline: float = float("inf")) -> Fit:
    """Put model and optimiser on the device with accelerate: a GPU of CUDA, or the CPU. `deadline` is on the clock of
    `time.monotonic`.

    Raises:
        ConfigError: a GPU is asked for and there is none, or the optimizer does not exist.
    """
    check_device(config)
    AcceleratorState._reset_state(reset_partial_state=True)  # else a second fit keeps the first one's precision
    accelerator = Accelerator(mixed_precision=config.precision, cpu=not on_gpu(config.device))
    optimizer = make_optimizer(config.optimizer, model, config.lr, config.weight_decay)
    step_module, optimizer = accelerator.prepare(_Loss(model), optimizer)
    return Fit(model, step_module, optimizer, accelerator, config, seed, deadline)


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Only operations that give the same bits every time on a device; one that has no such form raises a RuntimeError that names
    it. Those of a CPU always do.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def measured_budget(fit: Fit, rows: Batches) -> Budget:
    """The budget of `rows`, with what is open in it bounded by the memory that a first batch takes and the GPU has left."""
    budget, device = rows.budget, fit.accelerator.device
    if OPEN not in (budget.nodes, budget.edges) or not rows.rows:
        return budget
    count = min(budget.samples, len(rows.rows))
    while (held := _held(fit, rows, count)) < 0 and count > 1:
        count //= 2
    if held < 0:
        raise TrainingError("memory does not do for the first row by itself; lower dim or max_nodes.")
    return room(budget, sum(rows.nodes[:count]), sum(rows.edges[:count]), held, torch.cuda.mem_get_info(device)[0])


def _held(fit: Fit, rows: Batches, count: int) -> int:
    """Bytes that a step over the first `count` rows takes; −1 where memory does not do."""
    device = fit.accelerator.device
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    try:
        with fit.accelerator.autocast():
            loss = fit.step_module(rows.collate(rows.rows[:count]).to(device))
        fit.accelerator.backward(loss)
        return torch.cuda.max_memory_allocated(device) - before
    except Exception as error:
        if not out_of_memory(error):
            raise
        return -1
    finally:
        fit.optimizer.zero_grad()
        torch.cuda.empty_cache()
