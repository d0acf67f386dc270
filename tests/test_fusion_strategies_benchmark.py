"""`benchmarks/fusion_strategies.py` on a few rows: every word has a row, as many parameters as the engine, and its shares."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import fusion_strategies as script
from benchmarks.harness.command import Entry
from benchmarks.harness.environment import ROOT
from benchmarks.harness.results import read
from benchmarks.harness.runs import Data, Run
from graphfusion.fusion import FUSIONS
from tests.conftest import Inline
from tests.test_engine_benchmark import miniature

WORDS = ["graph", "gated", "weighted_vote"]


def test_every_word_is_a_run_at_equal_parameters(tmp_path: Path) -> None:
    data = miniature("cmu_mosi", tmp_path)
    words = [w for w in FUSIONS if w != "gat"]  # the engine's default: `graph` again
    blind = script.every_strategy(replace(data, choose=False), 0)
    runs = script.every_strategy(data, 0)
    assert {r.model for r in runs} - {r.model for r in blind} == {"weighted_vote"}
    named = {r.model: r for r in runs}
    assert set(words) < set(named)
    assert {"no edges", "shuffled edges", "late fusion", "text", "text + audio"} < set(named)
    assert len(named) == len(runs)
    assert len({named[w].key(data) for w in words}) == len(words)
    assert [w for w in words if named[w].match is None] == ["graph"]


@pytest.mark.parametrize("name", ["cmu_mosi", "digit_ops"])
def test_a_reduced_table(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = miniature(name, tmp_path / "data")

    def few(_: Data, seed: int) -> list[Run]:
        engine = {"graph": "full", "epochs": 1, "dim": 16, "heads": 2}
        return [Run(w, seed, {**engine, "fusion": w}, match=None if w == "graph" else engine) for w in WORDS]

    monkeypatch.setattr(script, "ENTRIES", [Entry(name, lambda _: data, few, seeds=1)])
    monkeypatch.setattr("benchmarks.harness.command.ProcessPoolExecutor", Inline)
    assert script.run(["--results", str(tmp_path), "--jobs", "1"]) == 0
    rows = {r["model"]: r for r in read(tmp_path / "fusion_strategies.csv")}
    assert sorted(rows) == sorted(WORDS)
    counts = [int(r["parameters"]) for r in rows.values()]
    assert max(counts) / min(counts) < 1.11
    assert rows["graph"]["shares"] == ""
    votes = json.loads(rows["weighted_vote"]["shares"])
    assert set(votes) == set(data.inputs)
    assert sum(votes.values()) == pytest.approx(1.0, abs=1e-3)
    for ending in (".md", ".png", "_weights.png"):
        assert (tmp_path / f"fusion_strategies{ending}").stat().st_size > 0
    assert "| weighted_vote |" in capsys.readouterr().out


def test_the_strongest_are_those_of_the_validation_rows() -> None:
    words = [w for w in FUSIONS if w not in script.CONTROLS]
    rows = [
        {"data": "digit_ops", "model": w, "key": "k", "valid_accuracy": str(0.5 + 0.01 * i + 0.001 * s)}
        for i, w in enumerate([*words, "graph"])
        for s in range(3)
    ]
    assert script.best_of(rows) == tuple(words[-1:-4:-1])
    assert script.best_of(rows[1:]) == ()
    assert script.best_of([]) == ()
    committed = read(ROOT / "benchmarks" / "results" / "fusion_strategies.csv")
    assert script.best_of(committed) == script.STRONGEST


def test_the_strongest_stand_beside_the_controls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = miniature("degraded_digits", tmp_path)
    monkeypatch.setattr(script, "STRONGEST", ("gated", "tensor", "mean"))
    assert [(e.name, e.seeds) for e in script.ENTRIES][2:] == [
        (n, 5) for n in ("degraded_digits", "easy_vqa", "esc10", "cmu_mosi_around")
    ]
    models = [r.model for r in script.strongest(data, 0)]
    assert models[-3:] == ["gated", "tensor", "mean"]
    assert {"graph", "no edges", "shuffled edges", "late fusion", "image", "transformer"} <= set(models)
    assert len(set(models)) == len(models)


def test_what_an_epoch_costs(tmp_path: Path) -> None:
    path = tmp_path / "strategy_epochs_cpu.csv"
    table = tmp_path / "fusion_strategies.csv"
    assert script.costs(table) == ""
    made = {"rounds": "3", "machine": "M", "versions": "V", "commit": "C", "command": "do"}
    rows = [("demo", "graphfusion", "1"), ("demo", "mean", "0.5"), ("easy_vqa", "graphfusion", "1")]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["rows_of", "model", "times_the_engine", *made])
        writer.writeheader()
        writer.writerows(dict(zip(writer.fieldnames, row, strict=False)) | made for row in rows)
    told = script.costs(table)
    assert "| times the engine's | rows of demo | rows of easy_vqa |\n| --- | --- | --- |\n" in told
    assert "\n| mean | 0.5 | – |\n" in told
    assert "commit C; `do`" in told
