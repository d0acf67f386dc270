"""Saved predictors: equal from equal seeds, equal wherever their folder goes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import graphfusion
from graphfusion.data import counted_rng
from graphfusion.data.download import extract
from graphfusion.errors import CheckpointError
from graphfusion.fit_folder import ARTEFACT
from graphfusion.predictor import FusionPredictor
from graphfusion.selftest.figure import Figure, count
from graphfusion.selftest.rows import make_rows, predictor

ROWS = 12


def r21(work: Path, full: bool) -> Figure:
    """A fit of two epochs with one seed, here and in fresh processes with a PYTHONHASHSEED each: every file of the saved
    predictors has the same SHA-256.
    """
    seeds = [str(s) for s in counted_rng(0, "selftest/hash").choice(2**32 - 1, 4 if full else 1, replace=False)]
    fit_small(str(work / "here"))
    first, said, cases = _hashes(work / "here"), "", {}
    for seed in seeds:
        said = _start(f"fit_small({str(work / seed)!r})", PYTHONHASHSEED=seed).communicate()[1] or said
        cases[f"PYTHONHASHSEED={seed}"] = _unlike(first, _hashes(work / seed))
    note = said.strip().splitlines()[-1] if any(cases.values()) and said else ""
    return count("R21", "same seed, another hash seed, a fresh process: the same saved bytes", cases, note)


def fit_small(folder: str) -> None:
    """Fit for two epochs to rows with every kind of column, and save."""
    fitted = predictor(epochs=2, dropout=0.2, modality_dropout=0.3)
    fitted.fit(make_rows(ROWS), valid=0.25, quiet=True).save(folder)


def r24(work: Path, full: bool) -> Figure:
    """A saved predictor that is moved, renamed, packed, reached by a link or another working folder: the same probabilities,
    to the bit; with `full` also in a fresh process that sees no GPU.
    """
    fitted = predictor(epochs=1).fit(make_rows(ROWS), valid=None, quiet=True)
    expected = probabilities(fitted)
    fitted.save(work / "saved")
    moved = _moved(work, work / "saved")
    kept = moved if full else ("renamed", "packed and unpacked (zip)", "a relative path")
    cases = {name: _answers(moved[name], expected) for name in kept}
    if full:
        np.save(work / "expected.npy", expected)
        process = _start(f"compare({str(work)!r})", CUDA_VISIBLE_DEVICES="", cwd=work)
        said = process.communicate()[1]
        cases["a fresh process without GPU"] = said[-200:] if process.returncode else None
    return count("R24", "a saved predictor elsewhere gives the same answers", cases)


def compare(work: str) -> None:
    """In a process of its own: the predictor saved below `work` answers as is written there."""
    folder = Path(work)
    assert _answers(Path("saved"), np.load(folder / "expected.npy")) is None


def probabilities(fitted: FusionPredictor) -> NDArray[np.float32]:
    """Of the classes of rows that lack some cells."""
    found: NDArray[np.float32] = fitted.predict_proba(make_rows(ROWS, seed=1))
    return found


def _moved(work: Path, saved: Path) -> dict[str, Path]:
    """Copies of a folder by what was done to them."""
    places = {
        "copied": work / "copy",
        "moved": work / "deep" / "er" / "moved",
        "renamed": work / "Ein Möbel, no. 2 – final (1)",
        "with other files in it": work / "more",
        "below save_path": work / "run" / ARTEFACT,
    }
    for path in places.values():
        shutil.copytree(saved, path)
    for extra in (".DS_Store", "README.md", "weights.pt"):
        (places["with other files in it"] / extra).write_text("no part of it")
    for kind in ("zip", "gztar"):
        archive = shutil.make_archive(str(work / f"packed-{kind}"), kind, root_dir=work, base_dir="saved")
        extract(Path(archive), work / f"unpacked-{kind}")
        places[f"packed and unpacked ({kind})"] = work / f"unpacked-{kind}" / "saved"
    (work / "link").symlink_to(saved)
    relative = Path(os.path.relpath(saved))
    return {**places, "below save_path": work / "run", "a link": work / "link", "a relative path": relative}


def _answers(path: Path, expected: NDArray[np.float32]) -> str | None:
    try:
        found = probabilities(FusionPredictor.load(path))
    except CheckpointError as error:
        return str(error)
    return None if np.array_equal(found, expected) else f"answers differ by {np.abs(found - expected).max():.2g}"


def _start(call: str, cwd: Path | None = None, **environment: str) -> subprocess.Popen[str]:
    """A fresh process that calls a function of this module, with as many threads as this one: others give other bits."""
    threads = str(torch.get_num_threads())
    path = str(Path(graphfusion.__file__).parents[1])
    around = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": threads, **environment}
    code = f"import {__name__} as here; here.{call}"
    return subprocess.Popen([sys.executable, "-c", code], env=around, cwd=cwd, stderr=subprocess.PIPE, text=True)  # noqa: S603


def _hashes(run: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(run.glob("*"))}


def _unlike(first: dict[str, str], other: dict[str, str]) -> str | None:
    if not other:
        return "nothing was saved"
    return None if first == other else f"differ: {sorted(n for n in first if first[n] != other.get(n))}"
