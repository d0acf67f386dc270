"""Seconds of a training epoch: the engine beside the same model on PyG's layers, and a dense Transformer over the same tokens.

    python benchmarks/epochs.py                                # on a CPU, one thread; prints ratios
    python benchmarks/epochs.py --strategies                   # the engine beside every other way of fusing instead
    PYTHONPATH=. python3 benchmarks/epochs.py --device cuda    # on a GPU machine; attention runs on the Triton kernels

An epoch is what `fit` does between two validations: batches are drawn and built, copied, and each takes an optimiser step. The
models have the same encoders and heads, and as many parameters within 5 %; epochs are interleaved (A B C A B C), medians are
compared. Rows are those of `make demo` (dialled digits), and rows of easy-VQA's shape (a picture of 64 × 64, a question of nine
words, thirteen answers), drawn at random, for time only. In float32, and on CUDA in bfloat16 too.

Results: benchmarks/results/epochs_<device>.csv; with --strategies strategy_epochs_<device>.csv.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script sees its own folder only

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.harness.environment import ROOT, environment
from benchmarks.recipes import load_recipe
from graphfusion import FusionPredictor, Image, Text, matched_feedforward
from graphfusion.config import ModelConfig
from graphfusion.data import Budget, Table, read_table
from graphfusion.fusion import FUSIONS, GraphFusion
from graphfusion.graph_builder import EdgeType
from graphfusion.nn import HeteroLayer
from graphfusion.ops.hetero_attention import Pairs
from graphfusion.training.fit import start_fit
from graphfusion.training.rows import Batches, Collate
from graphfusion.training.step import take_step
from graphfusion.training.transfer import ahead

ENGINE = "graphfusion"
MODELS = {ENGINE: "graph", "PyG layers": "on_pyg", "dense Transformer": "transformer"}
"""Name in the table → fusion strategy."""
STRATEGIES = {ENGINE: "graph"} | {word: word for word in FUSIONS if word not in ("graph", ModelConfig().attention)}
"""The word of the engine's default mode is the engine again."""
WORDS = (
    "what", "is", "the", "color", "of", "shape", "a", "blue", "red",
    "green", "yellow", "teal", "black", "brown", "gray", "circle", "rectangle", "triangle",
)  # fmt: skip


class PyGMessages(nn.Module):
    """In the place of `HeteroAttention`: PyG's `HeteroConv` of a `GATConv` (the engine's default mode) for each relation, over
    edge lists.
    """

    def __init__(self, edge_types: Sequence[EdgeType], dim: int, heads: int) -> None:
        super().__init__()
        from torch_geometric.nn import GATConv, HeteroConv

        convs = {t: GATConv((dim, dim), dim // heads, heads, add_self_loops=False) for t in edge_types}
        self.layer = HeteroConv(convs, aggr="sum")

    def plans(
        self, _: Mapping[str, int], pairs: Mapping[EdgeType, Pairs], ptr: Mapping[str, Tensor]
    ) -> dict[EdgeType, Tensor]:
        """Edge lists of the relations."""
        return {t: p.edge_index(ptr[t[0]], ptr[t[2]]) for t, p in pairs.items()}

    def forward(self, x: Mapping[str, Tensor], plans: dict[EdgeType, Tensor], _: object) -> dict[str, Tensor]:
        """X (N, D) of each type → messages (N, D) of the receiving types."""
        return self.layer(dict(x), plans)


class PyGLayer(HeteroLayer):
    """`HeteroLayer` with PyG's messages."""

    def messages(
        self, _: Sequence[str], edge_types: Sequence[EdgeType], dim: int, heads: int, **options: Any
    ) -> nn.Module:
        """See `HeteroLayer`."""
        return PyGMessages(edge_types, dim, heads)


class PyGFusion(GraphFusion):
    """The engine with `PyGLayer`."""

    layer = PyGLayer


def demo_rows(out: Path, count: int) -> tuple[Table, dict[str, Any]]:
    """The first rows of `make demo`, and its settings."""
    recipe, folder = load_recipe("digit_ops"), out / "digit_ops_dialled"
    if not all((folder / f"{split}.parquet").is_file() for split in recipe.ROWS["dialled"]):
        recipe.main(["--out", str(folder), "--sound", "dialled"])
    return read_table(folder / "train.parquet").take(range(count)), {"target": "answer", "dropout": 0.0}


def easy_vqa_rows(_: Path, count: int) -> tuple[Table, dict[str, Any]]:
    """Rows of easy-VQA's shape, and the settings of its recipe."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "question": " ".join(rng.choice(WORDS, 9)),
            "image": rng.integers(0, 256, (64, 64, 3), dtype=np.uint8),
            "answer": f"answer {i % 13}",
        }
        for i in range(count)
    ]
    columns = {"question": Text(), "image": Image(size=32, patch=4)}
    return read_table(rows), {"target": "answer", "columns": columns, "graph": "full", "dropout": 0.0}


TABLES = {"demo": demo_rows, "easy_vqa": easy_vqa_rows}


def epoch_of(settings: Mapping[str, Any], table: Table, precision: str, device: str) -> Callable[[], None]:
    """A call that fits one epoch on rows that are read already."""
    predictor = FusionPredictor(**settings, precision=precision, device=device, seed=0)
    made, config = predictor.build(table), predictor.config.training
    budget = Budget(config.batch_size, config.max_nodes, config.max_edges)
    rows = Batches.of(made.tokenize(table, "error", True, budget)[0], budget, Collate(made.builder, made.tasks))
    fit = start_fit(made.model, config, 0)

    def epoch() -> None:
        fit.step_module.train()
        for i, parts in enumerate(ahead(rows.epoch(0, 0), fit.accelerator.device)):
            take_step(fit, [parts], config.lr, 0, i, lambda row: rows.alone(0, 0, row))
        if device == "cuda":
            torch.cuda.synchronize()

    return epoch


def measure(name: str, models: Mapping[str, str], options: argparse.Namespace, precision: str) -> list[dict[str, Any]]:
    """A row for each model."""
    FUSIONS["on_pyg"] = PyGFusion
    table, settings = TABLES[name](options.out, options.rows)
    epochs = {}
    for model, fusion in models.items():
        one = {**settings, "fusion": fusion}
        if fusion != "graph":
            one["feedforward"] = matched_feedforward(FusionPredictor(**one), FusionPredictor(**settings), table)
        epochs[model] = epoch_of(one, table, precision, options.device)
    seconds: dict[str, list[float]] = {model: [] for model in models}
    for round_ in range(options.rounds + 1):  # the first one warms up
        for model, epoch in epochs.items():
            began = time.perf_counter()
            epoch()
            if round_:
                seconds[model].append(time.perf_counter() - began)
    middle = {model: statistics.median(each) for model, each in seconds.items()}
    return [
        {
            "rows_of": name, "precision": precision, "model": model, "rows": options.rows, "epoch_seconds": f"{s:.4g}",
            "times_the_engine": f"{s / middle[ENGINE]:.3g}", "rounds": options.rounds,
        }
        for model, s in middle.items()
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", nargs="+", choices=list(TABLES), default=list(TABLES), help="these rows")
    parser.add_argument("--strategies", action="store_true", help="every way of fusing, in place of PyG's layers")
    parser.add_argument("--rows", type=int, default=1_024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(".demo"), help="folder of the demo's tables")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here.")
    around = environment()
    if options.device == "cuda":
        os.environ.setdefault("GRAPHFUSION_ATTENTION", "triton")
        around["machine"] = torch.cuda.get_device_name()
    else:
        torch.set_num_threads(1)
    models, found = STRATEGIES if options.strategies else MODELS, []
    for precision in ("no", "bf16") if options.device == "cuda" else ("no",):
        for name in options.only:
            found += measure(name, models, options, precision)
            for row in found[-len(models) :]:
                print(
                    f"{row['rows_of']:<9} {row['precision']:<5} {row['model']:<24} {row['epoch_seconds']:>8} s an epoch of "
                    f"{row['rows']:,} rows, {row['times_the_engine']} times the engine's",
                    flush=True,
                )
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / f"{'strategy_' if options.strategies else ''}epochs_{options.device}.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*found[0], *around])
        writer.writeheader()
        writer.writerows(row | around for row in found)
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
