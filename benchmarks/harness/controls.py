"""The controls that stand beside every run of the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from benchmarks.harness.runs import Data, Run

ENGINE, LATE = "graph", "late fusion"
ABLATIONS = ("no edges", "shuffled edges")
"""The engine with something taken away; the others are models that one might use instead."""


def with_controls(data: Data, engine: Mapping[str, Any], seed: int, rows: int = 0) -> list[Run]:
    """The engine, and beside it, trained the same way: each modality alone, each pair of three or more, late fusion, concat,
    a dense Transformer with as many parameters over the same tokens, the engine without edges and with shuffled edges.
    `rows`: training rows of the controls, 0 for all.
    """
    graph = engine.get("graph", "hub")
    changed: dict[str, dict[str, Any]] = {
        "concat": {"fusion": "concat"},
        "Transformer": {"fusion": "transformer"},
        "no edges": {"graph": "none"},
        "shuffled edges": {"graph": f"{graph}_shuffled"},
    }
    runs = [Run(ENGINE, seed, engine)]
    if rows:
        runs.append(Run(f"{ENGINE}, {rows:,} rows", seed, engine, rows=rows))
    for size in (1, 2):
        if size < len(data.inputs):
            runs += [Run(" + ".join(kept), seed, engine, kept, rows) for kept in combinations(data.inputs, size)]
    for name, settings in changed.items():
        match = engine if name == "Transformer" else None
        runs.append(Run(name, seed, {**engine, **settings}, rows=rows, match=match))
    return [*runs, *([Run(LATE, seed, engine, rows=rows)] if len(data.inputs) > 1 else [])]


def single_modalities(runs: Sequence[Run], seed: int) -> list[Run]:
    """The runs of one modality each, of one seed."""
    return [r for r in runs if len(r.inputs) == 1 and r.seed == seed]
