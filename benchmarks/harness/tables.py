"""Markdown and a plot from the CSV of a table alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.harness.controls import ABLATIONS, ENGINE, LATE
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
    models = _models(rows)
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


def _models(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Model → its runs: the engine, single modalities, pairs, other models, ablations; else in the order of the file."""

    def place(model: str) -> tuple[int, int]:
        own = found[model][0]
        alone = model == " + ".join(own["inputs"].split())
        if model.startswith(ENGINE):
            return 0, 0
        return (1, len(own["inputs"].split())) if alone else (3 if model in ABLATIONS else 2, model == LATE)

    found = {m: [r for r in rows if r["model"] == m] for m in _in_order(rows, "model")}
    return {m: found[m] for m in sorted(found, key=place)}


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
    """The engine, fitted on as many rows as they, against the strongest other model and against its ablations."""
    if ENGINE not in models:
        return []
    others = [m for m in models if not m.startswith(ENGINE) and m not in ABLATIONS]
    strongest = [max(others, key=lambda m: _numbers(models[m], "test_accuracy").mean())] if others else []
    alike = next((m for m in models if m.startswith(f"{ENGINE}, ")), ENGINE)  # fitted on as many rows as the controls
    return [_compared(models[alike], models[m], m, alike) for m in [*strongest, *ABLATIONS] if m in models]


def _compared(engine: Sequence[Row], other: Sequence[Row], name: str, mine_is: str) -> str:
    seeds = sorted({r["seed"] for r in engine} & {r["seed"] for r in other})
    pairs = [[next(r for r in rows if r["seed"] == s) for s in seeds] for rows in (engine, other)]
    if not seeds:
        return f"{mine_is} less {name}: no seed in common yet.\n"
    if all(a["right"] == b["right"] for a, b in zip(*pairs, strict=True)):
        return f"{mine_is} and {name} answered every test item alike: there was nothing to take away.\n"
    mine, theirs = (np.array([right_items(r["right"]) for r in rows], float) for rows in pairs)
    low, high, p = paired_bootstrap(mine.mean(0) - theirs.mean(0))
    signed = wilcoxon(mine.mean(1), theirs.mean(1)) if len(seeds) > 1 else float("nan")
    over_seeds = f"Wilcoxon over {len(seeds)} seeds, p = {signed:.2f}"
    return (
        f"{mine_is} less {name}: {100 * (mine.mean() - theirs.mean()):+.2f} points, 95 % interval over test items "
        f"{100 * low:+.2f} to {100 * high:+.2f} (paired bootstrap, p = {p:.3f}; {over_seeds}).\n"
    )


def plot(rows: Sequence[Row], path: Path) -> None:
    """Test accuracy of every model with its 95 % interval over seeds, one panel a data set."""
    from matplotlib.figure import Figure

    names = _in_order(rows, "data")
    figure = Figure(figsize=(9, 1 + 2.6 * len(names)), layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(len(names))), names, strict=True):
        models = _models([r for r in rows if r["data"] == name])
        shown = _shown(models)
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
