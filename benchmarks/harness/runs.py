"""One run: a fit that cannot see the test split, and the row that tells of it.

While a fit lasts, `test.parquet` is sealed (`graphfusion.data.sealed`). Before it, tables that share rows with the test split are
refused by digests of their inputs; the answers of the test rows are read once, after the fit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import sys
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.environment import memory_mb
from benchmarks.harness.scores import pack_clusters, rounded, scores
from benchmarks.harness.splits import refuse_test_rows, tables_digest

Matrix = NDArray[np.float32]


def cell_name(cell: Any) -> str:
    """A short name of a cell: its text, or a digest of its bytes."""
    return hashlib.sha256(cell).hexdigest()[:12] if isinstance(cell, bytes) else str(cell)


@dataclass(frozen=True)
class Data:
    """A data set: folders with train.parquet, valid.parquet and test.parquet (one, or one a fold), the input columns, `parts` that
    go together under the name of their first (each by itself where none are named), and what `FusionPredictor` is given beside
    the settings of a model. `choose`: keep the epoch that is best on validation rows; else, where those are blind, the last one.
    `clusters`: columns; rows that share a value of one (a video, a picture), or what `cluster_of` makes of it, are no independent
    items, and no such value may be on both sides of a split but for `numbered` columns, which count anew in each table.
    """

    name: str
    folders: tuple[Path, ...]
    inputs: tuple[str, ...]
    fit: Mapping[str, Any]
    choose: bool = True
    clusters: tuple[str, ...] = ()
    cluster_of: Callable[[Any], str] = cell_name
    parts: tuple[tuple[str, ...], ...] = ()
    numbered: tuple[str, ...] = ()

    def modalities(self) -> dict[str, tuple[str, ...]]:
        """Name → columns."""
        return {part[0]: part for part in self.parts or ((name,) for name in self.inputs)}


@dataclass(frozen=True)
class Run:
    """One fit (on each fold) of one model. `inputs`: the columns it may see, all if empty; `rows`: training rows, 0 for
    all; `match`: settings of the model whose number of parameters it is to have; `split`: the rows that are scored, `valid`
    for tables that decide something.
    """

    model: str
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    rows: int = 0
    match: Mapping[str, Any] | None = None
    split: str = "test"

    def key(self, data: Data) -> str:
        """What must be equal for two runs to be the same, but for the seed: settings with all defaults, rows, columns."""
        from graphfusion import FusionPredictor
        from graphfusion.config import FREE

        resolved = FusionPredictor(**{**data.fit, **self.settings}).config.to_dict()
        resolved["model"] = {
            k: v for k, v in resolved["model"].items() if v or k != "fusion_options"
        }  # older runs had none
        resolved["training"] = {k: v for k, v in resolved["training"].items() if k not in FREE}
        columns = {k: repr(v) for k, v in dict(data.fit.get("columns", {})).items()}
        what = [resolved, columns, self.inputs or data.inputs, self.rows, self.match, self.split, data.choose]
        text = json.dumps([*what, tables_digest(data.folders)], sort_keys=True, default=repr)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Answers:
    """What a run answered: labels, classes, and probabilities (rows, classes) of the scored rows of all folds; and the clusters
    of each row, where the data set has any.
    """

    truth: Sequence[str]
    classes: Sequence[str]
    probability: Matrix
    clusters: Sequence[Sequence[str]] = ()

    def scores(self) -> dict[str, Any]:
        """See `scores`; and the clusters."""
        answers = [self.classes[i] for i in self.probability.argmax(1)]
        return {**scores(self.truth, answers), "clusters": pack_clusters(self.clusters)}

    def save(self, path: Path) -> None:
        """Write them to a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part.npz")
        np.savez_compressed(part, **{name: np.array(value) for name, value in vars(self).items()})
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Answers | None:
        """What `save` wrote; None where it is not, or cut short."""
        try:
            with np.load(path) as file:
                truth = file["truth"].tolist()
                clusters = file["clusters"].reshape(len(truth), -1).tolist()  # a vector where there was one kind only
                return cls(truth, file["classes"].tolist(), file["probability"], clusters)
        except (OSError, EOFError, zipfile.BadZipFile):
            return None


@dataclass(frozen=True)
class Fitted:
    """What one fold gives."""

    answers: Answers
    valid: float | None
    epoch: int
    parameters: int
    feedforward: int
    rows: int
    seconds: float
    shares: Mapping[str, float]


def execute(run: Run, data: Data) -> tuple[dict[str, Any], Answers]:
    """Fit on every fold with one thread and score the rows of `run.split`: the row of the CSV, without what `environment`
    adds, and the answers.

    Raises:
        PeekError: training or validation rows are test rows.
    """
    import torch

    torch.set_num_threads(1)
    _load_what_any_fit_loads()
    before = memory_mb("VmRSS")
    parts = [_fit(run, data, folder) for folder in data.folders]
    classes = sorted({c for part in parts for c in part.answers.classes})
    truth = [t for part in parts for t in part.answers.truth]
    clusters = [c for part in parts for c in part.answers.clusters]
    answers = Answers(truth, classes, np.concatenate([_aligned(part.answers, classes) for part in parts]), clusters)
    shares = parts[0].shares
    valid = [part.valid for part in parts if part.valid is not None]
    row = {
        **_head(run, data),
        **answers.scores(),
        "shares": json.dumps({m: rounded(np.mean([p.shares[m] for p in parts])) for m in shares}) if shares else "",
        "valid_accuracy": rounded(np.mean(valid)) if valid else "",
        "epoch": " ".join(str(part.epoch) for part in parts),
        "parameters": parts[0].parameters,
        "fit_seconds": round(sum(part.seconds for part in parts), 1),
        "peak_mb": "" if math.isnan(before) else round(memory_mb("VmHWM") - before),
        "threads": 1,
        "key": run.key(data),
        "settings": json.dumps({**_plain(data.fit), **run.settings, **_width(parts[0])}, default=repr),
        "inputs": " ".join(run.inputs or data.inputs),
        "rows": parts[0].rows,
    }
    return row, answers


def _load_what_any_fit_loads() -> None:
    """Libraries (over 300 MB of them), by a fit of nothing: they are not the run's memory."""
    from graphfusion import Features, FusionPredictor

    rows = [{"x": [float(i), 1.0], "y": "ab"[i % 2]} for i in range(8)]
    smallest = {"dim": 8, "heads": 1, "layers": 1, "epochs": 1, "fusion": "concat", "device": "cpu"}
    FusionPredictor("y", columns={"x": Features()}, **smallest).fit(rows, valid=rows, quiet=True).predict_proba(rows)


def _head(run: Run, data: Data) -> dict[str, Any]:
    return {"data": data.name, "model": run.model, "seed": run.seed, "split": run.split}


def _fit(run: Run, data: Data, folder: Path) -> Fitted:
    import graphfusion
    from graphfusion.data import counted_rng, read_table, sealed

    apart = tuple(name for name in data.clusters if name not in data.numbered)
    refuse_test_rows(folder, data.inputs, apart, data.cluster_of)
    train = read_table(folder / "train.parquet")
    if 0 < run.rows < len(train):
        train = train.take(sorted(counted_rng(0, "harness/rows").permutation(len(train))[: run.rows].tolist()))
    arguments = _arguments(run, data, train)
    target = str(arguments["target"])
    with sealed(folder / "test.parquet"), contextlib.redirect_stdout(sys.stderr):  # standard output is the harness's
        width = 0
        if run.match is not None:
            engine = graphfusion.FusionPredictor(**_arguments(Run(run.model, run.seed, run.match), data, train))
            few = train.take(range(min(len(train), 500)))  # the first ones, as in every table so far
            width = graphfusion.matched_feedforward(graphfusion.FusionPredictor(**arguments), engine, few)
            arguments["feedforward"] = width
        predictor = graphfusion.FusionPredictor(**arguments)
        began = time.process_time()  # of a run with one thread; what else the machine does does not count
        predictor.fit(train, valid=folder / "valid.parquet" if data.choose else None)
        seconds = time.process_time() - began
    best = max(predictor.history, key=lambda h: (h["valid_score"], -h["valid_loss"])) if data.choose else None
    scored = read_table(folder / f"{run.split}.parquet")
    return Fitted(
        answers=Answers(
            truth=[str(t) for t in scored.column(target)],
            classes=[str(c) for c in predictor.schema.targets[target].classes],  # type: ignore[union-attr]
            probability=predictor.predict_proba(scored),
            clusters=_clusters(data, scored),
        ),
        valid=best["valid_accuracy"] if best else None,
        epoch=best["epoch"] if best else len(predictor.history),
        parameters=sum(p.numel() for p in predictor.pipeline.model.parameters()),
        feedforward=width,
        rows=len(train),
        seconds=seconds,
        shares=_shares(predictor, scored),
    )


def _clusters(data: Data, scored: Any) -> list[tuple[str, ...]]:
    return list(zip(*([data.cluster_of(cell) for cell in scored.column(name)] for name in data.clusters), strict=True))


def _shares(predictor: Any, scored: Any) -> dict[str, float]:
    """Mean share of each modality over the scored rows, where the fusion strategy weighs them."""
    if not predictor.pipeline.model.fusion.weighs:
        return {}
    return {m: round(float(share.mean()), 4) for m, share in predictor.modality_weights(scored).items()}


def _arguments(run: Run, data: Data, train: Any) -> dict[str, Any]:
    """Of `FusionPredictor`; columns that are neither inputs of the run nor the target are left out."""
    arguments = {**data.fit, **run.settings, "seed": run.seed, "device": "cpu"}  # whose time and memory are measured
    seen = (*(run.inputs or data.inputs), arguments["target"])
    columns = {name: None for name in train.columns if name not in seen}
    return {**arguments, "columns": {**dict(data.fit.get("columns", {})), **columns}}


def _aligned(part: Answers, classes: Sequence[str]) -> Matrix:
    """Probabilities over the classes of all folds."""
    out = np.zeros((len(part.truth), len(classes)), np.float32)
    out[:, [classes.index(c) for c in part.classes]] = part.probability
    return out


def _plain(fit: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in fit.items() if k not in ("columns", "target")}


def _width(part: Fitted) -> dict[str, int]:
    return {"feedforward": part.feedforward} if part.feedforward else {}


def answers_file(run: Run, data: Data, folder: Path) -> Path:
    """Where a table keeps the answers of a run, for late fusion."""
    return folder / f"{data.name}-{run.key(data)}-{run.seed}.npz"


def late_fusion(run: Run, data: Data, members: Sequence[Answers]) -> dict[str, Any]:
    """The row of a run that averages the probabilities of the single modalities, one of `members` each.

    Raises:
        ValueError: there are not as many members as modalities.
    """
    if len(members) != len(data.modalities()):
        raise ValueError(f"late fusion of {data.name}: expected a run for each of {', '.join(data.modalities())}.")
    joined = replace(members[0], probability=np.mean([m.probability for m in members], axis=0, dtype=np.float32))
    empty = dict.fromkeys(("valid_accuracy", "epoch", "parameters", "fit_seconds", "peak_mb", "threads", "rows"), "")
    return {
        **_head(run, data), **joined.scores(), **empty, "key": run.key(data),
        "settings": "mean of the probabilities of the single modalities", "inputs": " ".join(data.inputs),
    }  # fmt: skip
