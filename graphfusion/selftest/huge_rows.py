"""One row that is far larger than the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphfusion.predictor import FusionPredictor
from graphfusion.selftest.apart import peak_mb
from graphfusion.selftest.figure import Figure, count
from graphfusion.selftest.rows import make_rows, predictor

ROWS, HUGE = 20, 11
WHAT = "a huge row is cut, and named"
MOST = 1.5
"""Peak memory of a fit with the row over that of the fit without it."""


def r17(work: Path, full: bool) -> Figure:
    """One row of a million words, of 20,000 vectors of 4 numbers, of hours of sound (noise at 1 kHz, in memory) among ordinary
    ones: cut to the budget, the report names the row, and the process of the fit takes at most 1.5 times the memory of one
    without such a row. `full` takes ten hours of sound, else one, and weighs all, else the words.
    """
    del work
    base = _weighed("")
    if base["why"]:
        return count("R17", WHAT, {"without such a row": base["why"]})
    plain = base["peak"]
    cases: dict[str, str | None] = {}
    most = 0.0
    for name in ("a million words", "20,000 vectors", f"{10 if full else 1} h of sound"):
        if not full and name != "a million words":
            cases[name] = _cut_rows(name)
            continue
        found = _weighed(name)
        most = max(most, found["peak"] / plain)
        heavy = f"{found['peak']:.0f} MB, {plain:.0f} without the row" if found["peak"] > MOST * plain else None
        cases[name] = found["why"] or heavy
    cases["above max_nodes"] = _cut_to_the_budget()
    return count("R17", WHAT, cases, f"memory at most {most:.2f} times")


def weigh(name: str) -> None:
    """Fit with the row `name` (none: ""); print what was wrong and the peak of this process in MB as JSON."""
    why = _cut_rows(name)
    print(json.dumps({"why": why, "peak": peak_mb()}))


def _weighed(name: str) -> dict[str, Any]:
    """What `weigh` prints in a process of its own."""
    command = "import sys; from graphfusion.selftest.huge_rows import weigh; weigh(sys.argv[1])"
    done = subprocess.run(  # noqa: S603 - our own interpreter and words
        [sys.executable, "-c", command, name],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    if done.returncode:
        return {"why": f"ended the process: {done.stderr[-200:]}", "peak": 0.0}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _cells(name: str) -> dict[str, Any]:
    if name == "a million words":
        return {"caption": "word " * 1_000_000}
    if name == "20,000 vectors":
        return {"clip": np.zeros((20_000, 4), np.float32)}
    if name.endswith("h of sound"):
        noise = np.random.default_rng(0).standard_normal(int(name.split()[0]) * 3600 * 1_000, np.float32)
        return {"sound": {"array": noise, "sampling_rate": 1_000}}
    return {}


def _cut_rows(name: str) -> str | None:
    rows = make_rows(ROWS)
    rows[HUGE] |= _cells(name)
    fitted = predictor(epochs=1).fit(rows, valid=None, quiet=True)
    assert fitted.report is not None
    cut = [i.row for i in fitted.report.incidents if i.action == "cut"]
    return None if cut == ([HUGE] if name else []) else f"cut: rows {cut}"


def _cut_to_the_budget() -> str | None:
    rows = make_rows(ROWS)
    rows[3]["clip"] = np.zeros((400, 4), np.float32)
    fitted = predictor(epochs=1, max_nodes=200).fit(rows, valid=None, quiet=True)
    assert fitted.report is not None
    named = [i.row for i in fitted.report.incidents if i.action == "cut"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the row is cut, once more
        sizes = [_nodes(fitted, row) for row in rows]
    return None if named == [3] and max(sizes) <= 200 else f"named {named}, largest {max(sizes)}"


def _nodes(fitted: FusionPredictor, row: Mapping[str, Any]) -> int:
    return sum(len(store) for store in fitted.graph([row]).nodes.values())
