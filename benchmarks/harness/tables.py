"""Markdown and a plot from the CSV of a table alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from benchmarks.harness.controls import ABLATIONS, ENGINE, LATE, OTHERS
from benchmarks.harness.scores import right_items, unpack_clusters
from benchmarks.harness.statistics import Numbers, interval, paired_bootstrap

Row = Mapping[str, str]
Models = Mapping[str, Sequence[Row]]


CONTROLS = (*ABLATIONS, *OTHERS, LATE)


def table(rows: Sequence[Row], reference: str = "", columns: Sequence[str] = CONTROLS) -> str:
    """One table a data set: the engine, single modalities, other models, ablations; costs as ratios to the engine's; tests. Before
    them, where the engine stands beside models of `columns` on several data sets, all in one. `reference`: what takes the engine's
    place in a table without one.
    """
    each = {name: [r for r in rows if r["data"] == name] for name in _in_order(rows, "data")}
    first = [overview(each, columns)] if len(each) > 1 and any(r["model"] in columns for r in rows) else []
    return "\n".join([*first, *(_of_data(name, own, reference) for name, own in each.items())])


def overview(each: Mapping[str, Sequence[Row]], columns: Sequence[str]) -> str:
    """A line a data set: accuracy of the engine and of the models of `columns` fitted on as many rows; of single modalities the one
    that is best (`_best`). In brackets: seeds, where they are others than the engine's.
    """
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
            parts = [m for m, own in alike.items() if _parts_seen(own[0]) == 1]
            best = _best(parts, models)
            cells = [_accuracy(alike.get(m, []), len(models[engine])) for m in (*columns, best)]
            cells[-1] += f" ({best})" if best else ""
            head = f"| {name}{engine.removeprefix(ENGINE)} | {len(models[engine])} | {_accuracy(models[engine])}"
            lines.append(f"{head} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _accuracy(own: Sequence[Row], seeds: int = 0) -> str:
    """Mean and deviation over seeds; how many, where they are not as many as `seeds`."""
    found = 100 * _numbers(own, "accuracy")
    several = f" ± {found.std(ddof=1):.2f}" if len(found) > 1 else ""
    return f"{found.mean():.2f}{several}{_of(len(found), seeds)}" if len(found) else "–"


def _of(found: int, seeds: int) -> str:
    return f" [{found}]" if seeds and found != seeds else ""


def _of_data(name: str, rows: Sequence[Row], wanted: str) -> str:
    models, stale = _models(rows)
    split = rows[0]["split"]
    shown = _shown(models)
    reference = _reference(shown, wanted)
    pairs = {m: _paired(shown, reference, m) for m in shown if m != reference}
    adjusted = _adjusted(pairs)
    columns = (
        "model", "seeds", f"{split} accuracy, %", "95 % interval over seeds", "macro-F1, %", "weighted F1, %", "valid, %",
        "parameters", "fit time", "memory", f"less {reference}, points (95 % interval, not adjusted)",
        f"p (Holm, of {len(adjusted)})",
    )  # fmt: skip
    lines = [f"### {name}\n", f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    differences = {m: _difference(pair, len(shown[m]), len(shown[reference])) for m, pair in pairs.items() if pair}
    for model, own in shown.items():
        accuracy, valid = 100 * _numbers(own, "accuracy"), 100 * _numbers(own, "valid_accuracy")
        several = len(own) > 1
        lines.append(
            f"| {model}{' alone' if _parts_seen(own[0]) else ''} | {len(own)} "
            f"| {_accuracy(own)} "
            f"| {f'± {interval(accuracy):.2f}' if several else ''} | {100 * _numbers(own, 'macro_f1').mean():.2f} "
            f"| {100 * _numbers(own, 'weighted_f1').mean():.2f} | {f'{valid.mean():.2f}' if len(valid) else ''} "
            f"| {' | '.join((*_costs(own, shown[reference]), differences.get(model, ''), adjusted.get(model, '')))} |"
        )
    around = "; ".join(", ".join(_in_order(rows, c)) for c in ("machine", "versions"))
    threads = ", ".join(t for t in _in_order(rows, "threads") if t)
    notes = [
        *_tests(shown, reference, pairs),
        *(_told(shown, reference, m, None) for m in pairs if not _same_rows(shown, reference, m)),
        *stale,
        *_by_class(shown, reference),
        *_unfinished(shown),
        *_of_several_commits(shown),
        f"{around}; {threads} thread a run; commit {', '.join(_in_order(rows, 'commit'))}.",
    ]
    return "\n".join([*lines, "", *(f"{note}\n" for note in notes)])


def _models(rows: Sequence[Row]) -> tuple[Models, list[str]]:
    """Model → its runs, in order, of the settings of its newest run; a line for each model that has others too."""

    def place(model: str) -> tuple[int, int]:
        if model.startswith(ENGINE):
            return 0, 0
        first = found[model][0]
        if _parts_seen(first):
            return 1, _parts_seen(first)
        return (3 if model in ABLATIONS else 2), model == LATE

    found: dict[str, list[Row]] = {}
    stale = []
    kept = newest(rows)
    for model in _in_order(rows, "model"):
        found[model] = [r for r in kept if r["model"] == model]
        older = sum(r["model"] == model for r in rows) - len(found[model])
        if older:
            stale.append(f"{model}: {older} runs of other settings or rows are not counted.")
    return {m: found[m] for m in sorted(found, key=place)}, stale


def newest(rows: Sequence[Row]) -> list[Row]:
    """The runs whose settings are those of the newest of their data set and model."""
    last = {(r["data"], r["model"]): r["key"] for r in rows}
    return [r for r in rows if r["key"] == last[r["data"], r["model"]]]


def _parts_seen(row: Row) -> int:
    """How many modalities a run saw that is called by those; 0 for others."""
    names = row["model"].split(" + ")
    return len(names) if set(names) <= set(row["inputs"].split()) else 0


def _shown(models: Models) -> Models:
    """All models; of several pairs of modalities only the one that is best on validation rows, if those are scored."""
    pairs = [m for m, own in models.items() if _parts_seen(own[0]) == 2]
    scored = {m: _numbers(models[m], "valid_accuracy") for m in pairs}
    scored = {m: scores for m, scores in scored.items() if len(scores)}
    best = max(scored, key=lambda m: scored[m].mean(), default="")
    return {m: own for m, own in models.items() if m not in scored or m == best}


def _reference(models: Models, wanted: str = "") -> str:
    """What costs and differences refer to: the engine, fitted on as many rows as the controls; else `wanted`; else the first."""
    engines = [m for m in models if m.startswith(ENGINE)]
    others = [own[0]["rows"] for m, own in models.items() if m not in engines and own[0]["rows"]]
    alike = [m for m in engines if models[m][0]["rows"] in others[:1]]
    return (alike or engines or [m for m in models if m == wanted] or list(models))[0]


def _costs(own: Sequence[Row], reference: Sequence[Row]) -> list[str]:
    """Parameters, time and memory; times of runs of the same commits alone: others were taken beside other work."""
    if not own[0]["parameters"]:
        return ["", "", ""]
    both = {r["commit"] for r in own} & {r["commit"] for r in reference}
    timed, base = ([r for r in rows if r["commit"] in both] for rows in (own, reference))
    time, memory = _ratio(timed, base, "fit_seconds"), _ratio(own, reference, "peak_mb")
    return [f"{int(own[0]['parameters']):,}", time, memory]


def _ratio(own: Sequence[Row], reference: Sequence[Row], column: str) -> str:
    mine, base = _numbers(own, column), _numbers(reference, column)
    return f"{mine.mean() / base.mean():.2f} ×" if len(mine) and len(base) and base.mean() else ""


def _by_class(models: Models, reference: str) -> list[str]:
    """F1 of each class, of the reference and of what scores highest beside it."""
    best = _strongest(models, reference)
    lines = []
    for model in (reference, *([best] if best else [])):
        each = [json.loads(r["per_class_f1"]) for r in models[model] if r.get("per_class_f1")]
        if each:
            means = {c: 100 * float(np.mean([f[c] for f in each if c in f])) for c in each[0]}
            ordered = sorted(means, key=lambda c: (0, float(c)) if c.isdecimal() else (1, c))
            lines.append(f"F1 of each class, %, {model}: {', '.join(f'{c} {means[c]:.1f}' for c in ordered)}.")
    return lines


def _unfinished(models: Models) -> list[str]:
    """Models that were best in the last of their epochs, where the epoch is chosen: some may not have been done."""
    found = []
    for model, own in models.items():
        chosen = [r for r in own if r["valid_accuracy"] and r.get("settings")]
        count = sum(str(json.loads(r["settings"]).get("epochs")) in r["epoch"].split() for r in chosen)
        found += [f"{model} {count} of {len(chosen)}"] if count else []
    return [f"Best in the last of its epochs (more might do better): {', '.join(found)}."] if found else []


def _of_several_commits(models: Models) -> list[str]:
    commits = {r["commit"] for own in models.values() for r in own if r["fit_seconds"]}
    return ["Times are compared within a commit only: others were taken beside other work."] if len(commits) > 1 else []


def _strongest(models: Models, reference: str) -> str:
    """What is best beside the engine and its ablations (without an engine: beside the reference); "" if nothing is there."""
    return _best([m for m in models if not m.startswith(ENGINE) and m not in ABLATIONS and m != reference], models)


def _best(names: Sequence[str], models: Models) -> str:
    """Which scores highest on validation rows, of those that have such a score (late fusion has none); where none has, since the
    rows are blind, on the rows of the table.
    """
    scored = [m for m in names if len(_numbers(models[m], "valid_accuracy"))]
    column = "valid_accuracy" if scored else "accuracy"
    return max(scored or names, key=lambda m: mean_of(models[m], column), default="")


def _tests(models: Models, reference: str, pairs: Mapping[str, Paired | None]) -> list[str]:
    """The engine against the model that scores highest beside it, and against its ablations; without an engine every model against
    every other. `pairs`: the reference less each model.
    """
    if not reference.startswith(ENGINE):
        return [_told(models, a, b, _paired(models, a, b)) for a, b in combinations(models, 2)]
    strongest = _strongest(models, reference)
    told = [_told(models, reference, a, pairs[a]) for a in ABLATIONS if a in models]
    if not strongest:
        return told
    first = _told(models, reference, strongest, pairs[strongest])
    peeked = not len(_numbers(models[strongest], "valid_accuracy"))
    why = " That model was chosen by these very rows, as no validation rows are scored." if peeked else ""
    return [f"{first}{why}", *told]


def _difference(pair: Paired, seeds: int, others: int) -> str:
    """What a model scores above the reference. In brackets: the seeds that both have, where one has more."""
    return f"{-pair.mean:+.2f} ({-pair.high:+.2f} to {-pair.low:+.2f}){_of(pair.seeds, max(seeds, others))}"


def _adjusted(pairs: Mapping[str, Paired | None]) -> dict[str, str]:
    """P of no difference, adjusted for how many rivals of the reference there are (Holm 1979); the engine itself, fitted on other
    rows, is none.
    """
    tested = sorted((pair.p, m) for m, pair in pairs.items() if pair and not m.startswith(ENGINE))
    found, least = {}, 0.0
    for place, (p, m) in enumerate(tested):
        least = max(least, min(1.0, (len(tested) - place) * p))
        found[m] = f"{least:.2g}"
    return found


@dataclass(frozen=True)
class Paired:
    """One model less another over the seeds that both have, in points, with a 95 % interval; what was drawn."""

    mean: float
    low: float
    high: float
    p: float
    seeds: int
    drawn: str


def _paired(models: Models, one: str, other: str) -> Paired | None:
    """None where they have no seed in common, were right about the same items, or were scored on different rows."""
    seeds = sorted({r["seed"] for r in models[one]} & {r["seed"] for r in models[other]})
    if not _same_rows(models, one, other):
        return None
    pairs = [[next(r for r in models[m] if r["seed"] == s) for s in seeds] for m in (one, other)]
    if all(a["right"] == b["right"] for a, b in zip(*pairs, strict=True)):
        return None
    mine, theirs = (np.array([right_items(r["right"]) for r in rows], float) for rows in pairs)
    clusters = unpack_clusters(pairs[0][0].get("clusters") or "")
    low, high, p = paired_bootstrap(mine - theirs, clusters)
    drawn = " × ".join(str(len(set(kind.tolist()))) for kind in clusters)
    drawn = f"{drawn} clusters of items" if drawn else "items"
    mean = float((mine - theirs).mean())
    return Paired(100 * mean, 100 * low, 100 * high, p, len(seeds), drawn)


def _same_rows(models: Models, one: str, other: str) -> bool:
    """Whether two models were scored on tables of as many rows in the same clusters."""
    return len({(r["right"].partition(":")[0], r.get("clusters")) for m in (one, other) for r in models[m]}) == 1


def _told(models: Models, one: str, other: str, found: Paired | None) -> str:
    if not _same_rows(models, one, other):
        return f"{one} and {other} were scored on different rows and are not compared: run one of them again."
    if found is None:
        common = {r["seed"] for r in models[one]} & {r["seed"] for r in models[other]}
        same = "were right about the same items: there was nothing to take away."
        return f"{one} and {other} {same}" if common else f"{one} less {other}: no seed in common yet."
    over_seeds = ", Student over seeds" if found.seeds > 1 else ""
    return (
        f"{one} less {other}: {found.mean:+.2f} points, 95 % interval {found.low:+.2f} to {found.high:+.2f} "
        f"(paired bootstrap over {found.drawn}{over_seeds}; not adjusted: p = {found.p:.4f})."
    )


KINDS = {
    "engine": "tab:blue",
    "engine with less": "tab:cyan",
    "other way": "tab:gray",
    "part of the modalities": "tab:orange",
}
"""Kind of model → its colour."""


def plot(rows: Sequence[Row], path: Path) -> None:
    """Accuracy of every model with its 95 % interval over seeds, one panel a data set, the engine first, the others by accuracy."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    names = _in_order(rows, "data")
    each = {name: _shown(_models([r for r in rows if r["data"] == name])[0]) for name in names}
    sizes = [2 + len(models) for models in each.values()]
    figure = Figure(figsize=(9, 1 + 0.22 * sum(sizes)), layout="constrained")
    for axes, (name, models) in zip(
        np.atleast_1d(figure.subplots(len(names), height_ratios=sizes)), each.items(), strict=True
    ):
        ordered = sorted(models, key=lambda m: (not m.startswith(ENGINE), -mean_of(models[m], "accuracy")))
        for place, model in enumerate(ordered):
            found = 100 * _numbers(models[model], "accuracy")
            error = interval(found) if len(found) > 1 else 0.0
            axes.errorbar(found.mean(), place, xerr=error, fmt="o", capsize=3, color=KINDS[_kind(models[model][0])])
        axes.set_yticks(range(len(ordered)), ordered)
        axes.invert_yaxis()
        axes.set_xlim(right=min(100.5, axes.get_xlim()[1]))
        axes.grid(axis="x", alpha=0.3)
        axes.set_title(f"{name} ({_seeds(models)})", loc="left")
    axes.set_xlabel(f"{rows[0]['split']} accuracy, % (bars: 95 % interval over seeds)")
    kinds = {_kind(own[0]) for models in each.values() for own in models.values()}
    marks = [Line2D([], [], color=colour, marker="o", label=kind) for kind, colour in KINDS.items() if kind in kinds]
    if len(marks) > 1:
        figure.legend(handles=marks, loc="outside lower center", ncols=len(marks))
    figure.savefig(path, dpi=110)


def _kind(row: Row) -> str:
    if row["model"].startswith(ENGINE):
        return "engine"
    if row["model"] in ABLATIONS:
        return "engine with less"
    return "part of the modalities" if _parts_seen(row) else "other way"


def _seeds(models: Models) -> str:
    counts = sorted({len(own) for own in models.values()})
    return f"{' to '.join(str(c) for c in dict.fromkeys((counts[0], counts[-1])))} seed{'s' if counts[-1] > 1 else ''}"


def mean_of(rows: Sequence[Row], column: str) -> float:
    """Mean of a column over runs; NaN if none has it."""
    numbers = _numbers(rows, column)
    return float(numbers.mean()) if len(numbers) else float("nan")


def _numbers(rows: Sequence[Row], column: str) -> Numbers:
    return np.array([float(r[column]) for r in rows if r[column] not in ("", "nan")])


def _in_order(rows: Sequence[Row], column: str) -> list[str]:
    return list(dict.fromkeys(r[column] for r in rows))
