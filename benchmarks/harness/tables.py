"""Markdown and a plot from the CSV of a table alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.harness.controls import ENGINE
from benchmarks.harness.runs import right_items
from benchmarks.harness.statistics import Numbers, interval, paired_bootstrap, wilcoxon

Row = Mapping[str, str]
COLUMNS = (
    "model", "seeds", "test accuracy, %", "95 % interval", "macro-F1, %", "weighted F1, %", "valid, %", "parameters",
    "fit time", "peak memory",
)  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """One table a data set: models in the order of their runs, costs as ratios to the engine's, then the tests."""
    return "\n".join(_of_data(name, [r for r in rows if r["data"] == name]) for name in _in_order(rows, "data"))


def _of_data(name: str, rows: Sequence[Row]) -> str:
    models = {m: [r for r in rows if r["model"] == m] for m in _in_order(rows, "model")}
    lines = [f"### {name}\n", f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]
    for model in _shown(models):
        own = models[model]
        accuracy = 100 * _numbers(own, "test_accuracy")
        spread = f" ± {accuracy.std(ddof=1):.2f}" if len(own) > 1 else ""
        half = f"± {interval(accuracy):.2f}" if len(own) > 1 else ""
        f1 = [f"{100 * _numbers(own, column).mean():.2f}" for column in ("test_macro_f1", "test_weighted_f1")]
        label = model if own[0]["inputs"] != own[0]["model"].replace(" + ", " ") else f"{model} alone"
        valid = 100 * _numbers(own, "valid_accuracy")
        chosen_on = f"{valid.mean():.2f}" if len(valid) else ""
        cost = _costs(own, models.get(ENGINE) or next(iter(models.values())))
        cells = [label, str(len(own)), f"{accuracy.mean():.2f}{spread}", half, *f1, chosen_on, *cost]
        lines.append(f"| {' | '.join(cells)} |")
    first = rows[0]
    return "\n".join([*lines, "", *_tests(models), f"{first['machine']}, {first['threads']} thread(s) a run; "
                      f"{first['versions']}; commits {', '.join(_in_order(rows, 'commit'))}.", ""])  # fmt: skip


def _shown(models: Mapping[str, Sequence[Row]]) -> list[str]:
    """All models; of several pairs of modalities only the one that is best on validation rows."""
    pairs = [m for m, own in models.items() if m == " + ".join(own[0]["inputs"].split()) and m.count(" + ") == 1]
    whole = [m for m in pairs if len(_numbers(models[m], "valid_accuracy"))]
    best = max(whole, key=lambda m: _numbers(models[m], "valid_accuracy").mean(), default="")
    return [m for m in models if m not in pairs or m == best]


def _costs(own: Sequence[Row], engine: Sequence[Row]) -> list[str]:
    if not own[0]["parameters"]:
        return ["", "", ""]
    cells = [f"{int(own[0]['parameters']):,}"]
    for column in ("fit_seconds", "peak_mb"):
        base = _numbers(engine, column)
        cells.append(f"{_numbers(own, column).mean() / base.mean():.2f} ×" if len(base) else "")
    return cells


def _tests(models: Mapping[str, Sequence[Row]]) -> list[str]:
    """The engine against the strongest other model, and against itself without edges and with shuffled ones."""
    if ENGINE not in models:
        return []
    others = [m for m in models if not m.startswith(ENGINE)]
    if not others:
        return []
    strongest = max(others, key=lambda m: _numbers(models[m], "test_accuracy").mean())
    wanted = dict.fromkeys([strongest, "no edges", "shuffled edges"])
    return [_compared(models[ENGINE], models[m], m) for m in wanted if m in models]


def _compared(engine: Sequence[Row], other: Sequence[Row], name: str) -> str:
    seeds = sorted({r["seed"] for r in engine} & {r["seed"] for r in other})
    pairs = [[next(r for r in rows if r["seed"] == s) for s in seeds] for rows in (engine, other)]
    if not seeds:
        return f"{ENGINE} less {name}: no seed in common yet."
    mine, theirs = (np.array([right_items(r["right"]) for r in rows], float) for rows in pairs)
    low, high, p = paired_bootstrap(mine.mean(0) - theirs.mean(0))
    signed = wilcoxon(mine.mean(1), theirs.mean(1)) if len(seeds) > 1 else float("nan")
    over_seeds = f"Wilcoxon over {len(seeds)} seeds, p = {signed:.2f}"
    return (
        f"{ENGINE} less {name}: {100 * (mine.mean() - theirs.mean()):+.2f} points, 95 % interval over test items "
        f"{100 * low:+.2f} to {100 * high:+.2f} (paired bootstrap, p = {p:.3f}; {over_seeds}).\n"
    )


def plot(rows: Sequence[Row], path: Path) -> None:
    """Test accuracy of every model with its 95 % interval over seeds, one panel a data set."""
    from matplotlib.figure import Figure

    names = _in_order(rows, "data")
    figure = Figure(figsize=(9, 1 + 2.6 * len(names)), layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(len(names))), names, strict=True):
        models = {m: [r for r in rows if r["data"] == name and r["model"] == m] for m in _in_order(rows, "model")}
        shown = _shown({m: own for m, own in models.items() if own})
        accuracy = [100 * _numbers(models[m], "test_accuracy") for m in shown]
        error = [interval(a) if len(a) > 1 else 0.0 for a in accuracy]
        colours = ["tab:blue" if m.startswith(ENGINE) else "tab:gray" for m in shown]
        axes.barh(shown, [a.mean() for a in accuracy], xerr=error, color=colours, capsize=3)
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_title(name, loc="left")
    axes.set_xlabel("test accuracy, % (bars: 95 % interval over seeds)")
    figure.savefig(path, dpi=110)


def _numbers(rows: Sequence[Row], column: str) -> Numbers:
    return np.array([float(r[column]) for r in rows if r[column] != ""])


def _in_order(rows: Sequence[Row], column: str) -> list[str]:
    return list(dict.fromkeys(r[column] for r in rows))
