"""The folder of a fit: checkpoints while it lasts, then the predictor and the incidents."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphfusion.config import FREE, RunConfig
from graphfusion.data import Report
from graphfusion.errors import CheckpointError, ConfigError, unknown_name
from graphfusion.modalities import TokenizedSample
from graphfusion.pipeline import DOCUMENT, WEIGHTS, Pipeline, document_of
from graphfusion.training import Fit, FitState
from graphfusion.training.checkpoint import (
    as_checkpoint_error,
    check_replaceable,
    from_json,
    newest_folder,
    prepare_folder,
    read_folder,
    remove_folder,
    tensors_of,
    to_json,
    to_safetensors,
    write_file,
    write_folder,
)
from graphfusion.training.optimizer import load_optimizer, optimizer_tensors

CHECKPOINTS = "checkpoints"
STEPS = "step-*"
INCIDENTS = "incidents.jsonl"
ARTEFACT = "predictor"
"""Folder below `save_path` that holds the fitted predictor."""
PROGRESS = "fit.json"


@dataclass(frozen=True)
class FitFolder:
    """The `save_path` of a fit, and what the fit was told: targets, what `columns=` declared (as `declared_to_dict`
    gives it), settings.

    Raises:
        ConfigError: the path is a file.
        CheckpointError: it cannot be written to, or what it holds there is not ours to replace.
    """

    path: Path
    targets: tuple[str, ...]
    declared: Mapping[str, Any]
    config: RunConfig

    def __post_init__(self) -> None:
        if os.path.isfile(self.path):
            raise ConfigError(f"save_path: expected a folder, {self.path} is a file.")
        prepare_folder(self.path)
        check_replaceable(self.path / ARTEFACT, (DOCUMENT, f"{WEIGHTS}.safetensors"))

    @contextmanager
    def removed_if_unused(self) -> Iterator[None]:
        """Where what runs inside fails before anything is written, the folder goes again if it is empty."""
        try:
            yield
        except BaseException:
            with suppress(OSError):
                self.path.rmdir()
            raise

    @property
    def holds_a_fit(self) -> bool:
        """Whether an earlier fit, finished or not, lies here."""
        return (self.path / ARTEFACT).exists() or any((self.path / CHECKPOINTS).glob(STEPS))

    def check_unfinished(self) -> None:
        """ConfigError if a finished predictor lies here, which a fit that has no checkpoint to go on from would write over."""
        if (self.path / ARTEFACT).exists():
            raise ConfigError(
                f"resume: {self.path} holds a finished predictor and no checkpoint to go on from; use another save_path, or "
                "resume='restart' to write over it."
            )

    def newest(self) -> dict[str, bytes] | None:
        """The files of the last whole checkpoint, None if there is none; ConfigError if its fit was told otherwise."""
        path = newest_folder(self.path / CHECKPOINTS, STEPS)
        if path is None:
            return None
        files = read_folder(path)
        mine = self.config.to_dict()
        with as_checkpoint_error(str(path)):
            document = document_of(files)
            declared, targets, saved = document["declared"], document["targets"], document["config"]
            for free in FREE:
                saved["training"][free] = mine["training"][free]
            then, now = ({**c["model"], **c["training"], "seed": c["seed"]} for c in (saved, mine))
        changed = [f"{name}: {then.get(name)!r} → {now[name]!r}" for name in now if then.get(name) != now[name]]
        if changed:
            raise ConfigError(
                f"resume: {path} was fitted with other settings ({'; '.join(changed)}); use them or another save_path."
            )
        if targets != list(self.targets):
            raise ConfigError(f"resume: {path} was fitted to {targets}, now {list(self.targets)}.")
        if declared != self.declared:
            raise ConfigError(
                f"resume: {path} was fitted with other columns= than now; use those or another save_path."
            )
        return files

    def save(self, pipeline: Pipeline, fit: Fit, digest: str, state: FitState) -> None:
        """A checkpoint of where the fit stands; the one before stays, older ones go once it is whole. `digest`: of its rows."""
        progress = {name: value for name, value in vars(state).items() if name != "best_weights"}
        files = {
            **pipeline.to_files(self.targets, self.declared, self.config),
            "best.safetensors": to_safetensors(state.best_weights),
            "optimizer.safetensors": to_safetensors(optimizer_tensors(fit.optimizer)),
            PROGRESS: to_json({**progress, "rows": digest, "scaler": _scaler(fit)}),
        }
        write_folder(self.path / CHECKPOINTS / f"step-{state.step:09}", files)
        self.remove_checkpoints(keep=2)

    def finish(self, pipeline: Pipeline, report: Report) -> None:
        """The fitted predictor, and what happened to rows."""
        write_file(self.path / INCIDENTS, report.json_lines().encode())
        write_folder(self.path / ARTEFACT, pipeline.to_files(self.targets, self.declared, self.config))

    def remove_checkpoints(self, keep: int = 0) -> None:
        """Remove all but the newest `keep`, so that an old one is never taken for one of a newer fit."""
        found = sorted((self.path / CHECKPOINTS).glob(STEPS))
        for path in found[: len(found) - keep]:
            remove_folder(path)


def resumes(resume: bool | str, folder: FitFolder | None) -> bool:
    """Whether a fit goes on from a checkpoint in `folder`; ConfigError if it would replace an earlier one unasked."""
    if isinstance(resume, str) and resume not in ("auto", "never", "restart"):
        raise ConfigError(unknown_name("value of resume", resume, ("auto", "never", "restart")))
    if resume in ("never", False) and folder and folder.holds_a_fit:
        raise ConfigError(
            f"{folder.path} holds an earlier fit: resume='auto' goes on with it, resume='restart' replaces it; or choose "
            "another save_path."
        )
    if resume in ("auto", True) and folder is None:
        raise ConfigError("resume needs the save_path of the fit to go on with.")
    return resume in ("auto", True)


def fit_state(files: Mapping[str, bytes], fit: Fit, digest: str) -> FitState:
    """Where the fit of a checkpoint stood, its optimiser put back; ConfigError if it saw other rows than those of `digest`."""
    with as_checkpoint_error(PROGRESS):
        progress = from_json(files[PROGRESS], PROGRESS)
        rows, scaler = progress.pop("rows"), progress.pop("scaler", {})
    if rows != digest:
        raise ConfigError(
            "resume: the training or validation rows are not those of the checkpoint; use another save_path."
        )
    best, shapes = tensors_of(files, "best"), {name: t.shape for name, t in fit.model.state_dict().items()}
    if best and {name: t.shape for name, t in best.items()} != shapes:
        raise CheckpointError("best.safetensors: its weights are not those of the model.")
    with as_checkpoint_error(PROGRESS):
        if scaler:
            fit.accelerator.scaler.load_state_dict(scaler)  # type: ignore[union-attr]
        load_optimizer(fit.optimizer, tensors_of(files, "optimizer"))
        score, left_out = tuple(progress.pop("score")), [tuple(pair) for pair in progress.pop("left_out")]
        return FitState(**progress, score=score, left_out=left_out, best_weights=best)  # type: ignore[arg-type]


def rows_digest(pipeline: Pipeline, *parts: Sequence[TokenizedSample]) -> str:
    """Hash of everything a fit reads: a resumed fit must see the same rows."""
    total = hashlib.sha256()
    for rows in parts:
        for row in rows:
            total.update(f"{row.id} {sorted((n, _ordered(cell)) for n, cell in row.targets.items())}".encode())
            for name in pipeline.modalities:
                if name in row.tokens:
                    tokens = row.tokens[name]
                    arrays = (tokens.values, tokens.position, tokens.span, *tokens.attributes.values())
                    total.update(name.encode() + b"".join(array.tobytes() for array in arrays))
        total.update(b"|")
    return total.hexdigest()


def _ordered(cell: Any) -> Any:
    """A cell whose repr is the same in every process."""
    return sorted(map(repr, cell)) if isinstance(cell, Set) else cell


def _scaler(fit: Fit) -> dict[str, Any]:
    """By how much fp16 scales the loss, and for how many steps it has; empty with other precisions."""
    return dict(fit.accelerator.scaler.state_dict()) if fit.accelerator.scaler else {}
