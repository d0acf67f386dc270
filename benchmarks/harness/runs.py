"""One run: a fit that cannot see the test split, and the row that tells of it.

While a fit lasts, `test.parquet` is sealed (`graphfusion.data.sealed`). Before it, tables that share rows with the test split are
refused by digests of their inputs; the answers of the test rows are read once, after the fit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.environment import ROOT, memory_mb
from benchmarks.harness.matching import matched_width
from benchmarks.harness.scores import rounded, scores
from benchmarks.harness.splits import refuse_test_rows, tables_digest

PROBABILITIES = ROOT / "build" / "probabilities"
"""Where runs leave the class probabilities that late fusion averages; not part of the results."""
Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Data:
    """A data set: folders with train.parquet, valid.parquet and test.parquet (one, or one a fold), the input columns by
    modality, and what `FusionPredictor` is given beside the settings of a model. `choose`: keep the epoch that is best on
    validation rows; else, where those are blind, the last one.
    """

    name: str
    folders: tuple[Path, ...]
    inputs: tuple[str, ...]
    fit: Mapping[str, Any]
    choose: bool = True


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

        resolved = FusionPredictor(**{**data.fit, **self.settings}).config.to_dict()
        columns = {k: repr(v) for k, v in dict(data.fit.get("columns", {})).items()}
        what = [resolved, columns, self.inputs or data.inputs, self.rows, self.match, self.split, data.choose]
        text = json.dumps([*what, tables_digest(data.folders)], sort_keys=True, default=repr)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Fitted:
    """What one fold gives: labels and probabilities (rows, classes) of the scored rows."""

    truth: Sequence[str]
    classes: Sequence[str]
    probability: Matrix
    valid: float | None
    epoch: int
    parameters: int
    feedforward: int
    rows: int
    seconds: float


def execute(run: Run, data: Data, threads: int = 1) -> dict[str, Any]:
    """Fit on every fold and score the rows of `run.split`; the row of the CSV, without what `environment` adds.

    Raises:
        PeekError: training or validation rows are test rows.
    """
    import torch

    torch.set_num_threads(threads)
    import graphfusion  # noqa: F401 - what is loaded anyway does not count as the run's memory

    before = memory_mb("VmRSS")
    parts = [_fit(run, data, folder) for folder in data.folders]
    truth = [t for part in parts for t in part.truth]
    classes = sorted({c for part in parts for c in part.classes})
    probability = np.concatenate([_aligned(part, classes) for part in parts])
    keep(run, data, probability, truth, classes)
    valid = [part.valid for part in parts if part.valid is not None]
    return {
        "data": data.name,
        "model": run.model,
        "seed": run.seed,
        "split": run.split,
        **scores(truth, [classes[i] for i in probability.argmax(1)]),
        "valid_accuracy": rounded(np.mean(valid)) if valid else "",
        "epoch": " ".join(str(part.epoch) for part in parts),
        "parameters": parts[0].parameters,
        "fit_seconds": round(sum(part.seconds for part in parts), 1),
        "peak_mb": round(memory_mb("VmHWM") - before),
        "threads": threads,
        "key": run.key(data),
        "settings": json.dumps({**_plain(data.fit), **run.settings, **_width(parts[0])}, default=repr),
        "inputs": " ".join(run.inputs or data.inputs),
        "rows": parts[0].rows,
    }


def _fit(run: Run, data: Data, folder: Path) -> Fitted:
    import graphfusion
    from graphfusion.data import counted_rng, read_table, sealed

    refuse_test_rows(folder, data.inputs)
    train = read_table(folder / "train.parquet")
    if 0 < run.rows < len(train):
        train = train.take(sorted(counted_rng(0, "harness/rows").permutation(len(train))[: run.rows].tolist()))
    arguments = _arguments(run, data, train)
    target = str(arguments["target"])
    with sealed(folder / "test.parquet"), contextlib.redirect_stdout(sys.stderr):  # standard output is the harness's
        width = 0
        if run.match is not None:
            engine = Run(run.model, run.seed, run.match)
            width = matched_width(_arguments(engine, data, train), arguments, train)
            arguments["feedforward"] = width
        predictor = graphfusion.FusionPredictor(**arguments)
        began = time.monotonic()
        predictor.fit(train, valid=folder / "valid.parquet" if data.choose else None)
        seconds = time.monotonic() - began
    best = max(predictor.history, key=lambda h: (h["valid_score"], -h["valid_loss"])) if data.choose else None
    scored = read_table(folder / f"{run.split}.parquet")
    return Fitted(
        truth=[str(t) for t in scored.column(target)],
        classes=[str(c) for c in predictor.schema.targets[target].classes],  # type: ignore[union-attr]
        probability=predictor.predict_proba(scored),
        valid=best["valid_accuracy"] if best else None,
        epoch=best["epoch"] if best else len(predictor.history),
        parameters=sum(p.numel() for p in predictor.pipeline.model.parameters()),
        feedforward=width,
        rows=len(train),
        seconds=seconds,
    )


def _arguments(run: Run, data: Data, train: Any) -> dict[str, Any]:
    """Of `FusionPredictor`; columns that are neither inputs of the run nor the target are left out."""
    arguments = {**data.fit, **run.settings, "seed": run.seed}
    seen = (*(run.inputs or data.inputs), arguments["target"])
    columns = {name: None for name in train.columns if name not in seen}
    return {**arguments, "columns": {**dict(data.fit.get("columns", {})), **columns}}


def _aligned(part: Fitted, classes: Sequence[str]) -> Matrix:
    """Probabilities over the classes of all folds."""
    out = np.zeros((len(part.truth), len(classes)), np.float32)
    out[:, [classes.index(c) for c in part.classes]] = part.probability
    return out


def _plain(fit: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in fit.items() if k not in ("columns", "target")}


def _width(part: Fitted) -> dict[str, int]:
    return {"feedforward": part.feedforward} if part.feedforward else {}


def keep(run: Run, data: Data, probability: Matrix, truth: Sequence[str], classes: Sequence[str]) -> None:
    """Leave the probabilities of a run where late fusion finds them."""
    PROBABILITIES.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(kept(run, data), probability=probability, truth=np.array(truth), classes=np.array(classes))


def kept(run: Run, data: Data) -> Path:
    """The file of `keep`."""
    return PROBABILITIES / f"{data.name}-{run.key(data)}-{run.seed}.npz"


def late_fusion(run: Run, data: Data, members: Iterable[Run]) -> dict[str, Any]:
    """The row of a run that averages the probabilities of the runs of single modalities.

    Raises:
        FileNotFoundError: a member has not run on this machine.
        ValueError: the members are not one for each modality.
    """
    listed = list(members)
    if sorted(m.inputs for m in listed) != sorted((name,) for name in data.inputs):
        raise ValueError(f"late fusion of {data.name}: expected a run for each of {', '.join(data.inputs)}.")
    found = [np.load(kept(member, data)) for member in listed]
    classes, truth = found[0]["classes"].tolist(), found[0]["truth"].tolist()
    joined = np.mean([f["probability"] for f in found], axis=0)
    empty = dict.fromkeys(("valid_accuracy", "epoch", "parameters", "fit_seconds", "peak_mb", "threads", "rows"), "")
    return {
        "data": data.name, "model": run.model, "seed": run.seed, "split": run.split,
        **scores(truth, [classes[i] for i in joined.argmax(1)]), **empty, "key": run.key(data),
        "settings": "mean of the probabilities of the single modalities", "inputs": " ".join(data.inputs),
    }  # fmt: skip
