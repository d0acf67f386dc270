"""A fit: epochs of steps, validation, early stopping, best weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.optim import Optimizer

from graphfusion.config import TrainingConfig
from graphfusion.data import counted_seed
from graphfusion.errors import ConfigError, TrainingError
from graphfusion.graph_builder import GraphBatch
from graphfusion.model import FusionModel
from graphfusion.training.optimizer import make_optimizer, set_rate, warmup_cosine
from graphfusion.training.progress import FitProgress, MetricsLog
from graphfusion.training.rows import Batches

PRECISIONS = ("no", "fp16", "bf16")
DEVICES = ("auto", "cpu", "cuda")


@dataclass
class FitState:
    """Where a fit stands after an epoch: all that a later process needs to go on to the same bits, beside the rows.

    `score` is (selection score, −validation loss) of `best_epoch`, whose weights are `best_weights`.
    """

    epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    score: tuple[float, float] = (-float("inf"), -float("inf"))
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    stopped: str = ""


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

    def forward(self, batch: GraphBatch) -> Tensor:
        return self.model.loss(batch)


def start_fit(model: FusionModel, config: TrainingConfig, seed: int, deadline: float = float("inf")) -> Fit:
    """Put model and optimiser on the device with accelerate: a GPU of CUDA, or the CPU. `deadline` is on the clock of
    `time.monotonic`.

    Raises:
        ConfigError: a GPU is asked for and there is none, or the optimizer does not exist.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device='cuda': torch sees no GPU here; use device='auto' or 'cpu'.")
    AcceleratorState._reset_state(reset_partial_state=True)  # else a second fit keeps the first one's precision
    accelerator = Accelerator(
        mixed_precision=config.precision, cpu=config.device == "cpu" or not torch.cuda.is_available()
    )
    optimizer = make_optimizer(config.optimizer, model, config.lr, config.weight_decay)
    step_module, optimizer = accelerator.prepare(_Loss(model), optimizer)
    return Fit(model, step_module, optimizer, accelerator, config, seed, deadline)


def run_fit(
    fit: Fit,
    train: Batches,
    valid: Batches | None,
    state: FitState,
    log: MetricsLog,
    progress: FitProgress,
    save: Callable[[FitState], None],
) -> FitState:
    """Train from `state` to the end; `save` is called after each epoch. The model ends with its best weights.

    An epoch that the time limit cuts is validated but not saved. Without validation rows the last epoch is the best.
    """
    config = fit.config
    steps = sum(_groups(len(train.plan(fit.seed, e)), config.accumulate) for e in range(config.epochs))
    checks = [b.to(fit.accelerator.device) for b in valid.in_order()] if valid else []
    while state.epoch < config.epochs and not state.stopped:
        began = time.monotonic()
        loss = _train_epoch(fit, train, state, steps, progress)
        cut = bool(state.stopped)  # by the time limit: a resumed fit goes on from the last whole epoch
        entry = {"epoch": state.epoch + 1, "train_loss": loss, **_validate(fit, checks)}
        state.epoch += 1
        state.history.append(entry)
        _keep_best(fit, state, entry)
        _decide(fit, state)
        log.write(state.history)
        progress.say(_line(state, entry, time.monotonic() - began, config.epochs))
        if not cut:
            save(state)
    progress.say(f"stopped: {state.stopped or f'all {config.epochs} epochs done'}; best epoch {state.best_epoch}")
    fit.model.load_state_dict(state.best_weights)
    return state


def _groups(batches: int, accumulate: int) -> int:
    return -(-batches // accumulate)


def _train_epoch(fit: Fit, train: Batches, state: FitState, steps: int, progress: FitProgress) -> float:
    """One pass over the training rows; mean loss over its batches."""
    fit.step_module.train()
    config, total, seen = fit.config, 0.0, 0
    count = len(train.plan(fit.seed, state.epoch))
    loader = train.epoch(fit.seed, state.epoch, config.workers)
    for i, batch in enumerate(progress.steps(state.epoch + 1, loader, count)):
        first, last = i % config.accumulate == 0, (i + 1) % config.accumulate == 0 or i + 1 == count
        if first:
            fit.optimizer.zero_grad()
            set_rate(fit.optimizer, config.lr * warmup_cosine(state.step, steps, config.warmup))
        torch.manual_seed(counted_seed(fit.seed, "dropout", state.epoch, i))
        share = min(config.accumulate, count - i + i % config.accumulate)
        total += _backward(fit, batch, share)
        seen += 1
        if last:
            if config.clip:
                fit.accelerator.clip_grad_norm_(fit.step_module.parameters(), config.clip)
            fit.optimizer.step()
            state.step += 1
        if time.monotonic() > fit.deadline:
            state.stopped = f"time limit of {config.time_limit:g} s"
            break
    return total / max(seen, 1)


def _backward(fit: Fit, batch: GraphBatch, share: int) -> float:
    """Add the gradients of one of `share` batches of a step; its loss."""
    batch = batch.to(fit.accelerator.device, non_blocking=True)
    with fit.accelerator.autocast():
        loss = fit.step_module(batch)
    value = float(loss.detach())
    if value != value or value in (float("inf"), -float("inf")):
        raise TrainingError(
            f"the loss is {value} in a batch of rows {batch.ids.tolist()[:8]}…: look for extreme values there, "
            f"or lower lr (now {fit.config.lr:g})."
        )
    fit.accelerator.backward(loss / share)
    return value


def predict_logits(model: FusionModel, batches: Iterable[GraphBatch]) -> dict[str, Tensor]:
    """Target → logits of all samples in order, on the CPU."""
    model.eval()
    parts: dict[str, list[Tensor]] = {name: [] for name in model.tasks.names}
    with torch.no_grad():
        for batch in batches:
            for name, logits in model.logits(batch).items():
                parts[name].append(logits.float().cpu())
    return {name: torch.cat(p) for name, p in parts.items()}


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


def _validate(fit: Fit, batches: list[GraphBatch]) -> dict[str, Any]:
    if not batches:
        return {}
    with fit.accelerator.autocast():
        logits = predict_logits(fit.model, batches)
    targets = {name: torch.cat([b.targets[name].cpu() for b in batches]) for name in logits}
    scores = score_logits(fit.model, logits, targets)
    return {f"valid_{key}": value for key, value in scores.items() if isinstance(value, float)}


def _keep_best(fit: Fit, state: FitState, entry: Mapping[str, Any]) -> None:
    """Remember the weights if this epoch is the best so far: by score, then by loss; without validation, always."""
    found = entry.get("valid_score", float(state.epoch))
    score = (found if found == found else 0.0, -entry.get("valid_loss", 0.0))  # NaN: no validation row has a target
    if score > state.score:
        state.score, state.best_epoch = score, state.epoch
        state.best_weights = {name: t.detach().cpu().clone() for name, t in fit.model.state_dict().items()}


def _decide(fit: Fit, state: FitState) -> None:
    waited = state.epoch - state.best_epoch
    if not state.stopped and waited >= fit.config.patience and state.epoch < fit.config.epochs:
        state.stopped = f"no better validation score for {waited} epochs"


def _line(state: FitState, entry: Mapping[str, Any], seconds: float, epochs: int) -> str:
    shown = {key: value for key, value in entry.items() if key not in ("epoch", "valid_score")}
    text = "  ".join(f"{key} {value:.4f}" for key, value in shown.items())
    best = "  best" if state.best_epoch == state.epoch else ""
    return f"epoch {state.epoch:>3}/{epochs}  {text}  {seconds:.1f} s{best}"
