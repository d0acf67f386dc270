"""Faults of a fit: stopped, killed, short of memory, numbers that are not finite, workers that die, rows of any size."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from graphfusion.errors import GraphFusionError, TrainingError
from graphfusion.fusion import FusedGraph
from graphfusion.graph_builder import GraphBatch
from graphfusion.modalities.features import FeaturesModality
from graphfusion.model import FusionModel
from graphfusion.predictor import FusionPredictor
from graphfusion.selftest.figure import Figure, count
from graphfusion.selftest.rows import SMALL, make_rows, predictor, weights_hash
from graphfusion.training import step
from graphfusion.training.checkpoint import from_safetensors, newest_folder, read_folder

ROWS = 20
STEP = "graphfusion.training.loop.take_step"
RESUMED: dict[str, Any] = {
    "batch_size": 3, "accumulate": 2, "dropout": 0.2, "modality_dropout": 0.3, "precision": "bf16"
}  # fmt: skip


def r04(work: Path, full: bool) -> Figure:
    """A fit with dropout, augmentation, accumulation and bf16, ended by SIGTERM after every step of 3 epochs and resumed with
    another number of workers: weights, metrics and history are those of the fit that was not stopped, to the bit.
    """
    whole = _fit(work / "whole", RESUMED)
    steps = _steps(work / "whole")
    pairs = [(0, 1), (1, 2), (2, 0)] if full else [(0, 1)]
    stops = range(1, steps + 1) if full else range(2, steps + 1, 4)
    cases: dict[str, str | None] = {}
    for before, after in pairs:
        for stop in stops:
            folder = work / f"stop-{before}-{stop}"
            with _signal_after(stop, signal.SIGTERM):
                code = _exit_code(lambda f=folder, w=before: _fit(f, RESUMED, workers=w))  # type: ignore[misc]
            resumed = _fit(folder, RESUMED, workers=after)
            cases[f"step {stop}, {before} → {after} workers"] = (
                f"exit {code}" if code != 143 else _difference(whole, resumed, work / "whole", folder)
            )
    return count("R04", "resumed to the same bits from any step", cases)


def r07(work: Path, full: bool) -> Figure:
    """SIGINT once and twice, SIGTERM and SIGUSR1 after a step; and `graphfusion fit` in a process of its own, with and
    without workers, signalled alone or with its whole group at a moment drawn at random: exit status 130, 143 or 0, and a
    checkpoint from which the fit ends as if nothing had been.
    """
    whole = _fit(work / "whole", {})
    rng = np.random.default_rng(0)
    kinds = {"SIGINT": 130, "SIGINT twice": 130, "SIGTERM": 143, "SIGUSR1": 0}
    cases: dict[str, str | None] = {}
    for kind, status in kinds.items():
        stop, folder = int(rng.integers(1, _steps(work / "whole"))), work / kind
        with _signal_after(stop, signal.Signals[kind.split()[0]], times=2 if "twice" in kind else 1):
            code = _exit_code(lambda f=folder: _fit(f, {}))  # type: ignore[misc]
        resumed = _fit(folder, {})
        wrong = f"exit {code}" if code != status else None
        cases[f"{kind} after step {stop}"] = wrong or _difference(whole, resumed, work / "whole", folder)
    return count(
        "R07", "signals: a checkpoint, the right exit status, the same end", cases | _from_outside(work, full, rng)
    )


def _from_outside(work: Path, full: bool, rng: np.random.Generator) -> dict[str, str | None]:
    table = work / "rows.jsonl"
    table.write_text(
        "".join(
            json.dumps({"text": r["caption"], "age": r["age"], "label": r["label"]}) + "\n" for r in make_rows(ROWS)
        )
    )
    settings: dict[str, Any] = {**SMALL, "epochs": 30, "patience": 30, "batch_size": 5, "modality_dropout": 0.3}
    fit_table(table, work / "undisturbed", settings)
    kinds = [
        ("SIGTERM", True, 2),
        ("SIGINT", True, 0),
        ("SIGTERM", False, 0),
        ("SIGINT", False, 2),
        ("SIGINT", True, 2),
    ]
    cases = {}
    for i in range(20 if full else 1):
        name, group, workers = kinds[i % len(kinds)]
        folder = work / f"outside-{i}"
        status = _disturbed(table, folder, {**settings, "workers": workers}, name, group, float(rng.random()))
        expected = 128 + signal.Signals[name]
        wrong = None if status in (expected, 0) else f"exit {status}"  # 0: it was through before the signal came
        fit_table(table, folder, settings)
        same = _same_files(work / "undisturbed" / "predictor", folder / "predictor")
        cases[f"{name} {'to the group' if group else 'alone'}, {workers} workers ({i})"] = wrong or same
    return cases


def fit_table(table: Path, folder: Path, settings: Mapping[str, Any]) -> None:
    """A fit to a file with a folder to go on from."""
    FusionPredictor("label", **settings).fit(table, valid=0.2, save_path=folder, resume="auto", quiet=True)


def _disturbed(table: Path, folder: Path, settings: Mapping[str, Any], name: str, group: bool, wait: float) -> int:
    """Exit status of `graphfusion fit`, signalled `wait` seconds after its first checkpoint."""
    given = [f"{key}={value}" for key, value in settings.items()]
    command = [
        sys.executable,
        "-m",
        "graphfusion",
        "fit",
        str(table),
        "--target",
        "label",
        "--valid",
        "0.2",
        "--out",
        str(folder),
    ]
    process = subprocess.Popen(  # noqa: S603 - this Python
        [*command, "--resume", "auto", "--quiet", "--set", *given],
        start_new_session=True,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},  # other threads, other bits
    )
    while process.poll() is None and not list(folder.glob("checkpoints/step-*")):
        time.sleep(0.01)
    time.sleep(wait)
    with contextlib.suppress(ProcessLookupError):
        (os.killpg if group else os.kill)(process.pid, signal.Signals[name])
    return process.wait(timeout=300)


def _same_files(one: Path, other: Path) -> str | None:
    different = [p.name for p in one.glob("*.safetensors") if p.read_bytes() != (other / p.name).read_bytes()]
    return f"other {', '.join(different)}" if different else None


def r11(work: Path, full: bool) -> Figure:
    """A worker of the loader that raises, is killed, exits, hangs or is out of memory at a row: the row is named, and with
    `skip` the fit goes on without it and counts it.
    """
    faults: dict[str, Callable[[], Any]] = {
        "raises": _raise,
        "is killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "exits": lambda: os._exit(3),
        "hangs": lambda: time.sleep(600),
        "is out of memory": _exhaust,
    }
    cases: dict[str, str | None] = {}
    for name, fault in faults.items() if full else list(faults.items())[:2]:
        for row in (0, 7, 13) if full else (7,):
            cases[f"{name}, row {row}"] = _with_failing_worker(work, fault, row)
    if full:
        cases["killed between two rows"] = _with_a_worker_killed_idle()
    return count("R11", "a worker that fails: its row is named, and left out on request", cases)


def _with_failing_worker(work: Path, fault: Callable[[], Any], row: int) -> str | None:
    real = FeaturesModality.augment

    def augment(self: FeaturesModality, tokens: Any, strength: float, rng: Any) -> Any:
        if torch.utils.data.get_worker_info() is not None and abs(_first_number(self, tokens) - row) < 0.5:
            fault()
        return real(self, tokens, strength, rng)

    settings = {"workers": 2, "worker_timeout": 5.0, "epochs": 1}
    with mock.patch.object(FeaturesModality, "augment", augment):
        try:
            predictor(**settings).fit(make_rows(ROWS), valid=None, quiet=True)
            return "not noticed"
        except TrainingError as error:
            if f"row {row}:" not in str(error):
                return f"row not named: {error}"
        left = predictor(**settings).fit(make_rows(ROWS), valid=None, quiet=True, on_error="skip")
    assert left.report is not None
    skipped = [i.row for i in left.report.incidents if i.action == "skipped"]
    return None if skipped == [row] else f"left out: {skipped}"


def _with_a_worker_killed_idle() -> str | None:
    """All workers are killed once, in the middle of a step, when they have made what they are asked for."""
    settings = {"workers": 2, "worker_timeout": 5.0, "epochs": 1, "batch_size": 2}
    whole = predictor(**settings).fit(make_rows(ROWS), valid=None, quiet=True)
    real, seen = step._backward, 0

    def backward(*arguments: Any) -> float:
        nonlocal seen
        seen += 1
        if seen == 3:
            time.sleep(0.5)
            for child in multiprocessing.active_children():
                assert child.pid is not None
                os.kill(child.pid, signal.SIGKILL)
                child.join()
        return real(*arguments)

    with mock.patch.object(step, "_backward", backward):
        again = predictor(**settings).fit(make_rows(ROWS), valid=None, quiet=True)
    assert again.report is not None
    if again.report.skipped:
        return f"{again.report.skipped} rows left out"
    return None if weights_hash(again) == weights_hash(whole) else "other weights than without it"


def _first_number(self: FeaturesModality, tokens: Any) -> float:
    """The first number of a row's features as the table has it: the number of the row."""
    return float(tokens.values[0, 0] * self.deviation[0] + self.mean[0])


def _raise() -> None:
    raise ValueError("this row cannot be augmented")


def _exhaust() -> None:
    raise MemoryError("no memory for this row")


def r16(work: Path, full: bool) -> Figure:
    """Memory runs out at some place of a fit: batches are halved, no step is lost, the losses are those of a fit with enough
    memory to 1e-6, and so are answers; where it never does, the fit ends and says what to lower.
    """
    del work
    settings: dict[str, Any] = {"dropout": 0.0, "modality_dropout": 0.0, "optimizer": "sgd", "epochs": 2}
    whole = predictor(**settings).fit(make_rows(ROWS), valid=None, quiet=True)
    cases: dict[str, str | None] = {}
    for place in range(10) if full else (0, 3):
        with _out_of_memory_at({place}, before=place % 2 == 0):
            halved = predictor(**settings).fit(make_rows(ROWS), valid=None, quiet=True)
        gap = max(abs(a["train_loss"] - b["train_loss"]) for a, b in zip(whole.history, halved.history, strict=True))
        cases[f"place {place}"] = None if gap < 1e-6 else f"losses differ by {gap:.1e}"
    cases["answers"] = _short_answers(whole)
    with _out_of_memory_at(range(10**6), before=True):
        cases["always"] = _told(lambda: predictor(**settings).fit(make_rows(ROWS), quiet=True), "lower batch_size")
    return count("R16", "memory is short: smaller parts, equal losses", cases)


def _short_answers(fitted: FusionPredictor) -> str | None:
    """Answers where no more than three rows find memory."""
    rows, real = make_rows(ROWS), FusionModel.forward
    whole = fitted.predict_proba(rows)

    def short(model: FusionModel, batch: GraphBatch) -> FusedGraph:
        if len(batch.ids) > 3:
            raise torch.OutOfMemoryError("no memory here")
        return real(model, batch)

    with mock.patch.object(FusionModel, "forward", short):
        gap = float(np.abs(fitted.predict_proba(rows) - whole).max())
    return None if gap < 1e-6 else f"answers differ by {gap:.1e}"


def r18(work: Path, full: bool) -> Figure:
    """NaN or infinity in a feature, label, weight, gradient or loss: the fit stops in that step, names row or tensor, and the
    best weights that it has written are finite.
    """
    cases: dict[str, str | None] = {}
    for value in (float("nan"), float("inf"), -float("inf")) if full else (float("nan"),):
        for at in (1, 4, 6) if full else (4,):
            cases[f"weight {value}, step {at}"] = _broken(
                work, f"weight-{value}-{at}", _break_weight(value, at), "weight '"
            )
            cases[f"gradient {value}, step {at}"] = _broken(
                work, f"grad-{value}-{at}", _break_gradient(value, at), "gradient of '"
            )
        cases[f"loss {value}"] = _broken(work, f"loss-{value}", _break_loss(value, row=5), "row 5")
        if value == value:  # a NaN label is a missing one
            rows = [{**row, "label": float(i)} for i, row in enumerate(make_rows(ROWS))]
            rows[6]["label"] = value
            cases[f"label {value}"] = _told(lambda r=rows: predictor().fit(r, quiet=True), "row 6")  # type: ignore[misc]
        rows = make_rows(ROWS)
        rows[9]["clip"] = [9.0, value, 0.0, 0.0]
        cases[f"feature {value}"] = _told(lambda r=rows: predictor().fit(r, quiet=True), "row 9")  # type: ignore[misc]
    return count("R18", "a number that is not finite is named within its step", cases)


def _broken(work: Path, name: str, breaking: Any, expected: str) -> str | None:
    folder = work / name
    with breaking:
        told = _told(lambda: _fit(folder, {"save_every": 0.0}), expected)
    if told:
        return told
    newest = newest_folder(folder / "checkpoints", "step-*")
    if newest is None:
        return None
    weights = from_safetensors(read_folder(newest)["best.safetensors"], "best")
    return None if all(torch.isfinite(t).all() for t in weights.values()) else "saved as best"


# what the faults are made of


def _fit(folder: Path, settings: Mapping[str, Any], **more: Any) -> FusionPredictor:
    """A fit below `folder` that goes on from a checkpoint if there is one."""
    made = predictor(**{"batch_size": 5, **settings, **more})
    return made.fit(make_rows(ROWS), valid=0.2, save_path=folder, resume="auto", quiet=True)


def _steps(folder: Path) -> int:
    return int(max(p.name for p in (folder / "checkpoints").glob("step-*")).split("-")[1])


def _difference(whole: FusionPredictor, other: FusionPredictor, first: Path, second: Path) -> str | None:
    if weights_hash(whole) != weights_hash(other):
        return "other weights"
    if whole.history != other.history:
        return "another history"
    logs = [(folder / "metrics.jsonl").read_bytes() for folder in (first, second)]
    return None if logs[0] == logs[1] else "another metrics.jsonl"


def _exit_code(run: Callable[[], Any]) -> int:
    """The exit status that a process with `run` alone would have."""
    try:
        run()
    except KeyboardInterrupt:
        return 130
    except SystemExit as left:
        return int(left.code or 0)
    return 0


@contextmanager
def _signal_after(stop: int, number: signal.Signals, times: int = 1) -> Iterator[None]:
    """The signal reaches this process at the end of the step `stop` of the next fit."""
    real, taken = step.take_step, 0

    def counted(*arguments: Any) -> float:
        nonlocal taken
        value = real(*arguments)
        taken += 1
        if taken == stop:
            for _ in range(times):
                signal.raise_signal(number)
        return value

    with mock.patch(STEP, counted):
        yield


@contextmanager
def _out_of_memory_at(places: Any, before: bool) -> Iterator[None]:
    """The batches of these numbers find no memory, before or after their gradients are made."""
    real, seen = step._backward, 0

    def short(*arguments: Any) -> float:
        nonlocal seen
        seen += 1
        here = seen - 1 in places
        if here and before:
            raise torch.OutOfMemoryError("no memory here")
        value = real(*arguments)
        if here:
            raise torch.OutOfMemoryError("no memory here")
        return value

    with mock.patch.object(step, "_backward", short):
        yield


@contextmanager
def _break_weight(value: float, at: int) -> Iterator[None]:
    """A weight becomes `value` after step `at`."""
    real, taken = step.take_step, 0

    def breaking(fit: Any, *arguments: Any) -> float:
        nonlocal taken
        loss = real(fit, *arguments)
        taken += 1
        if taken == at:
            with torch.no_grad():
                next(p for p in fit.model.tasks.parameters() if p.dim() > 1).view(-1)[0] = value
        return loss

    with mock.patch(STEP, breaking):
        yield


@contextmanager
def _break_gradient(value: float, at: int) -> Iterator[None]:
    """A gradient becomes `value` in step `at`."""
    real, taken = step._clip, 0

    def breaking(fit: Any, rows: Any) -> None:
        nonlocal taken
        taken += 1
        if taken == at:
            [p for p in fit.model.parameters() if p.grad is not None][-1].grad.view(-1)[0] = value
        real(fit, rows)

    with mock.patch.object(step, "_clip", breaking):
        yield


@contextmanager
def _break_loss(value: float, row: int) -> Iterator[None]:
    """The loss of every batch with `row` is `value`."""
    from graphfusion.model import FusionModel

    real = FusionModel.loss

    def breaking(self: FusionModel, batch: Any, shares: Any = None) -> torch.Tensor:
        loss = real(self, batch, shares)
        return loss * value if row in batch.ids.tolist() else loss

    with mock.patch.object(FusionModel, "loss", breaking):
        yield


def _told(run: Callable[[], Any], expected: str) -> str | None:
    """None if `run` raises an error of ours with `expected` in it."""
    try:
        run()
    except GraphFusionError as error:
        return None if expected in str(error) else f"told: {error}"
    return "not noticed"
