"""What must not change: an answer with the rows beside it, losses with the version; and that nothing calls home."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from graphfusion.predictor import FusionPredictor
from graphfusion.selftest.figure import Figure, count
from graphfusion.selftest.rows import COLUMNS, make_rows, predictor

GOLDEN = Path(__file__).with_name("golden_losses.json")
STEPS = 20
MODELS: dict[str, dict[str, Any]] = {
    "hub gatv2": {"graph": "hub", "attention": "gatv2"},
    "full gat": {"graph": "full", "attention": "gat"},
    "full dot": {"graph": "full", "attention": "dot", "readout": "attention"},
    "concat": {"fusion": "concat"},
    "transformer": {"fusion": "transformer"},
}
TOLERANCE = 1e-5
FILLED = 64
"""Rows of the largest batch."""
LOCAL = ("127.", "::1", "localhost")


def r23(work: Path, full: bool) -> Figure:
    """Each subset of the modalities but the empty one, alone, first, last and in batches of 2 to 64 rows with others: the
    probabilities differ by at most 1e-5.
    """
    del work
    fitted = predictor(epochs=1).fit(make_rows(16), valid=None, quiet=True)
    subsets = [s for r in range(1, len(COLUMNS) + 1) for s in itertools.combinations(COLUMNS, r)]
    rows = [
        {name: row[name] for name in subset}
        for subset, row in zip(subsets, _complete(len(subsets)), strict=True)
    ]  # fmt: skip
    rows += _complete(FILLED - len(rows))
    alone = np.concatenate([_answers(fitted, [row], 1) for row in rows])
    cases: dict[str, str | None] = {}
    for size in (2, 3, 8, 32, 64) if full else (2, 64):
        for place, order in (("in order", list(range(len(rows)))), ("backwards", list(range(len(rows)))[::-1])):
            found = np.empty_like(alone)
            found[order] = _answers(fitted, [rows[i] for i in order], size)
            gaps = np.abs(found - alone).max(1)
            for subset, gap in zip(subsets, gaps, strict=False):  # those that fill the batch have no name
                cases[f"{'+'.join(subset)}, batches of {size}, {place}"] = None if gap <= TOLERANCE else f"{gap:.1e}"
    return count("R23", "the same answer alone and beside any rows", cases)


def _complete(number: int) -> list[dict[str, Any]]:
    """Rows with every cell."""
    return [row for row in make_rows(4 * number) if all(cell is not None for cell in row.values())][:number]


def _answers(fitted: FusionPredictor, rows: list[dict[str, Any]], size: int) -> Any:
    fitted.config = fitted.config.override({"batch_size": size})
    columns = {name: [row.get(name) for row in rows] for name in COLUMNS}
    return fitted.predict_proba(columns)


def losses(name: str) -> list[float]:
    """The training losses of the first steps of a model of `MODELS`, one step an epoch."""
    settings = {"optimizer": "sgd", "lr": 0.05, "epochs": STEPS, "patience": STEPS, "batch_size": 64, "dropout": 0.0}
    fitted = predictor(**settings, **MODELS[name]).fit(make_rows(16), valid=None, quiet=True)
    return [entry["train_loss"] for entry in fitted.history]


def r26(work: Path, full: bool) -> Figure:
    """The losses of five models over 20 steps are those of `golden_losses.json` to 1e-5."""
    del work
    golden = json.loads(GOLDEN.read_text())
    cases: dict[str, str | None] = {}
    for name in MODELS if full else list(MODELS)[:2]:
        gaps = np.abs(np.array(losses(name)) - np.array(golden[name]))
        cases[name] = (
            None if gaps.max() <= TOLERANCE else f"differs by {gaps.max():.1e} at step {int(gaps.argmax()) + 1}"
        )
    return count("R26", f"losses of {STEPS} steps are the golden ones", cases)


def reached(event: str, arguments: tuple[Any, ...]) -> str:
    """The host that an audit event looks up or connects to, if it is not this machine; else empty."""
    if event not in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        return ""
    address = arguments[:1] if event == "socket.getaddrinfo" else arguments[1]
    host = str(address[0]) if isinstance(address, tuple) and address[0] else ""
    return "" if host.startswith(LOCAL) else host


def r27(work: Path, full: bool) -> Figure:
    """A fit with checkpoints, answers, saving and loading: no address but loopback is looked up or connected to."""
    del full
    calls: list[str] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if listening and (address := reached(event, arguments)):
            calls.append(f"{event} {address}")

    listening = True
    sys.addaudithook(hook)  # cannot be taken away again: from here on it only looks at `listening`
    predictor(epochs=1).fit(make_rows(12), valid=0.25, save_path=work / "run", quiet=True)
    FusionPredictor.load(work / "run").predict(make_rows(3))
    listening = False
    return count("R27", "no network", {"fit, save, load, predict": "; ".join(calls) or None})
