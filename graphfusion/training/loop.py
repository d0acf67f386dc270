"""A fit: epochs of steps, validation, early stopping, best weights; stopped anywhere, it goes on from there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from graphfusion.errors import TrainingError
from graphfusion.training.diagnosis import check_weights
from graphfusion.training.fit import Fit, FitState, deterministic
from graphfusion.training.interruption import STOPS, Interruption, leave
from graphfusion.training.memory import out_of_memory
from graphfusion.training.optimizer import warmup_cosine
from graphfusion.training.progress import FitProgress, MetricsLog
from graphfusion.training.rows import IDLE, Batches, Failure, Parts
from graphfusion.training.scoring import predict_logits, score_logits
from graphfusion.training.step import take_step
from graphfusion.training.transfer import ahead

MAX_HALVINGS = 4
MAX_RESTARTS = 3
"""How often in a row, without a step between, workers of the loader are started again after one died that was at no row."""
TIME_IS_UP = "time limit"


@dataclass(frozen=True)
class Surroundings:
    """What a fit tells of itself: its log, its progress, `save` for a checkpoint (None: it writes nothing); and `skip`:
    whether a row that no batch can be made of is left out, not an error.
    """

    log: MetricsLog
    progress: FitProgress
    save: Callable[[FitState], None] | None = None
    skip: bool = False


def run_fit(fit: Fit, train: Batches, valid: Batches | None, state: FitState, around: Surroundings) -> FitState:
    """Train from `state` to the end. The model ends with its best weights; without validation rows those of the last epoch.

    A checkpoint is written after each epoch, every `save_every` seconds, when the time limit cuts an epoch (which is then
    validated once more), and on SIGINT, SIGTERM and SIGUSR1.

    Raises:
        TrainingError: a loss, gradient or weight is not finite, a row makes no batch, or memory does not do.
        KeyboardInterrupt, SystemExit: a signal came; the checkpoint is written.
    """
    config = fit.config
    with deterministic(config.deterministic), Interruption(active=around.save is not None) as interruption:
        epochs = _Epochs(fit, train, state, around, interruption)
        while state.epoch < config.epochs and not state.stopped:
            began = time.monotonic()
            epochs.train()
            check_weights(fit.model, f"after epoch {state.epoch + 1}")
            entry = {"epoch": state.epoch + 1, "train_loss": state.loss_sum / max(1, state.batch)}
            _end_epoch(fit, state, entry | _validate(fit, valid), around)
            around.progress.say(_line(state, state.history[-1], time.monotonic() - began, config.epochs))
            if state.stopped != TIME_IS_UP:
                epochs.save()
    around.progress.say(
        f"stopped: {_why(state, config.time_limit) or f'all {config.epochs} epochs done'}; best epoch {state.best_epoch}"
    )
    fit.model.load_state_dict(state.best_weights)
    return state


def _why(state: FitState, limit: float) -> str:
    return f"{TIME_IS_UP} of {limit:g} s" if state.stopped == TIME_IS_UP else state.stopped


class _Epochs:
    """The steps of a fit from where its state is, and its checkpoints."""

    def __init__(
        self, fit: Fit, train: Batches, state: FitState, around: Surroundings, interruption: Interruption
    ) -> None:
        self.fit, self.rows, self.state, self.around, self.interruption = fit, train, state, around, interruption
        counts = [len(train.plan(fit.seed, epoch)) for epoch in range(fit.config.epochs)]
        self.counts = counts
        self.steps = sum(-(-count // fit.config.accumulate) for count in counts)
        self.saved = time.monotonic()
        self.restarts = 0

    def train(self) -> None:
        """To the end of the epoch, or to where the time limit cuts it."""
        self.fit.step_module.train()
        while self.state.batch < self.counts[self.state.epoch] and not self.state.stopped:
            try:
                failure = self._go_on()
            except Exception as error:
                if not out_of_memory(error):
                    raise
                failure = Failure.of(IDLE, error)
            if failure and failure.memory and (failure.row == IDLE or self.state.halvings < MAX_HALVINGS):
                self._halve(failure.reason)
            elif failure:
                self._leave_out(failure)

    def _go_on(self) -> Failure | None:
        """Steps until the epoch or the time ends, or a row makes no batch."""
        fit, state, config = self.fit, self.state, self.fit.config
        count = self.counts[state.epoch]
        out, parts = [row for row, _ in state.left_out], 2**state.halvings
        loader = self.rows.epoch(fit.seed, state.epoch, config.workers, state.batch, parts, out, config.worker_timeout)
        loader = ahead(loader, fit.accelerator.device)
        group: list[Parts] = []
        for batch in self.around.progress.steps(state.epoch + 1, loader, count - state.batch):
            if isinstance(batch, Failure):
                return batch
            group.append(batch)
            if len(group) == min(config.accumulate, count - state.batch):
                self._step(group)
                group = []
                if state.stopped:
                    break
        return None

    def _step(self, group: list[Parts]) -> None:
        fit, state = self.fit, self.state
        rate = fit.config.lr * warmup_cosine(state.step, self.steps, fit.config.warmup)
        state.loss_sum += take_step(
            fit, group, rate, state.epoch, state.batch, lambda row: self.rows.alone(fit.seed, state.epoch, row)
        )
        state.batch += len(group)
        state.step += 1
        self.restarts = 0
        self._look_up()

    def _look_up(self) -> None:
        """After a step: what a signal, the clock or the time limit ask for."""
        if self.interruption.asked or time.monotonic() - self.saved > self.fit.config.save_every:
            self.save()
        if time.monotonic() > self.fit.deadline:
            self.save()
            self.state.stopped = TIME_IS_UP

    def save(self) -> None:
        """A checkpoint; then the end, if a signal asked for it."""
        if self.around.save is not None:
            self.around.save(self.state)
        self.saved = time.monotonic()
        asked, self.interruption.asked = self.interruption.asked, ""
        if asked in STOPS:
            self.around.progress.say(f"{asked}: saved; a fit that resumes goes on from here")
            leave(asked)

    def _halve(self, reason: str) -> None:
        """From now on batches come in twice as many parts; the step that failed is taken again."""
        state = self.state
        if state.halvings == MAX_HALVINGS:
            raise TrainingError(
                f"memory is short even with batches in {2**MAX_HALVINGS} parts ({reason}); lower batch_size, max_nodes or dim."
            )
        state.halvings += 1
        self.fit.optimizer.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.around.progress.say(
            f"memory is short: from step {state.step} on batches come in {2**state.halvings} parts"
        )

    def _leave_out(self, failure: Failure) -> None:
        if self.interruption.stops:  # the signal reached the workers too
            self.save()
        if failure.row == IDLE:
            self.restarts += 1
            if not failure.lost or self.restarts > MAX_RESTARTS:
                raise TrainingError(f"a batch cannot be made, and no single row is to blame: {failure.reason}.")
            self.around.progress.say(f"{failure.reason}; no row is to blame, the workers start again")
            return
        if not self.around.skip:
            raise TrainingError(
                f"row {failure.row}: {failure.reason}. Pass on_error='skip' to go on without such rows."
            )
        self.state.left_out.append((failure.row, failure.reason))
        if len(self.state.left_out) == len(self.rows.rows):
            raise TrainingError(f"no row is left to train on; the last one, row {failure.row}: {failure.reason}.")
        self.around.progress.say(f"row {failure.row} is left out: {failure.reason}")


def _end_epoch(fit: Fit, state: FitState, entry: dict[str, Any], around: Surroundings) -> None:
    """Note an epoch, keep its weights if they are the best, and stop if there is no use in going on."""
    state.epoch, state.batch, state.loss_sum = state.epoch + 1, 0, 0.0
    state.history.append(entry)
    _keep_best(fit, state, entry)
    waited = state.epoch - state.best_epoch
    if not state.stopped and 0 < fit.config.patience <= waited and state.epoch < fit.config.epochs:
        state.stopped = f"no better validation score for {waited} epochs"
    around.log.write(state.history)


def _validate(fit: Fit, rows: Batches | None) -> dict[str, Any]:
    if rows is None:
        return {}
    with fit.accelerator.autocast():
        logits = predict_logits(fit.model, rows)
    targets = rows.targets()
    scores = score_logits(fit.model, logits, targets)
    return {f"valid_{key}": value for key, value in scores.items() if isinstance(value, float)}


def _keep_best(fit: Fit, state: FitState, entry: Mapping[str, Any]) -> None:
    """Remember the weights if this epoch is the best so far: by score, then by loss; without validation, always."""
    found = entry.get("valid_score", float(state.epoch))
    score = (found if found == found else 0.0, -entry.get("valid_loss", 0.0))  # NaN (r2 of one row): the loss decides
    if score > state.score:
        state.score, state.best_epoch = score, state.epoch
        state.best_weights = {name: t.detach().cpu().clone() for name, t in fit.model.state_dict().items()}


def _line(state: FitState, entry: Mapping[str, Any], seconds: float, epochs: int) -> str:
    shown = {key: value for key, value in entry.items() if key not in ("epoch", "valid_score")}
    text = "  ".join(f"{key} {value:.4f}" for key, value in shown.items())
    best = "  best" if state.best_epoch == state.epoch else ""
    return f"epoch {state.epoch:>3}/{epochs}  {text}  {seconds:.1f} s{best}"
