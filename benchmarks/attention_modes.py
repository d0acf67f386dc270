"""Which attention mode the engine uses by default: `gat`, `gatv2`, `dot` and mixtures by kind of relation, accuracy and cost.

    python benchmarks/attention_modes.py --data ../shared/data     # what the CSV lacks; may be stopped at any time
    python benchmarks/attention_modes.py --table                   # the table and the plot again, from the CSV alone

On digit_ops (graph "hub": neighbours and hub nodes) and on 5,000 questions of easy_vqa (graph "full": every token sees every
patch, which needs a lookup by content, and `gat` ranks the patches alike for every token; Brody et al. 2022). All scores are of
validation rows, on which the epoch is chosen too; of test rows the inputs alone are looked at, for rows on both sides. The default
is the mode that is best over both; where two are within chance, the one whose layer costs less (`benchmarks/attention.py`).
Mixtures name the mode of the relations between modalities ("full") and leave the others to the first.

Modes differ in size: `parameters` says how much. Results: benchmarks/results/attention_modes.csv (one row a run), .md, .png, and
attention_modes_costs.png: accuracy against the time of a fit.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script sees its own folder only

from benchmarks.engine import ENGINES, data_of
from benchmarks.harness.command import Entry, main
from benchmarks.harness.results import read
from benchmarks.harness.runs import Data, Run
from benchmarks.harness.statistics import interval
from benchmarks.harness.tables import mean_of
from graphfusion.config import ModelConfig

DEFAULT = ModelConfig().attention
MODES: dict[str, dict[str, Any]] = {
    "gatv2": {"attention": "gatv2"},
    "gat": {"attention": "gat"},
    "dot": {"attention": "dot"},
}
MIXTURES: dict[str, dict[str, Any]] = {
    "gat, dot across": {"attention": "gat", "relation_attention": {"full": "dot"}},
    "gat, gatv2 across": {"attention": "gat", "relation_attention": {"full": "gatv2"}},
}


def digit_ops(_: Data, seed: int) -> list[Run]:
    """One mode for all relations."""
    return [Run(name, seed, {**ENGINES["digit_ops"], **mode}, split="valid") for name, mode in MODES.items()]


def easy_vqa(_: Data, seed: int) -> list[Run]:
    """Mixtures too: there are relations of all pairs."""
    found = {**MODES, **MIXTURES}
    return [Run(name, seed, {**ENGINES["easy_vqa"], **mode}, rows=5_000, split="valid") for name, mode in found.items()]


def plot_costs(path: Path) -> None:
    """Accuracy with its 95 % interval over seeds against the time of a fit, in those of the default mode."""
    from matplotlib.figure import Figure

    rows = read(path)
    names = list(dict.fromkeys(r["data"] for r in rows))
    figure = Figure(figsize=(9, 1 + 2.6 * len(names)), layout="constrained")
    for panel, name in zip(figure.subplots(len(names), squeeze=False)[:, 0], names, strict=True):
        runs = {m: [r for r in rows if r["data"] == name and r["model"] == m] for m in {**MODES, **MIXTURES}}
        usual = mean_of(runs[DEFAULT], "fit_seconds")
        for mode, own in runs.items():
            if own:
                cost, scores = mean_of(own, "fit_seconds") / usual, np.array([100 * float(r["accuracy"]) for r in own])
                panel.errorbar(
                    cost, scores.mean(), interval(scores) if len(scores) > 1 else 0, fmt="o", capsize=3, label=mode
                )
        panel.set_title(name, loc="left")
        panel.set_ylabel("accuracy, %")
        panel.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    panel.set_xlabel(f"time of a fit, `{DEFAULT}` = 1")
    figure.savefig(path.with_name(f"{path.stem}_costs.png"), dpi=110)


ENTRIES = [Entry("digit_ops", data_of("digit_ops"), digit_ops), Entry("easy_vqa", data_of("easy_vqa"), easy_vqa)]

if __name__ == "__main__":
    sys.exit(main("attention_modes", __doc__, ENTRIES, also=plot_costs, reference=DEFAULT))
