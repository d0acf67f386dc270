"""Markdown and a plot from the CSV of a table alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.harness.controls import ABLATIONS, ENGINE, LATE, OTHERS
from benchmarks.harness.scores import right_items, unpack_clusters
from benchmarks.harness.statistics import Numbers, interval, paired_bootstrap, wilcoxon

Row = Mapping[str, str]
Models = Mapping[str, Sequence[Row]]


def table(rows: Sequence[Row]) -> str:
    """One table a data set: the engine, single modalities, other models, ablations; costs as ratios to the engine's; tests. Before
    them, where the engine stands beside ablations on several data sets, all in one.
    """
    each = {name: [r for r in rows if r["data"] == name] for name in _in_order(rows, "data")}
    first = [overview(each)] if len(each) > 1 and any(r["model"] in ABLATIONS for r in rows) else []
    return "\n".join([*first, *(_of_data(name, own) for name, own in each.items())])


def overview(each: Mapping[str, Sequence[Row]]) -> str:
    """A line a data set: accuracy of the engine and of its controls fitted on as many rows; of single modalities the one that
    scores highest.
    """
    columns = (*ABLATIONS, *OTHERS, LATE)
    lines = [
        f"| accuracy, % | seeds | {ENGINE} | {' | '.join(columns)} | best modality alone |",
        f"|{' --- |' * (len(columns) + 4)}",
    ]
    for name, rows in each.items():
        models = _models(rows)[0]
        reference = _reference(models)
        for engine in (m for m in models if m.startswith(ENGINE)):
            alike = (
                {m: own for m, own in models.items() if own[0]["rows"] == models[engine][0]["rows"] or m == LATE}
                if engine == reference
                else {}
            )
            parts = [m for m, own in alike.items() if _is_part(own[0]) and " " not in own[0]["inputs"]]
            best = max(parts, key=lambda m: mean_of(models[m], "accuracy"), default="")
            cells = [_accuracy(alike.get(m, [])) for m in (*columns, best)]
            cells[-1] += f" ({best})" if best else ""
            head = f"| {name}{engine.removeprefix(ENGINE)} | {len(models[engine])} | {_accuracy(models[engine])}"
            lines.append(f"{head} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _accuracy(own: Sequence[Row]) -> str:
    """Mean and deviation over seeds."""
    found = 100 * _numbers(own, "accuracy")
    several = f" ± {found.std(ddof=1):.2f}" if len(found) > 1 else ""
    return f"{found.mean():.2f}{several}" if len(found) else "–"


def _of_data(name: str, rows: Sequence[Row]) -> str:
    models, stale = _models(rows)
    split = rows[0]["split"]
    columns = (
        "model", "seeds", f"{split} accuracy, %", "95 % interval", "macro-F1, %", "weighted F1, %", "valid, %", "parameters",
        "fit time", "memory",
    )  # fmt: skip
    lines = [f"### {name}\n", f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    shown = _shown(models)
    reference = _reference(shown)
    for model, own in shown.items():
        accuracy, valid = 100 * _numbers(own, "accuracy"), 100 * _numbers(own, "valid_accuracy")
        several = len(own) > 1
        lines.append(
            f"| {model}{' alone' if _is_part(own[0]) else ''} | {len(own)} "
            f"| {_accuracy(own)} "
            f"| {f'± {interval(accuracy):.2f}' if several else ''} | {100 * _numbers(own, 'macro_f1').mean():.2f} "
            f"| {100 * _numbers(own, 'weighted_f1').mean():.2f} | {f'{valid.mean():.2f}' if len(valid) else ''} "
            f"| {' | '.join(_costs(own, shown[reference]))} |"
        )
    around = "; ".join(", ".join(_in_order(rows, c)) for c in ("machine", "versions"))
    threads = ", ".join(t for t in _in_order(rows, "threads") if t)
    notes = [
        *_tests(shown, reference),
        *stale,
        f"{around}; {threads} thread a run; commit {', '.join(_in_order(rows, 'commit'))}.",
    ]
    return "\n".join([*lines, "", *(f"{note}\n" for note in notes)])


def _models(rows: Sequence[Row]) -> tuple[Models, list[str]]:
    """Model → its runs, in order, of the settings of its newest run; a line for each model that has others too."""

    def place(model: str) -> tuple[int, int]:
        if model.startswith(ENGINE):
            return 0, 0
        first = found[model][0]
        if _is_part(first):
            return 1, len(first["inputs"].split())
        return (3 if model in ABLATIONS else 2), model == LATE

    found: dict[str, list[Row]] = {}
    stale = []
    for model in _in_order(rows, "model"):
        own = [r for r in rows if r["model"] == model]
        found[model] = [r for r in own if r["key"] == own[-1]["key"]]
        if len(found[model]) < len(own):
            stale.append(f"{model}: {len(own) - len(found[model])} runs of other settings or rows are not counted.")
    return {m: found[m] for m in sorted(found, key=place)}, stale


def _is_part(row: Row) -> bool:
    """Whether a run saw some modalities only, by which it is called."""
    return row["model"] == " + ".join(row["inputs"].split())


def _shown(models: Models) -> Models:
    """All models; of several pairs of modalities only the one that is best on validation rows, if those are scored."""
    pairs = [m for m, own in models.items() if _is_part(own[0]) and len(own[0]["inputs"].split()) == 2]
    scored = {m: _numbers(models[m], "valid_accuracy") for m in pairs}
    scored = {m: scores for m, scores in scored.items() if len(scores)}
    best = max(scored, key=lambda m: scored[m].mean(), default="")
    return {m: own for m, own in models.items() if m not in scored or m == best}


def _reference(models: Models) -> str:
    """What costs and differences refer to: the engine, fitted on as many rows as the controls; else the first model."""
    engines = [m for m in models if m.startswith(ENGINE)]
    others = [own[0]["rows"] for m, own in models.items() if m not in engines and own[0]["rows"]]
    alike = [m for m in engines if models[m][0]["rows"] in others[:1]]
    return (alike or engines or list(models))[0]


def _costs(own: Sequence[Row], reference: Sequence[Row]) -> list[str]:
    if not own[0]["parameters"]:
        return ["", "", ""]
    cells = [f"{int(own[0]['parameters']):,}"]
    for column in ("fit_seconds", "peak_mb"):
        mine, base = _numbers(own, column), _numbers(reference, column)
        cells.append(f"{mine.mean() / base.mean():.2f} ×" if len(base) and base.mean() else "")
    return cells


def _tests(models: Models, reference: str) -> list[str]:
    """The reference against the model that scores highest beside it, and against its ablations; without an engine against
    every other model.
    """
    others = [m for m in models if not m.startswith(ENGINE) and m not in ABLATIONS and m != reference]
    if reference.startswith(ENGINE) and others:
        others = [max(others, key=lambda m: _numbers(models[m], "accuracy").mean())]
    return [_compared(models, reference, m) for m in [*others, *(a for a in ABLATIONS if a in models)]]


def _compared(models: Models, one: str, other: str) -> str:
    seeds = sorted({r["seed"] for r in models[one]} & {r["seed"] for r in models[other]})
    if not seeds:
        return f"{one} less {other}: no seed in common yet."
    pairs = [[next(r for r in models[m] if r["seed"] == s) for s in seeds] for m in (one, other)]
    if all(a["right"] == b["right"] for a, b in zip(*pairs, strict=True)):
        return f"{one} and {other} answered every item alike: there was nothing to take away."
    mine, theirs = (np.array([right_items(r["right"]) for r in rows], float) for rows in pairs)
    clusters = unpack_clusters(pairs[0][0].get("clusters") or "")
    low, high, p = paired_bootstrap(mine - theirs, clusters)
    drawn = f"{len(set(clusters.tolist()))} clusters of items" if len(clusters) else "items"
    over_seeds = (
        f"; Wilcoxon over {len(seeds)} seeds, p = {wilcoxon(mine.mean(1), theirs.mean(1)):.2f}"
        if len(seeds) > 1
        else ""
    )
    return (
        f"{one} less {other}: {100 * (mine - theirs).mean():+.2f} points, 95 % interval {100 * low:+.2f} to {100 * high:+.2f} "
        f"(paired bootstrap over {'seeds and ' if over_seeds else ''}{drawn}, p = {p:.4f}{over_seeds})."
    )


def plot(rows: Sequence[Row], path: Path) -> None:
    """Accuracy of every model with its 95 % interval over seeds, one panel a data set."""
    from matplotlib.figure import Figure

    names = _in_order(rows, "data")
    figure = Figure(figsize=(9, 1 + 2.6 * len(names)), layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(len(names))), names, strict=True):
        shown = _shown(_models([r for r in rows if r["data"] == name])[0])
        accuracy = [100 * _numbers(own, "accuracy") for own in shown.values()]
        error = [interval(a) if len(a) > 1 else 0.0 for a in accuracy]
        colours = ["tab:blue" if m.startswith(ENGINE) else "tab:gray" for m in shown]
        axes.barh(list(shown), [a.mean() for a in accuracy], xerr=error, color=colours, capsize=3)
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_title(name, loc="left")
    axes.set_xlabel(f"{rows[0]['split']} accuracy, % (bars: 95 % interval over seeds)")
    figure.savefig(path, dpi=110)


def mean_of(rows: Sequence[Row], column: str) -> float:
    """Mean of a column over runs; NaN if none has it."""
    numbers = _numbers(rows, column)
    return float(numbers.mean()) if len(numbers) else float("nan")


def _numbers(rows: Sequence[Row], column: str) -> Numbers:
    return np.array([float(r[column]) for r in rows if r[column] not in ("", "nan")])


def _in_order(rows: Sequence[Row], column: str) -> list[str]:
    return list(dict.fromkeys(r[column] for r in rows))
