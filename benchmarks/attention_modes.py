"""Which attention mode the engine uses by default: `gat`, `gatv2` and `dot` on real-speech digit-ops, by validation rows.

    python benchmarks/attention_modes.py --source ../shared/data/digits.tar.gz     # 2 seeds, about an hour on one core
    python benchmarks/attention_modes.py --table                                   # the table again, from the CSV alone

Settings and rows of benchmarks/digit_ops.py (graph "hub"), the epoch chosen on the validation rows; the test rows are never
read. What a mode costs: benchmarks/attention.py.

Results: benchmarks/results/attention_modes.csv, one row a fit.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script sees its own folder only

from benchmarks.digit_ops import RESULTS, ROOT, SETTINGS, environment
from graphfusion.ops.hetero_attention import MODES

FILE = RESULTS / "attention_modes.csv"


def fit(mode: str, seed: int, tables: Path) -> dict[str, Any]:
    """One fit: its best validation accuracy and what it cost."""
    import torch

    import graphfusion

    torch.set_num_threads(1)
    predictor = graphfusion.FusionPredictor(target="answer", seed=seed, attention=mode, graph="hub", **SETTINGS)
    predictor.fit(tables / "train.parquet", valid=tables / "valid.parquet")
    best = max(predictor.history, key=lambda h: (h["valid_score"], -h["valid_loss"]))
    return {
        "mode": mode,
        "seed": seed,
        "valid_accuracy": round(best["valid_accuracy"], 5),
        "best_epoch": best["epoch"],
        "parameters": sum(p.numel() for p in predictor.pipeline.model.parameters()),
        "settings": str(SETTINGS),
        **environment(),
    }


def save(row: dict[str, Any]) -> None:
    """Append a fit to the CSV."""
    new = not FILE.is_file()
    with FILE.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def read() -> list[dict[str, str]]:
    """The fits that are there."""
    if not FILE.is_file():
        return []
    with FILE.open(newline="") as file:
        return list(csv.DictReader(file))


def table(rows: list[dict[str, str]]) -> str:
    """One line a mode, as Markdown."""
    lines = ["| mode | seeds | validation accuracy, % | parameters |", "| --- | --- | --- | --- |"]
    for mode in MODES:
        own = [r for r in rows if r["mode"] == mode]
        if not own:
            continue
        score = 100 * np.array([float(r["valid_accuracy"]) for r in own])
        each = ", ".join(f"{s:.2f}" for s in score)
        lines.append(f"| {mode} | {len(own)} | {score.mean():.2f} ({each}) | {int(own[0]['parameters']):,} |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--source", type=Path, help="digits.tar.gz or its folder; without it the sources are downloaded"
    )
    parser.add_argument("--tables", type=Path, default=ROOT / "build" / "digit_ops", help="folder for the tables")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--table", action="store_true", help="no fits: print the table of those that are there")
    options = parser.parse_args()
    if not options.table:
        if not (options.tables / "test.parquet").is_file():
            command = [sys.executable, ROOT / "datasets/digit_ops/convert.py", "--out", options.tables]
            subprocess.run([*command, *(["--source", options.source] if options.source else [])], check=True)
        done = {(r["mode"], int(r["seed"])) for r in read()}
        for seed in options.seeds:
            for mode in MODES:
                if (mode, seed) not in done:
                    save(fit(mode, seed, options.tables))
    print(table(read()))


if __name__ == "__main__":
    main()
