"""What the weights say that strategies give back: of modalities from sample to sample, of tokens within them.

    python benchmarks/weights.py --data ../shared/data        # ten minutes on one thread; --seed 1 for other fits

`modality_attention` and `gated` are fitted on degraded_digits, where a row shows from none to all letters of a word: the table has
the mean weight of each modality over the validation rows with as many letters, and how many of them were answered rightly. A
strategy that chooses anew for each sample should rely on the word where its letters are there. `co_attention` is fitted on
digit_ops and draws which words, patches and stretches of sound it reads from eight validation rows, the first of each wording of
the question. Settings are those of the recipes; no test row is read.

Results: benchmarks/results/weights.csv (one row a strategy, number of letters and modality), weights.png, weights_tokens.png.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script sees its own folder only

from benchmarks.engine import data_of
from benchmarks.harness.environment import environment
from benchmarks.harness.runs import Data
from graphfusion import FusionPredictor
from graphfusion.data import read_table, sealed

RESULTS = Path(__file__).parent / "results"
CHOOSERS = ("modality_attention", "gated")
DRAWN, SHADE = 8, "tab:orange"


def fitted(data: Data, fusion: str, seed: int) -> FusionPredictor:
    """The strategy on the training rows; the epoch is chosen on validation rows, test rows are sealed."""
    folder = data.folders[0]
    predictor = FusionPredictor(**{**data.fit, "fusion": fusion, "seed": seed, "device": "cpu"})
    with sealed(folder / "test.parquet"):
        return predictor.fit(folder / "train.parquet", valid=folder / "valid.parquet")


def weights_by_letters(predictor: FusionPredictor, table: Any) -> list[dict[str, Any]]:
    """For each number of letters that the column `word` shows and each modality: rows, mean weight, share of right answers."""
    letters = np.array([sum(c != "_" for c in word) for word in table.column("word")])
    right = np.array(predictor.predict(table)) == np.array(table.column(predictor.targets[0]))
    found, weights = [], predictor.modality_weights(table)
    for count in sorted(set(letters.tolist())):
        here = letters == count
        for modality, weight in weights.items():
            mean, accuracy = float(weight[here].mean()), float(right[here].mean())
            row = {"letters": count, "rows": int(here.sum()), "modality": modality}
            found.append({**row, "weight": round(mean, 4), "accuracy": round(accuracy, 4)})
    return found


def plot_by_letters(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A panel for each strategy: mean weight of each modality against the letters that are there."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    strategies = list(dict.fromkeys(r["strategy"] for r in rows))
    for panel, strategy in zip(figure.subplots(1, len(strategies), squeeze=False)[0], strategies, strict=True):
        own = [r for r in rows if r["strategy"] == strategy]
        for modality in dict.fromkeys(r["modality"] for r in own):
            line = [(r["letters"], r["weight"]) for r in own if r["modality"] == modality]
            panel.plot(*zip(*line, strict=True), marker="o", label=modality)
        panel.set_xticks(sorted({r["letters"] for r in own}))
        panel.set_xlabel("letters of the word that are there")
        panel.set_ylabel("mean gate" if strategy == "gated" else "mean weight")
        panel.set_ylim(0, 1)
        panel.set_title(strategy)
        panel.legend()
    figure.savefig(path, dpi=110)


def first_of_each(table: Any, column: str, count: int) -> Any:
    """The first row of each value of a column, at most so many."""
    cells = table.column(column)
    return table.take([cells.index(cell) for cell in list(dict.fromkeys(cells))[:count]])


def plot_tokens(predictor: FusionPredictor, table: Any, path: Path) -> None:
    """A row of panels for each row of a digit_ops table: words, patches and stretches of sound, the darker the more they weigh."""
    import soundfile
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from PIL import Image

    weights, graph = predictor.token_weights(table), predictor.graph(table)
    figure = Figure(figsize=(10, 1.3 * len(table)), layout="constrained")
    panels = figure.subplots(len(table), 3, squeeze=False, width_ratios=(4, 1, 3))
    for row, (words, picture, wave) in enumerate(panels):
        spans = {m: s.span[s.ptr[row] : s.ptr[row + 1]].tolist() for m, s in graph.nodes.items()}
        share = {m: np.asarray(weights[m][row]) / np.max(weights[m][row]) for m in spans}
        text = table.column("question")[row]
        for (start, end), dark in zip(spans["question"], share["question"], strict=True):
            words.barh(0, end - start, left=start, height=1, color=SHADE, alpha=float(dark))
        for place, character in enumerate(text):
            words.text(place + 0.5, 0, character, ha="center", va="center", family="monospace", fontsize=8)
        words.set_xlim(0, max(map(len, table.column("question"))))
        picture.imshow(Image.open(io.BytesIO(table.column("image")[row])), cmap="gray_r")
        for (left, top, right, bottom), dark in zip(spans["image"], share["image"], strict=True):
            place, size = (left - 0.5, top - 0.5), (right - left, bottom - top)
            picture.add_patch(Rectangle(place, *size, color=SHADE, alpha=0.6 * float(dark), lw=0))
        samples, rate = soundfile.read(io.BytesIO(table.column("sound")[row]))
        wave.plot(np.arange(len(samples)) / rate, samples, color="black", lw=0.4)
        for (start, end), dark in zip(spans["sound"], share["sound"], strict=True):
            wave.axvspan(start, end, color=SHADE, alpha=0.8 * float(dark), lw=0)
        for panel in (words, picture, wave):
            panel.set_xticks([])
            panel.set_yticks([])
    told = ("question (each token by its share, the largest of a modality darkest)", "image", "sound")
    for panel, name in zip(panels[0], told, strict=True):
        panel.set_title(name, fontsize=8)
    figure.savefig(path, dpi=110)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the sources, where the tables are not made yet")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    made = {**environment(), "seed": options.seed}
    digits = data_of("degraded_digits")(options.data)
    valid = read_table(digits.folders[0] / "valid.parquet")
    rows = [
        {"strategy": fusion, **row, **made}
        for fusion in CHOOSERS
        for row in weights_by_letters(fitted(digits, fusion, options.seed), valid)
    ]
    options.results.mkdir(parents=True, exist_ok=True)
    with (options.results / "weights.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    plot_by_letters(rows, options.results / "weights.png")
    for r in rows:
        counted = f"{r['letters']} letters, {r['rows']} rows, {r['accuracy']:.1%} right"
        print(f"{r['strategy']}, {counted}: {r['modality']} {r['weight']:.3f}")
    sums = data_of("digit_ops")(options.data)
    drawn = first_of_each(read_table(sums.folders[0] / "valid.parquet"), "question", DRAWN)
    plot_tokens(fitted(sums, "co_attention", options.seed), drawn, options.results / "weights_tokens.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
