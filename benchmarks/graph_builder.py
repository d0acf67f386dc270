"""Graph building beside the loop that articles print.

    python benchmarks/graph_builder.py

A window of ±10 over one sequence of 4,000 nodes, as a loop over all pairs of nodes (the published form) and as
`SequenceWindow` in a `GraphBuilder`. Interleaved rounds, medians, the ratio of the two; the edges are compared first.
Expected: milliseconds against seconds. Result: benchmarks/results/graph_builder.csv.
"""

from __future__ import annotations

import csv
import os
import platform
import statistics
import time
from pathlib import Path

import numpy as np

from graphfusion.cli.doctor import processor
from graphfusion.graph_builder import GraphBuilder, SequenceWindow
from graphfusion.modalities import NodeType, Tokens

NODES, WINDOW, ROUNDS = 4_000, 10, 5
RESULTS = Path(__file__).parent / "results"


def published_loop(nodes: int, window: int) -> list[tuple[int, int]]:
    """Every pair is looked at; those at most `window` apart become edges."""
    edges = []
    for target in range(nodes):
        for source in range(nodes):
            if source != target and abs(source - target) <= window:
                edges.append((source, target))  # noqa: PERF401 - as it is printed
    return edges


def main() -> None:
    """Compare, measure, print, write."""
    layout = NodeType("features", (4,))
    builder = GraphBuilder({"text": layout}, [SequenceWindow("text", WINDOW)])
    tokens = Tokens(np.zeros((NODES, 4), np.float32), np.arange(NODES)[:, None], np.empty((NODES, 0)))
    edges = builder.build([{"text": tokens}]).edge_index(("text", "window", "text"))
    assert edges.T.tolist() == [list(pair) for pair in published_loop(NODES, WINDOW)], "the edges differ"
    seconds: dict[str, list[float]] = {"published loop": [], "GraphBuilder": []}
    for _ in range(ROUNDS):
        for name, run in (
            ("published loop", lambda: published_loop(NODES, WINDOW)),
            ("GraphBuilder", lambda: builder.build([{"text": tokens}])),
        ):
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = median["published loop"] / median["GraphBuilder"]
    print(f"{NODES:,} nodes, window ±{WINDOW}, {edges.shape[1]:,} edges, the same in both")
    print(f"published loop / GraphBuilder = {ratio:,.0f}")
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "graph_builder.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["nodes", "window", "edges", "ratio_loop_to_builder", "rounds", "machine", "numpy", "python"])
        machine = f"{processor()}, {os.cpu_count()} cores"
        writer.writerow(
            [NODES, WINDOW, edges.shape[1], round(ratio), ROUNDS, machine, np.__version__, platform.python_version()]
        )


if __name__ == "__main__":
    main()
