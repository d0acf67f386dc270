"""The benchmark harness: what it refuses, what it counts, and tables that come from the file alone."""

from __future__ import annotations

import argparse
import base64
import csv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score

import graphfusion
from benchmarks.harness import command, controls, results, runs, tables
from benchmarks.harness.command import Entry
from benchmarks.harness.runs import Data, Run, execute
from benchmarks.harness.scores import pack_clusters, right_items, scores, unpack_clusters
from benchmarks.harness.splits import PeekError
from benchmarks.harness.statistics import interval, paired_bootstrap
from graphfusion.data import read_table, sealed
from graphfusion.data.recipe import write_tables
from graphfusion.errors import TableError
from graphfusion.schema import Features
from tests.conftest import Inline

SMALL = {"dim": 8, "heads": 2, "layers": 1, "epochs": 2, "patience": 5, "lr": 0.05}


def rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Two vectors; the label is the sign of the sum of their first numbers."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        a, b = rng.normal(size=(2, 3)).astype(np.float32)
        made.append({"a": a.tolist(), "b": b.tolist(), "label": "yes" if a[0] + b[0] > 0 else "no"})
    return made


@pytest.fixture
def data(tmp_path: Path) -> Data:
    """A data set of two vectors a row."""
    folder = tmp_path / "tables"
    write_tables(folder, {"train": rows(60, 0), "valid": rows(20, 1), "test": rows(40, 2)})
    return Data("toy", (folder,), ("a", "b"), {"target": "label", "columns": {"a": Features(), "b": Features()}})


# what is refused


def test_a_fit_that_reads_the_test_split_is_refused(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    real = graphfusion.FusionPredictor.fit

    def peeking(self: Any, table: Any, **options: Any) -> Any:
        peek = {"valid": data.folders[0] / "test.parquet"} if isinstance(options["valid"], Path) else {}
        return real(self, table, **{**options, **peek})

    monkeypatch.setattr(graphfusion.FusionPredictor, "fit", peeking)
    with pytest.raises(TableError, match="sealed"):
        execute(Run("graph", 0, SMALL), data)


def test_a_choice_made_on_a_copy_of_the_test_split_is_refused(data: Data) -> None:
    folder = data.folders[0]
    (folder / "valid.parquet").write_bytes((folder / "test.parquet").read_bytes())
    with pytest.raises(PeekError, match=r"valid\.parquet: 100% of its rows are rows of test"):
        execute(Run("graph", 0, SMALL), data)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_few_test_rows_among_the_others_are_refused(data: Data, split: str) -> None:
    folder = data.folders[0]
    mixed = [*rows(20, 0 if split == "train" else 1), *rows(40, 2)[:2]]
    write_tables(folder, {split: mixed})
    with pytest.raises(PeekError, match=rf"{split}\.parquet: 9% of its rows"):
        execute(Run("graph", 0, SMALL), data)


def test_splits_with_other_columns_are_refused(data: Data) -> None:
    write_tables(data.folders[0], {"valid": [{**r, "a": None} | {"c": 1} for r in rows(5, 1)]})
    other = Data("toy", data.folders, ("a", "b", "c"), data.fit)
    with pytest.raises(PeekError, match="no column c"):
        execute(Run("graph", 0, SMALL), other)


def test_long_sounds_that_differ_in_the_middle_are_not_the_same(data: Data) -> None:
    def sounds(split: int) -> list[dict[str, Any]]:
        made = rows(30, split)
        for k, row in enumerate(made):
            row["a"] = [0.0] * 2000
            row["a"][1000] = float(100 * split + k)
        return made

    write_tables(data.folders[0], {name: sounds(k) for k, name in enumerate(("train", "valid", "test"))})
    assert execute(Run("graph", 0, SMALL, ("b",)), data)[0]["split"] == "test"


def test_a_seal_holds_in_threads_and_for_other_names(tmp_path: Path) -> None:
    write_tables(tmp_path, {"a": rows(3, 0)})
    (tmp_path / "link.parquet").hardlink_to(tmp_path / "a.parquet")
    with sealed(tmp_path / "a.parquet"), ThreadPoolExecutor() as pool:
        for name in ("a", "link"):
            with pytest.raises(TableError, match="sealed"):
                pool.submit(read_table, tmp_path / f"{name}.parquet").result()


def test_the_seal_ends_with_the_fit_and_nests(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_tables(tmp_path, {name: rows(3, 0)})
    with sealed(tmp_path / "a.parquet"):
        with sealed(tmp_path / "b.parquet"):
            for name in ("a", "b"):
                with pytest.raises(TableError, match="sealed"):
                    read_table(tmp_path / f"{name}.parquet")
        assert len(read_table(tmp_path / "b.parquet")) == 3
        with pytest.raises(TableError, match="sealed"):
            read_table(tmp_path / "." / "a.parquet")
    assert len(read_table(tmp_path / "a.parquet")) == 3


# what is counted


def test_a_run_counts_what_its_predictor_answers(data: Data) -> None:
    row, _ = execute(Run("graph", 3, SMALL), data)
    predictor = graphfusion.FusionPredictor(seed=3, **{**data.fit, **SMALL})
    folder = data.folders[0]
    predictor.fit(folder / "train.parquet", valid=folder / "valid.parquet", quiet=True)
    truth = [r["label"] for r in rows(40, 2)]
    answers = predictor.predict(folder / "test.parquet")
    assert row["accuracy"] == pytest.approx(np.mean([t == a for t, a in zip(truth, answers, strict=True)]))
    assert row["macro_f1"] == pytest.approx(f1_score(truth, answers, average="macro"), abs=1e-5)
    assert row["weighted_f1"] == pytest.approx(f1_score(truth, answers, average="weighted"), abs=1e-5)
    assert right_items(row["right"]).tolist() == [t == a for t, a in zip(truth, answers, strict=True)]
    assert row["valid_accuracy"] == pytest.approx(max(h["valid_accuracy"] for h in predictor.history), abs=1e-5)


def test_folds_are_counted_together(data: Data, tmp_path: Path) -> None:
    other = tmp_path / "fold2"
    write_tables(other, {"train": rows(50, 5), "valid": rows(20, 6), "test": rows(7, 7)})
    both = Data("toy", (data.folders[0], other), data.inputs, data.fit)
    row, _ = execute(Run("graph", 0, SMALL), both)
    assert len(right_items(row["right"])) == 47
    assert len(row["epoch"].split()) == 2


def test_a_run_keeps_the_clusters_of_its_items(data: Data) -> None:
    made = {"train": rows(60, 0), "valid": rows(20, 1), "test": rows(40, 2)}
    write_tables(data.folders[0], {s: [{**r, "film": f"{s}-{k // 4}", "reel": f"{s}-{k % 7}"} for k, r in enumerate(own)] for s, own in made.items()})  # fmt: skip
    row, answers = execute(Run("a", 0, SMALL, ("a",)), replace(data, clusters=("film", "reel")))
    assert list(answers.clusters) == [(f"test-{k // 4}", f"test-{k % 7}") for k in range(40)]
    assert unpack_clusters(row["clusters"]).tolist() == [[k // 4 for k in range(40)], [k % 7 for k in range(40)]]
    with pytest.raises(PeekError, match=r"train\.parquet: 10 of film are in test\.parquet too"):
        execute(Run("a", 0, SMALL, ("a",)), replace(data, clusters=("film",), cluster_of=number_of))
    row, _ = execute(
        Run("a", 0, SMALL, ("a",)), replace(data, clusters=("film",), cluster_of=number_of, numbered=("film",))
    )
    assert unpack_clusters(row["clusters"]).tolist() == [[k // 4 for k in range(40)]]


def number_of(film: str) -> str:
    """What follows the name of the split."""
    return film.split("-")[1]


def test_the_controls_of_two_and_three_modalities(data: Data) -> None:
    three = Data("toy", data.folders, ("a", "b", "c"), data.fit)
    names = [r.model for r in controls.with_controls(three, {"graph": "hub"}, 0)]
    assert names == ["graph", "a", "b", "c", "a + b", "a + c", "b + c", "concat", "Transformer", "no edges", "shuffled edges", "late fusion"]  # fmt: skip
    two = {r.model: r for r in controls.with_controls(data, {"graph": "full"}, 0, rows=10)}
    assert {"graph", "graph, 10 rows", "a", "b", "concat", "late fusion"} <= set(two)
    assert "a + b" not in two
    assert two["shuffled edges"].settings["graph"] == "full_shuffled"
    assert two["graph"].rows == 0
    assert two["concat"].rows == 10


def test_columns_that_are_one_modality_go_together(data: Data) -> None:
    """`a` with `c` beside it is one modality; it stands in the table under its first column's name."""
    parts = (("a", "c"), ("b", "d"))
    runs_of = {
        r.model: r
        for r in controls.with_controls(Data("toy", data.folders, ("a", "b", "c", "d"), {}, parts=parts), {}, 0)
    }
    assert runs_of["a"].inputs == ("a", "c")
    assert "a + b" not in runs_of  # would be all there is
    assert "late fusion" in runs_of
    rows = [
        made("graph", 0, [True, True], inputs="a b c d"), made("a", 0, [True, False], inputs="a c"),
        made("concat", 0, [True, True], inputs="a b c d"),
    ]  # fmt: skip
    text = tables.table(rows)
    assert "| a alone |" in text
    assert "concat alone" not in text


def test_every_control_has_as_many_parameters(data: Data) -> None:
    engine = {**SMALL, "graph": "full", "dim": 16}
    found = {r.model: r for r in controls.with_controls(data, engine, 0) if r.model != controls.LATE}
    counts = {name: execute(run, data)[0]["parameters"] for name, run in found.items()}
    for name, count in counts.items():
        assert abs(count / counts["graph"] - 1) < 0.05, (name, counts)


def test_late_fusion_averages_probabilities(data: Data) -> None:
    members = [Run("a", 0, SMALL, ("a",)), Run("b", 0, SMALL, ("b",))]
    answers = [execute(member, data)[1] for member in members]
    row = runs.late_fusion(Run("late fusion", 0, SMALL), data, answers)
    probability = []
    for name, other in (("a", "b"), ("b", "a")):
        columns = {name: Features(), other: None}
        predictor = graphfusion.FusionPredictor("label", seed=0, columns=columns, **SMALL)
        folder = data.folders[0]
        predictor.fit(folder / "train.parquet", valid=folder / "valid.parquet", quiet=True)
        probability.append(predictor.predict_proba(folder / "test.parquet"))
    joined = np.array(["no", "yes"])[(probability[0] + probability[1]).argmax(1)]
    truth = np.array([r["label"] for r in rows(40, 2)])
    assert right_items(row["right"]).tolist() == (joined == truth).tolist()
    with pytest.raises(ValueError, match="a run for each of a, b"):
        runs.late_fusion(Run("late fusion", 0, SMALL), data, answers[:1])


def test_folds_may_know_other_classes(data: Data, tmp_path: Path) -> None:
    other = tmp_path / "fold2"
    renamed = [{**r, "label": "zero" if r["label"] == "no" else "yes"} for r in rows(60, 5)]
    write_tables(other, {"train": renamed[:40], "valid": renamed[40:50], "test": renamed[50:]})
    both = Data("toy", (data.folders[0], other), data.inputs, data.fit)
    row, _ = execute(Run("graph", 0, SMALL), both)
    one, _ = execute(Run("graph", 0, SMALL), data)
    assert right_items(row["right"])[:40].tolist() == right_items(one["right"]).tolist()


def test_a_table_that_decides_scores_validation_rows(data: Data) -> None:
    row, _ = execute(Run("graph", 0, SMALL, split="valid"), data)
    assert row["split"] == "valid"
    assert len(right_items(row["right"])) == 20
    assert row["accuracy"] == row["valid_accuracy"]


def test_without_a_choice_the_last_epoch_is_kept(data: Data) -> None:
    row, _ = execute(Run("graph", 0, SMALL), Data("toy", data.folders, data.inputs, data.fit, choose=False))
    assert row["epoch"] == "2"
    assert row["valid_accuracy"] == ""


# statistics


def test_interval_is_student_s() -> None:
    values = np.array([97.1, 97.9, 98.2])
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert interval(values) == pytest.approx((high - low) / 2)
    assert np.isnan(interval(values[:1]))


def test_paired_bootstrap_of_one_seed_is_that_of_items() -> None:
    rng = np.random.default_rng(0)
    difference = rng.normal(0.02, 0.2, (1, 2000))
    low, high, p = paired_bootstrap(difference, draws=4000)
    half = 1.96 * difference.std() / np.sqrt(2000)
    assert low == pytest.approx(difference.mean() - half, abs=0.002)
    assert high == pytest.approx(difference.mean() + half, abs=0.002)
    assert 2 / 4001 <= p + 1e-12 < 0.01
    assert paired_bootstrap(difference - difference.mean(), draws=4000)[2] > 0.5


def test_paired_bootstrap_counts_seeds_too() -> None:
    """Three seeds that differ while their items do not: interval and p are Student's."""
    difference = np.repeat([[-0.1], [0.0], [0.4]], 5000, axis=1)
    low, high, p = paired_bootstrap(difference, draws=40_000)
    seeds = difference.mean(1)
    found = stats.t.interval(0.95, 2, seeds.mean(), stats.sem(seeds))
    assert (low, high) == pytest.approx(found, abs=0.02)
    assert p == pytest.approx(stats.ttest_1samp(seeds, 0).pvalue, abs=0.01)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Three seeds and 200 items, both of which vary: at least about 95 of 100 intervals hold the mean."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        difference = rng.normal(0, 0.02, (3, 1)) + rng.normal(0, 0.2, (1, 200)) + rng.normal(0, 0.2, (3, 200))
        low, high, _ = paired_bootstrap(difference, draws=400)
        held += low <= 0 <= high
    assert 0.93 <= held / 300 <= 1.0


def test_clusters_are_drawn_whole() -> None:
    """Ten copies of each of 200 items say no more than the 200."""
    rng = np.random.default_rng(1)
    single = rng.normal(0.02, 0.2, (1, 200))
    copies, clusters = np.repeat(single, 10, axis=1), np.repeat(np.arange(200, dtype=np.int32), 10)[None]
    assert paired_bootstrap(copies, clusters) == pytest.approx(paired_bootstrap(single))
    low, high, _ = paired_bootstrap(copies)
    found = paired_bootstrap(copies, clusters)
    assert found[1] - found[0] == pytest.approx(10**0.5 * (high - low), rel=0.1)


def test_clusters_of_several_kinds_hold_the_truth_as_often_as_they_say() -> None:
    """Items are pairs of 40 pictures and 50 sounds, both of which vary: one kind alone says too little."""
    rng = np.random.default_rng(0)
    kinds = np.stack([rng.integers(40, size=600), rng.integers(50, size=600)]).astype(np.int32)
    held = np.zeros(3)
    for _ in range(300):
        pictures, sounds = rng.normal(0, 0.2, 40)[kinds[0]], rng.normal(0, 0.2, 50)[kinds[1]]
        difference = (pictures + sounds + rng.normal(0, 0.1, 600))[None]
        for i, some in enumerate((kinds, kinds[:1], kinds[1:])):
            low, high, _ = paired_bootstrap(difference, some, draws=400)
            held[i] += low <= 0 <= high
    assert 0.9 <= held[0] / 300 <= 0.99
    assert held[1:].max() / 300 < 0.88


def test_a_kind_of_clusters_that_says_nothing_new_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    difference, films = rng.normal(0.02, 0.2, (2, 300)), np.arange(300, dtype=np.int32) // 5
    alone = paired_bootstrap(difference, films[None])
    assert paired_bootstrap(difference, np.stack([films, films])) == pytest.approx(alone)
    assert paired_bootstrap(difference, np.stack([films, np.arange(300)])) == pytest.approx(alone)


def test_models_scored_on_different_rows_are_not_compared() -> None:
    films, others = (pack_clusters([(str(i // n),) for i in range(60)]) for n in (20, 30))
    right = [i < 40 for i in range(60)]
    rows = [made("graph", 0, right, clusters=films), made("concat", 0, [True] * 60, clusters=others)]
    text = tables.table(rows)
    assert "graph and concat were scored on different rows and are not compared" in text
    assert "points, 95 % interval" not in text


def test_the_reference_of_a_table_without_an_engine_is_named() -> None:
    rows = [made(m, 0, right) for m, right in (("fast", [True, False]), ("usual", [True, True]))]
    assert "less fast, points" in tables.table(rows)  # whichever was done first
    assert "less usual, points" in tables.table(rows, "usual")


def test_a_mean_over_clusters_is_one_over_items() -> None:
    """A cluster of 90 items of 100 weighs 0.9 where it is drawn."""
    difference = np.concatenate([np.ones((1, 90)), np.zeros((1, 10))], axis=1)
    low, high, _ = paired_bootstrap(difference, np.array([[0] * 90 + [1] * 10], np.int32), draws=500)
    assert (low, high) == (0.0, 1.0)


# the command


def test_runs_are_made_once_and_the_table_comes_from_the_file(
    data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = Entry(
        "toy",
        lambda _: data,
        lambda d, seed: [Run("graph", seed, {**SMALL, "graph": "hub"}), Run("no edges", seed, {**SMALL, "graph": "none"})],
        1,
    )  # fmt: skip
    options = ["--results", str(tmp_path / "out"), "--jobs", "2"]
    assert command.main("toy", "", [entry], options) == 0
    printed = capsys.readouterr().out
    assert "2/2 toy" in printed
    with (tmp_path / "out" / "toy.csv").open() as file:
        found = list(csv.DictReader(file))
    assert sorted((r["model"], r["seed"]) for r in found) == [("graph", "0"), ("no edges", "0")]  # fmt: skip
    assert command.main("toy", "", [entry], options) == 0
    assert "2/2" not in capsys.readouterr().out  # nothing was left to do
    text = (tmp_path / "out" / "toy.md").read_text()
    for name in ("toy.md", "toy.png"):
        (tmp_path / "out" / name).unlink()
    assert command.main("toy", "", [entry], [*options, "--table"]) == 0
    assert (tmp_path / "out" / "toy.md").read_text() == text
    assert (tmp_path / "out" / "toy.png").stat().st_size > 5_000


def test_a_run_of_another_table_is_taken_from_there(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "ProcessPoolExecutor", Inline)
    """Under its own name there; only if it is the same: its settings, its rows, a fit or late fusion."""
    same, other = Run("engine", 0, SMALL), Run("engine", 0, {**SMALL, "dim": 16})
    right = [True] * 5 + [False] * 35
    for name, run in (("graph", same), ("late fusion", other)):
        results.append(tmp_path / "first.csv", made(name, 0, right, data="toy", key=run.key(data)))
    entry = Entry("toy", lambda _: data, lambda d, s: [same, replace(other, model="wide")], 1)
    assert command.main("toy", "", [entry], ["--results", str(tmp_path), "--jobs", "1"]) == 0
    assert "toy, engine, seed 0: taken from first.csv" in capsys.readouterr().out
    found = {r["model"]: r for r in results.read(tmp_path / "toy.csv")}
    assert found["engine"]["right"] == made("", 0, right)["right"] != found["wide"]["right"]


def made(model: str, seed: int, right: list[bool], **more: str) -> dict[str, str]:
    packed = base64.b64encode(np.packbits(right).tobytes()).decode()
    return {
        "data": "toy", "model": model, "seed": str(seed), "split": "test", "accuracy": str(np.mean(right)), "macro_f1": "0.5",
        "weighted_f1": "0.6", "valid_accuracy": "0.5", "parameters": "1234", "fit_seconds": "10", "peak_mb": "100", "rows": "9",
        "inputs": "a b", "right": f"{len(right)}:{packed}", "machine": "m", "threads": "1", "versions": "v", "commit": "c",
        "key": "k", **more,
    }  # fmt: skip


def test_the_numbers_of_a_table() -> None:
    right = {"graph": [57, 60], "no edges": [48, 54], "a": [30, 30]}
    listed = [
        made(m, s, [i < k for i in range(60)], fit_seconds="30" if m == "graph" else "10", inputs="a" if m == "a" else "a b")
        for m, counts in right.items() for s, k in enumerate(counts)
    ]  # fmt: skip
    text = tables.table(listed)
    assert "| graph | 2 | 97.50 ± 3.54 |" in text
    assert "| no edges | 2 | 85.00 ± 7.07 |" in text
    assert "| a alone | 2 | 50.00 ± 0.00 |" in text
    assert "0.33 ×" in text
    assert "graph less no edges: +12.50 points" in text
    graph, bare, half_right = (
        np.array([[i < k for i in range(60)] for k in counts], float) for counts in right.values()
    )
    low, high, p = paired_bootstrap(graph - bare)
    most = max(p, 2 * paired_bootstrap(graph - half_right)[2])  # Holm: of two, the least p counts twice
    assert f"| -12.50 ({-100 * high:+.2f} to {-100 * low:+.2f}) | {most:.2g} |" in text
    half = interval(np.array([95.0, 100.0]))
    assert f"± {half:.2f}" in text


def test_an_overview_has_a_line_for_each_number_of_rows() -> None:
    right = [True, True, True, False]
    rows = [
        made("graph", 0, right, rows="90"), made("graph", 1, right[1:] + [False], rows="90"), made("graph, 9 rows", 0, right),
        made("a", 0, [False] * 4, inputs="a"), made("b", 0, right[::-1], inputs="b", valid_accuracy="0.6"), made("a + b", 0, right, inputs="a b"),
        made("no edges", 0, [False, True, False, True]), made("late fusion", 0, [True] * 4, rows=""),
        made("graph", 0, right, data="other"),
    ]  # fmt: skip
    text = tables.table(rows).split("###")[0].strip().splitlines()
    assert text[0].startswith(
        "| accuracy, % | seeds | graph | no edges | shuffled edges | Transformer | concat | late fusion |"
    )
    assert text[2] == "| toy | 2 | 62.50 ± 17.68 | – | – | – | – | – | – |"
    assert text[3] == "| toy, 9 rows | 1 | 75.00 | 50.00 | – | – | – | 100.00 | 75.00 (b) |"
    assert text[4].startswith("| other | 1 | 75.00 | –")


def test_only_the_pair_that_is_best_on_validation_rows_is_shown() -> None:
    listed = [
        made("graph", 0, [True, True], inputs="a b c"),
        made("a + b", 0, [True, True], inputs="a b", valid_accuracy="0.4"),
        made("b + c", 0, [False, True], inputs="b c", valid_accuracy="0.6"),
    ]
    text = tables.table(listed)
    assert "| b + c" in text
    assert "| a + b" not in text


def test_runs_of_other_settings_are_not_counted() -> None:
    listed = [
        made("graph", 1, [False] * 9, key="old"),
        made("graph", 2, [False] * 9, key="old"),
        made("graph", 0, [True] * 9),
    ]
    text = tables.table(listed)
    assert "| graph | 1 | 100.00 |" in text
    assert "graph: 2 runs of other settings or rows are not counted." in text


def test_costs_are_those_of_a_fit_to_as_many_rows() -> None:
    listed = [
        made("graph", 0, [True] * 9, rows="90", fit_seconds="100"),
        made("graph, 9 rows", 0, [True] * 9, fit_seconds="10"),
        made("concat", 0, [True, *[False] * 8], fit_seconds="5"),
    ]
    text = tables.table(listed)
    assert "| 0.50 × |" in text
    assert "graph, 9 rows less concat" in text


def test_times_are_compared_within_a_commit() -> None:
    listed = [
        made("graph", 0, [True] * 9, fit_seconds="10", commit="a"),
        made("graph", 1, [True] * 9, fit_seconds="30", commit="b"),
        made("concat", 0, [True, *[False] * 8], fit_seconds="5", commit="a"),
        made("Transformer", 0, [True, *[False] * 8], fit_seconds="5", commit="c"),
    ]
    concat, other = (
        line for line in tables.table(listed).splitlines() if line.startswith(("| concat", "| Transformer"))
    )
    assert "| 0.50 × |" in concat  # 5 of 10 seconds, not of 20
    assert "0.25 ×" not in other
    assert "0.50 ×" not in other
    assert "Times are compared within a commit only" in tables.table(listed)


def test_the_engine_is_no_rival_of_itself_and_a_choice_by_scored_rows_is_told() -> None:
    rows = [made("graph", 0, [True] * 6 + [False] * 3, rows="90"), made("graph, 9 rows", 0, [True] * 5 + [False] * 4)]
    rows += [made("concat", 0, [False] * 4 + [True] * 5), made("gated", 0, [False] * 6 + [True] * 3)]
    text = tables.table(rows)
    assert "p (Holm, of 2)" in text
    (engine,) = (line for line in text.splitlines() if line.startswith("| graph |"))
    assert engine.endswith("|  |")
    assert "chosen by these very rows" not in text
    blind = [{**r, "valid_accuracy": ""} for r in rows]
    assert "chosen by these very rows" in tables.table(blind)


def test_what_makes_another_run(data: Data) -> None:
    one = Run("graph", 0, SMALL)
    assert one.key(data) == Run("graph", 1, dict(SMALL)).key(data)  # the seed is told apart by its own column
    assert one.key(data) != Run("graph", 0, {**SMALL, "epochs": 3}).key(data)
    assert one.key(data) != Run("graph", 0, SMALL, ("a",)).key(data)
    assert one.key(data) != Run("graph", 0, SMALL, split="valid").key(data)
    before = one.key(data)
    write_tables(data.folders[0], {"valid": rows(20, 7)})
    assert one.key(data) != before  # other rows


def test_writers_wait_for_each_other(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda k: results.append(path, {"data": "d", "model": "m", "seed": k}), range(40)))
    assert sorted(int(r["seed"]) for r in results.read(path)) == list(range(40))
    results.append(path, {"data": "d", "model": "m", "seed": 3, "more": 1})  # a new column
    assert len(results.read(path)) == 40


def test_clusters_of_many_runs_are_kept_once(tmp_path: Path) -> None:
    clusters = [pack_clusters([(f"film {k // n}",) for k in range(600)]) for n in (2, 3)]
    made = [{"data": "d", "model": m, "seed": k, "clusters": clusters[m == "b"]} for m in "ab" for k in range(20)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda row: results.append(tmp_path / f"{row['model']}.csv", row), made))
    results.append(tmp_path / "a.csv", {"data": "d", "model": "without", "seed": 0, "clusters": ""})
    found = [r for name in "ab" for r in results.read(tmp_path / f"{name}.csv")]
    assert {(r["model"], r["clusters"]) for r in found} == {("a", clusters[0]), ("b", clusters[1]), ("without", "")}
    assert all(text not in path.read_text() for path in tmp_path.glob("*.csv") for text in clusters)
    kept = (tmp_path / "clusters.json").read_text()
    assert [kept.count(text) for text in clusters] == [1, 1]
    (tmp_path / "clusters.json").unlink()
    with pytest.raises(ValueError, match=r"a\.csv names clusters \w+, which clusters.json beside it lacks"):
        results.read(tmp_path / "a.csv")


def test_late_fusion_finds_or_makes_its_members(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "ProcessPoolExecutor", Inline)
    entry = Entry("toy", lambda _: data, lambda d, s: controls.with_controls(d, {**SMALL, "dim": 16}, s), 1)
    options = ["--results", str(tmp_path), "--jobs", "2", "--models", "late fusion"]
    assert command.main("toy", "", [entry], options) == 0
    made_first = {r["model"]: r for r in results.read(tmp_path / "toy.csv")}
    assert sorted(made_first) == ["a", "b", "late fusion"]
    (tmp_path / "toy.csv").unlink()
    for row in (made_first["b"], {**made_first["late fusion"], "accuracy": "0"}):  # `a` is to be made again
        results.append(tmp_path / "toy.csv", row)
    assert command.main("toy", "", [entry], [*options, "a"]) == 0
    again = {r["model"]: r["accuracy"] for r in results.read(tmp_path / "toy.csv")}
    assert again == {m: r["accuracy"] for m, r in made_first.items()}


def test_a_commit_that_changes_meanwhile_is_told(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = iter(["one", "one", "two"])
    monkeypatch.setattr(command, "environment", lambda: {"commit": next(commits)})
    monkeypatch.setattr(command, "ProcessPoolExecutor", Inline)
    entry = Entry("toy", lambda _: data, lambda d, s: [Run(m, s, SMALL) for m in "ab"], 1)
    path = tmp_path / "toy.csv"
    command._run_missing(path, [entry], argparse.Namespace(data=None, seeds=1, models=None, jobs=1))
    assert [r["commit"] for r in results.read(path)] == ["one", "one..two"]


def test_a_run_that_fails_leaves_the_others(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "ProcessPoolExecutor", Inline)
    entry = Entry(
        "toy", lambda _: data, lambda d, s: [Run("bad", s, {**SMALL, "encoders": {"image": "linear"}}), Run("graph", s, SMALL)], 1
    )  # fmt: skip
    assert command.main("toy", "", [entry], ["--results", str(tmp_path), "--jobs", "1"]) == 1
    assert "bad, seed 0: failed, ConfigError" in capsys.readouterr().out
    assert [r["model"] for r in results.read(tmp_path / "toy.csv")] == ["graph"]


def test_wrong_options_are_told(data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = Entry("toy", lambda _: data, lambda d, s: [Run("graph", s, SMALL)], 1)
    options = ["--results", str(tmp_path)]
    with pytest.raises(SystemExit, match=r"--models: no grpah here; there are graph\."):
        command.main("toy", "", [entry], [*options, "--models", "grpah"])
    with pytest.raises(SystemExit):
        command.main("toy", "", [entry], [*options, "--seeds", "0"])
    assert "expected a number from 1, got '0'" in capsys.readouterr().err


def test_only_what_is_asked_for_is_printed(data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = [Entry(n, lambda _: data, lambda d, s: [Run("graph", s, SMALL)], 1) for n in ("toy", "other")]
    for name in ("toy", "other"):
        results.append(tmp_path / "t.csv", made("graph", 0, [True, False], data=name))
    assert command.main("t", "", entries, ["--results", str(tmp_path), "--table", "--only", "other"]) == 0
    printed = capsys.readouterr().out
    assert "### other" in printed
    assert "### toy" not in printed
    assert "### toy" in (tmp_path / "t.md").read_text()


def test_clusters_are_kept_in_the_file() -> None:
    names = [("v2", "a"), ("v1", "b"), ("v1", "c"), ("v2", "b"), ("v3", "a")]
    assert unpack_clusters(pack_clusters(names)).tolist() == [[0, 1, 1, 0, 2], [0, 1, 2, 1, 0]]
    assert len(unpack_clusters(pack_clusters([]))) == 0


def test_a_table_draws_whole_clusters() -> None:
    clusters = pack_clusters([(str(i // 20),) for i in range(60)])
    right = {"graph": 60, "no edges": 40}
    listed = [
        made(m, seed, [i < count for i in range(60)], clusters=clusters)
        for m, count in right.items()
        for seed in (0, 1)
    ]
    text = tables.table(listed)
    assert "over 3 clusters of items, Student over seeds" in text
    assert "95 % interval +0.00 to +100.00" in text


def test_scores_against_scikit_learn() -> None:
    truth, answers = list("aabbbc"), list("abbbcc")
    found = scores(truth, answers)
    assert found["accuracy"] == pytest.approx(4 / 6, abs=1e-5)
    assert found["macro_f1"] == pytest.approx(f1_score(truth, answers, average="macro"), abs=1e-5)
    assert right_items(found["right"]).tolist() == [True, False, True, True, False, True]
