"""One run: a fit that cannot see the test split, and what is written about it.

Selection is on validation rows by construction: while a fit lasts, `test.parquet` is sealed (`graphfusion.data.sealed`); a
validation table made of test rows is refused; the test rows are read once, after the fit.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
PROBABILITIES = ROOT / "build" / "probabilities"
"""Where runs leave the class probabilities that late fusion averages; not part of the results."""
SHARED = 0.5
"""A validation table with more than this share of its rows among the test rows was drawn from them."""


class PeekError(Exception):
    """A run would have chosen something on test rows."""


@dataclass(frozen=True)
class Data:
    """A data set: folders with train.parquet, valid.parquet and test.parquet (one, or one a fold), the input columns by
    modality, and what `FusionPredictor` is given beside the settings of a model.
    """

    name: str
    folders: tuple[Path, ...]
    inputs: tuple[str, ...]
    fit: Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """One fit (on each fold) of one model. `inputs`: the columns it may see; `rows`: training rows, 0 for all;
    `match`: settings of the model whose number of parameters it is to have.
    """

    model: str
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    rows: int = 0
    match: Mapping[str, Any] | None = None

    def key(self, data: Data) -> str:
        """What must be equal for two runs to be the same."""
        fit = {k: repr(v) for k, v in data.fit.items()}
        what = [dict(self.settings), self.inputs or data.inputs, self.rows, self.match, fit, len(data.folders)]
        return hashlib.sha256(json.dumps(what, sort_keys=True, default=repr).encode()).hexdigest()[:12]


def execute(run: Run, data: Data, threads: int = 1) -> dict[str, Any]:
    """Fit on every fold, read its test rows once; the row of the CSV.

    Raises:
        PeekError: the validation rows are test rows.
    """
    import torch

    torch.set_num_threads(threads)
    began = time.monotonic()
    parts = [_fit(run, data, folder) for folder in data.folders]
    seconds = time.monotonic() - began
    truth = [t for part in parts for t in part["truth"]]
    probability = np.concatenate([part["probability"] for part in parts])
    classes = parts[0]["classes"]
    answers = [classes[i] for i in probability.argmax(1)]
    keep(run, data, probability, truth, classes)
    return {
        "data": data.name,
        "model": run.model,
        "seed": run.seed,
        **scores(truth, answers),
        "valid_accuracy": _rounded(np.mean([part["valid"] for part in parts])),
        "best_epoch": " ".join(str(part["epoch"]) for part in parts),
        "parameters": parts[0]["parameters"],
        "fit_seconds": round(seconds),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "threads": threads,
        "key": run.key(data),
        "settings": json.dumps({**run.settings, **parts[0]["matched"]}, default=repr),
        "inputs": " ".join(run.inputs or data.inputs),
        "rows": run.rows or parts[0]["rows"],
        **environment(),
    }


def _fit(run: Run, data: Data, folder: Path) -> dict[str, Any]:
    import graphfusion
    from graphfusion.data import counted_rng, read_table, sealed

    test = folder / "test.parquet"
    refuse_test_rows(folder, data.inputs)
    train = read_table(folder / "train.parquet")
    if 0 < run.rows < len(train):
        train = train.take(sorted(counted_rng(0, "harness/rows").permutation(len(train))[: run.rows].tolist()))
    settings = {**data.fit, **run.settings}
    inputs = run.inputs or data.inputs
    columns = dict(settings.pop("columns", {})) | {name: None for name in data.inputs if name not in inputs}
    with sealed(test), contextlib.redirect_stdout(sys.stderr):  # standard output is the harness's
        matched = _matched(settings, columns, run, train)
        predictor = graphfusion.FusionPredictor(seed=run.seed, columns=columns, **{**settings, **matched})
        predictor.fit(train, valid=folder / "valid.parquet")
    best = max(predictor.history, key=lambda h: (h["valid_score"], -h["valid_loss"]))
    table = read_table(test)
    return {
        "truth": [str(t) for t in table.column(predictor.targets[0])],
        "probability": predictor.predict_proba(table),
        "classes": [str(c) for c in predictor.schema.targets[predictor.targets[0]].classes],
        "valid": best["valid_accuracy"],
        "epoch": best["epoch"],
        "parameters": sum(p.numel() for p in predictor.pipeline.model.parameters()),
        "matched": matched,
        "rows": len(train),
    }


def refuse_test_rows(folder: Path, inputs: Sequence[str]) -> None:
    """PeekError if the training or validation rows of a folder are, for the most part, its test rows."""
    test = _row_digests(folder / "test.parquet", inputs)
    for split in ("train", "valid"):
        rows = _row_digests(folder / f"{split}.parquet", inputs)
        shared = np.mean([row in test for row in rows])
        if shared > SHARED:
            raise PeekError(
                f"{folder / split}.parquet: {shared:.0%} of its rows are rows of test.parquet; an epoch chosen on them is "
                "chosen on the test split. Convert the data again."
            )


def _row_digests(path: Path, inputs: Sequence[str]) -> set[bytes]:
    from graphfusion.data import read_table

    table = read_table(path)
    cells = [table.column(name) for name in inputs if name in table.columns]
    return {hashlib.sha256(repr(row).encode()).digest() for row in zip(*cells, strict=True)}


def _matched(settings: Mapping[str, Any], columns: Mapping[str, Any], run: Run, train: Any) -> dict[str, int]:
    """The width of hidden layers with which the model has as many parameters as `run.match`."""
    if run.match is None:
        return {}
    import graphfusion

    def count(changed: Mapping[str, Any]) -> int:
        made = graphfusion.FusionPredictor(seed=run.seed, columns=columns, **changed)
        return sum(p.numel() for p in made.build(few).model.parameters())

    few = train.take(range(min(len(train), 2_000)))  # of all rows the vocabulary were larger, in both alike
    narrow, wide = (count({**settings, "feedforward": width}) for width in (8, 16))
    engine = count({k: v for k, v in settings.items() if k not in run.settings} | dict(run.match))
    return {"feedforward": max(8, round(8 + (engine - narrow) * 8 / (wide - narrow)))}


def scores(truth: Sequence[str], answers: Sequence[str]) -> dict[str, Any]:
    """Accuracy, macro-F1, weighted F1, F1 of each class, and which items were answered rightly."""
    from sklearn.metrics import f1_score

    classes = sorted(set(truth))
    each = f1_score(truth, answers, labels=classes, average=None, zero_division=0)
    right = np.array([t == a for t, a in zip(truth, answers, strict=True)])
    return {
        "test_accuracy": _rounded(right.mean()),
        "test_macro_f1": _rounded(each.mean()),
        "test_weighted_f1": _rounded(f1_score(truth, answers, labels=classes, average="weighted", zero_division=0)),
        "per_class_f1": json.dumps({c: _rounded(f) for c, f in zip(classes, each, strict=True)}),
        "right": f"{len(right)}:{base64.b64encode(np.packbits(right).tobytes()).decode()}",
    }


def right_items(text: str) -> NDArray[np.bool_]:
    """The column `right` of the CSV as one truth value an item."""
    count, _, packed = text.partition(":")
    bits = np.unpackbits(np.frombuffer(base64.b64decode(packed), np.uint8))
    return bits[: int(count)].astype(bool)


def keep(run: Run, data: Data, probability: NDArray[Any], truth: Sequence[str], classes: Sequence[str]) -> None:
    """Leave the probabilities of a run where late fusion finds them."""
    PROBABILITIES.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        kept(run, data), probability=probability.astype(np.float32), truth=np.array(truth), classes=np.array(classes)
    )


def kept(run: Run, data: Data) -> Path:
    """The file of `keep`."""
    return PROBABILITIES / f"{data.name}-{run.key(data)}-{run.seed}.npz"


def late_fusion(run: Run, data: Data, members: Iterable[Run]) -> dict[str, Any]:
    """The row of a run that averages the log-probabilities of single-modality runs (a product of experts, Hinton 2002).

    Raises:
        FileNotFoundError: a member has not run on this machine.
    """
    found = [np.load(kept(member, data)) for member in members]
    classes, truth = found[0]["classes"].tolist(), found[0]["truth"].tolist()
    joined = sum(np.log(np.maximum(f["probability"], 1e-9)) for f in found)
    answers = [classes[i] for i in np.asarray(joined).argmax(1)]
    empty = dict.fromkeys(
        ("valid_accuracy", "best_epoch", "parameters", "fit_seconds", "peak_mb", "threads", "rows"), ""
    )
    return {
        "data": data.name, "model": run.model, "seed": run.seed, **scores(truth, answers), **empty, "key": run.key(data),
        "settings": "mean of the log-probabilities of the single modalities", "inputs": " ".join(data.inputs), **environment(),
    }  # fmt: skip


def environment() -> dict[str, str]:
    """Machine, versions, commit and command of a run."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    names = ("torch", "torch-geometric", "numpy")
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "versions": " ".join(f"{n}={version(n)}" for n in names) + f" python={platform.python_version()}",
        "commit": commit.stdout.strip(),
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _rounded(value: Any) -> float:
    return round(float(value), 5)
