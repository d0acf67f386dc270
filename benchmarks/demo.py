"""The main job in a few minutes: digit-ops with dialled tones, from tables to answers.

    python benchmarks/demo.py --out .demo          (this is `make demo`)

Image = a handwritten digit a (scikit-learn's bundled set), sound = a dialled digit b (the standard's two tones), text = a
question in one of twelve phrases for a + b, |a − b|, the larger, the smaller. Expected: at least 95 % on handwriting that
training never saw, and at most 40 % with any modality withheld (the best possible guess from image and sound alone is right
in 39 % of the rows).
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import torch
from recipes import load_recipe

import graphfusion
from graphfusion.cli.doctor import processor
from graphfusion.data import read_table
from graphfusion.graph_builder import draw

MODALITIES = ("image", "sound", "question")


def make_tables(out: Path) -> Path:
    """The three tables below `out`, made once."""
    folder = out / "digit_ops_dialled"
    convert = load_recipe("digit_ops")
    if not all((folder / f"{split}.parquet").is_file() for split in convert.ROWS["dialled"]):
        convert.main(["--out", str(folder), "--sound", "dialled"])
    return folder


def subset_scores(predictor: graphfusion.FusionPredictor, test: Any) -> dict[str, float]:
    """Test accuracy for every subset of modalities that the model is given."""
    scores = {}
    for size in (3, 2, 1):
        for kept in itertools.combinations(MODALITIES, size):
            without = tuple(name for name in MODALITIES if name not in kept)
            scores[" + ".join(kept)] = predictor.evaluate(test, without=without)["accuracy"]
    return scores


def draw_confusion(predictor: graphfusion.FusionPredictor, test: Any, path: Path) -> None:
    """Confusion matrix of the test rows, as a picture."""
    from matplotlib.figure import Figure
    from sklearn.metrics import ConfusionMatrixDisplay

    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots()
    truth, answers = list(test.column("answer")), predictor.predict(test)
    ConfusionMatrixDisplay.from_predictions(truth, answers, ax=axes, cmap="Blues", colorbar=False)
    right = sum(t == a for t, a in zip(truth, answers, strict=True)) / len(truth)
    axes.set_title(f"digit-ops, held-out handwriting: {right:.1%} of {len(truth):,} right")
    figure.savefig(path, dpi=110)


def show(predictor: graphfusion.FusionPredictor, folder: Path, out: Path) -> dict[str, float]:
    """Print and draw what the model learned; scores by subset of modalities."""
    test = read_table(folder / "test.parquet")
    scores = subset_scores(predictor, test)
    print("\naccuracy on held-out handwriting, by what the model is given:")
    for kept, score in scores.items():
        print(f"  {kept:<28} {score:6.1%}")
    first = test.take([0])
    draw(predictor.graph(first), out / "graph.png", title=f"“{first.column('question')[0]}”")
    draw_confusion(predictor, test, out / "confusion.png")
    print(f"\npictures: {out / 'graph.png'}, {out / 'confusion.png'}")
    again = graphfusion.FusionPredictor.load(out / "run")
    three = test.take([0, 1, 2])
    print(f"loaded from {out / 'run'}, three rows:")
    for question, truth, answer, p in zip(
        three.column("question"), three.column("answer"), again.predict(three), again.predict_proba(three), strict=True
    ):
        print(f"  {question:<44} truth {truth:>2}  answer {answer:>2}  ({p.max():.0%})")
    return scores


def main() -> int:
    """Command line; exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(".demo"), help="folder for tables, run and pictures")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--results", type=Path, help="folder for a JSON file of the scores and the machine")
    parser.add_argument(
        "--at-least", type=float, default=0.0, help="exit status 1 if accuracy with all three is below this"
    )
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here.")
    began = time.monotonic()
    folder = make_tables(options.out)
    # no augmentation: a masked band of frequencies may be one of the two tones that say the digit
    settings = {
        "epochs": options.epochs,
        "dropout": 0.0,
        "augment": 0.0,
        "modality_dropout": 0.05,
        "device": options.device,
    }
    predictor = graphfusion.FusionPredictor(target="answer", preset="fast", seed=0, **settings)
    predictor.fit(
        folder / "train.parquet", valid=folder / "valid.parquet", save_path=options.out / "run", resume="restart"
    )
    fitted = time.monotonic() - began
    scores = show(predictor, folder, options.out)
    total = time.monotonic() - began
    print(f"\n{scores[' + '.join(MODALITIES)]:.1%} with all three; {total:.0f} s in all, {fitted:.0f} s of them to fit")
    if options.results:
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() and options.device != "cpu" else ""
        record = {
            "command": f"python benchmarks/demo.py --device {options.device} --epochs {options.epochs}",
            "device": gpu or processor(),
            "torch": torch.__version__,
            "seed": 0,
            "fit_seconds": round(fitted, 1),
            "accuracy": {kept: round(score, 4) for kept, score in scores.items()},
        }
        options.results.mkdir(parents=True, exist_ok=True)
        kind = "cuda" if gpu else "cpu"
        (options.results / f"demo_{kind}.json").write_text(json.dumps(record, indent=1) + "\n")
    if scores[" + ".join(MODALITIES)] < options.at_least:
        print(f"below {options.at_least:.1%}, which was asked for")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
