"""Every way of fusing at equal parameters, beside the engine and its controls: all strategies on digit_ops and cmu_mosi, the
strongest three on degraded_digits, easy_vqa, esc10 and cmu_mosi with the sentences around.

    python benchmarks/fusion_strategies.py --data ../shared/data --only cmu_mosi   # minutes
    python benchmarks/fusion_strategies.py --data ../shared/data   # what the CSV lacks: hours, may be stopped at any time
    python benchmarks/fusion_strategies.py --table                 # the table and the plots again, from the CSV alone

One word, one row: `FusionPredictor(fusion=WORD)`, everything else as in `benchmarks/engine.py` (from scratch, the epoch chosen on
validation rows, test rows sealed during the fit), on as many rows as its controls there, and as many parameters as the engine
within 5 %: by the hidden width of a part (`feedforward`), which stands in the settings of each run. Learning rate, epochs, dropout
and graph are those of the recipe, chosen for the engine before any test row was read; no other word was tuned.

The strongest three are those of digit_ops' validation rows. Runs that engine.csv has are taken from there. `weighted_vote` is
left out on cmu_mosi, whose validation rows are blind; where it is not, the validation score in its row is that of equal weights,
since its own are fitted on those rows. esc10 has one modality: its rows tell how tokens are mixed, not how modalities are fused.

What a word costs: `python benchmarks/epochs.py --strategies`, side by side in one run; its table stands at the end of this one.
Times of fits are compared within a commit only. Memory of runs before commit 3ae1af6 is given less 290 MB of libraries (see
engine.py).

Results: benchmarks/results/fusion_strategies.csv (one row a run), .md, .png, and fusion_strategies_weights.png: how the strategies
that weigh modalities weigh them.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script sees its own folder only

from benchmarks.engine import CONTROL_ROWS, ENGINES, data_of, mosi_around
from benchmarks.harness.command import Entry, main
from benchmarks.harness.controls import ABLATIONS, LATE, with_controls
from benchmarks.harness.results import read
from benchmarks.harness.runs import Data, Run
from benchmarks.harness.tables import Row, mean_of, newest
from graphfusion.config import ModelConfig
from graphfusion.fusion import FUSIONS

NAME = "fusion_strategies"
SEEDS = 3
"""On digit_ops, of which a run takes minutes; 5 on the others."""
STRONGEST: tuple[str, ...] = ("lstm", "gatv2", "shared_trunk")
"""The three words, beside the engine and its controls, that are best on digit_ops' validation rows: named once its table was
complete, before any test row of the other data sets was read for them; a test holds them to it. The third is 0.5 points above the
fourth (dot_transformer), which three seeds do not tell from chance.
"""
TOO_LARGE = {"cmu_mosi_around": ("gatv2",)}
"""Words that have more parameters than the engine even with `feedforward=1`: two maps a relation, and there are many relations."""
CONTROLS = ("graph", "gat", "concat", "transformer")
"""Words that are the engine or that `with_controls` has already."""
COLUMNS = (*STRONGEST, "transformer", "concat", *ABLATIONS, LATE)
"""Of the table of all data sets."""

EQUAL = ("mean", "output_average", "soft_vote", "hard_vote")
"""Words whose weights are equal by construction: nothing to plot."""


def every_strategy(data: Data, seed: int) -> list[Run]:
    """The engine, its controls, and each word with as many parameters as the engine; `weighted_vote` only where validation rows
    are to be trusted, and not the word of the mode that is the engine's default, which is the engine again.
    """
    left_out = {ModelConfig().attention, *(() if data.choose else ("weighted_vote",))}
    return _beside_controls(data, seed, [word for word in FUSIONS if word not in left_out])


def strongest(data: Data, seed: int) -> list[Run]:
    """The engine, its controls, and the strongest words, as far as they can be as small as the engine."""
    return _beside_controls(data, seed, [word for word in STRONGEST if word not in TOO_LARGE.get(data.name, ())])


def _beside_controls(data: Data, seed: int, words: Sequence[str]) -> list[Run]:
    """The engine and its controls by the words they have here, then the words that are not among them, on as many rows."""
    engine, few = ENGINES[data.name], CONTROL_ROWS.get(data.name, 0)
    controls = with_controls(data, engine, seed, few)
    there = [replace(r, model=r.model.lower()) if r.model == "Transformer" else r for r in controls]
    more = [word for word in words if word not in {r.model for r in there}]
    return [*there, *(Run(word, seed, {**engine, "fusion": word}, rows=few, match=engine) for word in more)]


def best_of(rows: Sequence[Row], count: int = 3) -> tuple[str, ...]:
    """The words that are best on digit_ops' validation rows; none before all that have run have all their seeds. `weighted_vote`
    stands there with equal weights, since its own are fitted on these rows.
    """
    rows = [
        r for r in newest(rows) if r["data"] == "digit_ops" and r["model"] in FUSIONS and r["model"] not in CONTROLS
    ]
    found = {w: [r for r in rows if r["model"] == w] for w in dict.fromkeys(r["model"] for r in rows)}
    if any(len(own) < SEEDS for own in found.values()):
        return ()
    return tuple(sorted(found, key=lambda w: -mean_of(found[w], "valid_accuracy"))[:count])


ENTRIES = [
    Entry("cmu_mosi", data_of("cmu_mosi"), every_strategy, 5),
    Entry("digit_ops", data_of("digit_ops"), every_strategy, SEEDS),
    *(Entry(name, data_of(name), strongest, 5) for name in ("degraded_digits", "easy_vqa", "esc10")),
    Entry("cmu_mosi_around", mosi_around, strongest, 5),
]


def plot_weights(path: Path) -> None:
    """Mean weight of each modality over the scored rows, by strategy and data set, with its deviation over seeds."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    rows = [r for r in newest(read(path)) if r.get("shares") and r["model"] not in EQUAL]
    rows = [r for r in rows if len(json.loads(r["shares"])) > 1]
    names = list(dict.fromkeys(r["data"] for r in rows))
    if not names:
        return
    colours = {
        m: colormaps["tab10"](i) for i, m in enumerate(dict.fromkeys(m for r in rows for m in json.loads(r["shares"])))
    }
    words = {name: list(dict.fromkeys(r["model"] for r in rows if r["data"] == name)) for name in names}
    sizes = [2 + len(each) for each in words.values()]
    figure = Figure(figsize=(9, 1 + 0.35 * sum(sizes)), layout="constrained")
    for panel, name in zip(figure.subplots(len(names), squeeze=False, height_ratios=sizes)[:, 0], names, strict=True):
        for place, word in enumerate(words[name]):
            found = [json.loads(r["shares"]) for r in rows if r["data"] == name and r["model"] == word]
            for k, modality in enumerate(found[0]):
                each = [shares[modality] for shares in found]
                high, spread = 0.8 / len(found[0]), stdev(each) if len(each) > 1 else 0.0
                at = place - 0.4 + (k + 0.5) * high
                label = modality if place == 0 else None
                panel.barh(at, fmean(each), high, xerr=spread, color=colours[modality], label=label)
        panel.set_yticks(range(len(words[name])), [f"{w} (gates)" if w == "gated" else w for w in words[name]])
        panel.invert_yaxis()
        panel.set_title(name, loc="left")
        panel.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    panel.set_xlabel("mean weight of a modality over the scored rows (bars: deviation over seeds; gates are no shares)")
    figure.savefig(path.with_name(f"{path.stem}_weights.png"), dpi=110)


def costs(path: Path) -> str:
    """The table of what an epoch of each strategy takes, from the CSV of `epochs.py --strategies` beside this one; empty where
    there is none.
    """
    path = path.with_name("strategy_epochs_cpu.csv")
    if not path.is_file():
        return ""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = list(dict.fromkeys(r["rows_of"] for r in rows))
    took = {(r["model"], r["rows_of"]): r["times_the_engine"] for r in rows}
    lines = [
        "\n### what an epoch costs",
        f"| times the engine's | {' | '.join(f'rows of {kind}' for kind in kinds)} |",
        f"| --- |{' --- |' * len(kinds)}",
        *(
            f"| {m} | {' | '.join(took.get((m, k), '–') for k in kinds)} |"
            for m in dict.fromkeys(r["model"] for r in rows)
        ),
    ]
    made = rows[0]
    told = (
        f"As many parameters within 5 %. Medians of {made['rounds']} interleaved rounds, one thread. {made['machine']}; "
        f"{made['versions']}; commit {made['commit']}; `{made['command']}`."
    )
    return "\n".join([lines[0], "", *lines[1:], "", told, ""])


def run(arguments: Sequence[str] | None = None) -> int:
    """See the module; exit status as in `benchmarks.harness.command.main`."""
    return main(NAME, __doc__, ENTRIES, arguments, also=plot_weights, below=costs, columns=COLUMNS)


if __name__ == "__main__":
    sys.exit(run())
