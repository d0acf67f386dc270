"""The controls that stand beside every run of the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from benchmarks.harness.runs import Data, Run

ENGINE, LATE = "graph", "late fusion"
ABLATIONS = ("no edges", "shuffled edges")
"""The engine with something taken away."""
OTHERS = ("Transformer", "concat")
"""Models that one might use instead."""


def with_controls(data: Data, engine: Mapping[str, Any], seed: int, rows: int = 0) -> list[Run]:
    """The engine, and beside it, trained the same way and with as many parameters (within 5 %): each modality alone, each
    pair of three or more, concat, a dense Transformer over the same tokens, the engine without edges and with shuffled
    edges; and late fusion of the single modalities. `rows`: training rows of the controls, 0 for all.
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
    parts = data.modalities()
    for names in (names for size in (1, 2) if size < len(parts) for names in combinations(parts, size)):
        columns = tuple(column for name in names for column in parts[name])
        runs.append(Run(" + ".join(names), seed, engine, columns, rows, match=engine))
    for name, settings in changed.items():
        match = None if name == "shuffled edges" else engine
        runs.append(Run(name, seed, {**engine, **settings}, rows=rows, match=match))
    return [*runs, *([Run(LATE, seed, engine, rows=rows)] if len(parts) > 1 else [])]


def single_modalities(runs: Sequence[Run], data: Data) -> list[Run]:
    """The runs of one modality each."""
    return [r for r in runs if r.model in data.modalities()]
