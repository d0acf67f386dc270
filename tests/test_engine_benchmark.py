"""`benchmarks/engine.py` and `benchmarks/attention_modes.py` on a few rows in the form of each recipe."""

from __future__ import annotations

import runpy
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import attention_modes, engine, engine_options
from benchmarks.harness.command import Entry, main
from benchmarks.harness.results import read
from benchmarks.harness.runs import Data, Run, execute
from benchmarks.harness.scores import right_items, unpack_clusters
from benchmarks.recipes import load_recipe
from graphfusion.data.recipe import write_tables
from tests.conftest import Inline, png, wav

ROOT = Path(__file__).parents[1]


def cell(column: str, label: int, rng: np.random.Generator) -> Any:
    """A value of an input column as the recipes write it."""
    if column == "image":
        return png(rng.integers(0, 256, (28, 28, 3), dtype=np.uint8))
    if column == "sound":
        return wav(rng.normal(0, 0.1, 4000), 8000)
    if column in ("question", "word"):
        return f"what is {'abc'[label]} of {rng.integers(9)}"
    return rng.normal(size={"text": 100, "audio": 73, "video": 100}[column]).astype(np.float32).tolist()


def miniature(name: str, folder: Path) -> Data:
    """A data set of 12, 6 and 6 rows in the recipe's columns."""
    recipe, inputs = load_recipe(name), engine.INPUTS[name]
    tables = {}
    for k, (split, count) in enumerate({"train": 12, "valid": 6, "test": 6}.items()):
        rng = np.random.default_rng(k)
        rest = {c: f"{c}" for c, kind in recipe.FIT.get("columns", {}).items() if kind is None}
        groups = [f"{split}/{i % 3}" for i in range(count)]
        tables[split] = [
            {
                **rest,
                **({"image_id": groups[i]} if "image_id" in rest else {}),
                **{c: cell(c, i % 3, rng) for c in inputs},
                recipe.FIT["target"]: "abc"[i % 3],
            }
            for i in range(count)
        ]
    write_tables(folder, tables)
    return Data(name, (folder,), inputs, recipe.FIT)


@pytest.mark.parametrize("name", sorted(engine.SOURCES))
def test_the_engine_runs_on_every_recipe(name: str, tmp_path: Path) -> None:
    data = miniature(name, tmp_path)
    first = engine.runs_of(name)(data, 0)[0]
    row, _ = execute(Run(first.model, 0, {**first.settings, "epochs": 1, "dim": 16}), data)
    assert row["data"] == name
    assert len(right_items(row["right"])) == 6


@pytest.mark.parametrize("script", ["engine", "attention_modes"])
def test_a_reduced_table_of_each_script(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything but the recipe: all its runs, late fusion, the table and the plot."""
    data = miniature("easy_vqa", tmp_path / "tables")
    data = replace(data, fit={**data.fit, "epochs": 1, "dim": 16}, clusters=("image_id",))
    runs = {"engine": engine.runs_of("easy_vqa"), "attention_modes": attention_modes.easy_vqa}[script]
    monkeypatch.setattr("benchmarks.harness.command.ProcessPoolExecutor", Inline)
    options = ["--results", str(tmp_path), "--jobs", "1"]
    assert main(script, "", [Entry("easy_vqa", lambda _: data, runs, 1)], options) == 0
    found = {r["model"]: r for r in read(tmp_path / f"{script}.csv")}
    assert set(found) == {r.model for r in runs(data, 0)}
    assert {r["split"] for r in found.values()} == {"test" if script == "engine" else "valid"}
    assert all(len(set(unpack_clusters(r["clusters"])[0].tolist())) == 3 for r in found.values())
    printed = capsys.readouterr().out
    assert "F1 of each class" in printed
    assert script == "engine" or all(
        f"{a} less {b}" in printed or f"{a} and {b} were" in printed for a, b in combinations(found, 2)
    )


def test_options_of_the_engine_are_as_large_as_it(tmp_path: Path) -> None:
    data = miniature("digit_ops", tmp_path)
    runs = engine_options.options(data, 0)
    assert len({r.key(data) for r in runs}) == len(runs)
    assert [r.model for r in runs if r.match is None] == ["graph"]
    assert {r.split for r in runs} == {"valid"}


def test_files_of_esc10_are_cut_from_recordings() -> None:
    assert engine.recording("1-100032-A.ogg") == "100032"


def test_a_modality_and_what_is_around_it_are_one() -> None:
    data = Data("toy", (), ("text", "audio", "text_before"), {}, parts=(("text", "text_before"), ("audio",)))
    inputs = {r.model: r.inputs for r in engine.runs_of("cmu_mosi_around")(data, 0)}
    assert {name: inputs[name] for name in ("graph", "text", "audio")} == {
        "graph": (), "text": ("text", "text_before"), "audio": ("audio",),
    }  # fmt: skip
    assert {"late fusion", "Transformer", "shuffled edges"} <= set(inputs)
    assert {e.name: e.seeds for e in engine.ENTRIES}["cmu_mosi_around"] == 5


def test_mixtures_give_each_kind_of_relation_its_mode(tmp_path: Path) -> None:
    import graphfusion

    data = miniature("easy_vqa", tmp_path)
    modes = {run.model: run for run in attention_modes.easy_vqa(data, 0)}
    mixed = modes["gat, dot across"]
    predictor = graphfusion.FusionPredictor(**{**data.fit, **mixed.settings})
    attention = predictor.build(tmp_path / "train.parquet").model.fusion.layers[0].attention
    found = {t: group.mode for group, own in zip(attention.groups, attention.relations, strict=True) for t in own if hasattr(group, "mode")}  # fmt: skip
    assert found["image", "full", "question"] == "dot"
    assert found["image", "grid", "image"] == "gat"
    assert {r.model for r in attention_modes.digit_ops(data, 0)} == {"gat", "gatv2", "dot"}


@pytest.mark.parametrize("name", ["attention_modes", "engine_options", "shared_trunk"])
def test_a_committed_table_is_drawn_again(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = ROOT / "benchmarks" / "results"
    for file in (f"{name}.csv", "clusters.json"):
        shutil.copy(results / file, tmp_path)
    monkeypatch.setattr("sys.argv", [name, "--table", "--results", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "benchmarks" / f"{name}.py"), run_name="__main__")
    assert not stop.value.code
    drawn = {path.name for path in results.glob(f"{name}*") if path.suffix in (".md", ".png")}
    assert drawn <= {path.name for path in tmp_path.iterdir()}
    made, committed = ((folder / f"{name}.md").read_text().split("\n|") for folder in (tmp_path, results))
    assert [row.split("|")[0] for row in made] == [row.split("|")[0] for row in committed]
