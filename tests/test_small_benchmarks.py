"""`benchmarks/graph_builder.py` on few nodes, `benchmarks/demo.py` and `benchmarks/weights.py` on few rows."""

from __future__ import annotations

import csv
import json
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import graph_builder, weights
from benchmarks.recipes import load_recipe
from graphfusion import FusionPredictor
from graphfusion.data import read_table
from tests.test_engine_benchmark import miniature

BENCHMARKS = Path(graph_builder.__file__).parent


def test_the_graph_builder_beside_the_published_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"NODES": 60, "ROUNDS": 1, "RESULTS": tmp_path}.items():
        monkeypatch.setattr(graph_builder, name, value)
    graph_builder.main()
    edges = 60 * 20 - 2 * (10 + 9 + 8 + 7 + 6 + 5 + 4 + 3 + 2 + 1)  # what the window lacks at both ends
    assert f"60 nodes, window ±10, {edges:,} edges, the same in both" in capsys.readouterr().out
    (row,) = csv.DictReader((tmp_path / "graph_builder.csv").read_text().splitlines())
    assert int(row["edges"]) == edges
    monkeypatch.setattr(graph_builder, "published_loop", lambda *_: [(0, 1)])
    with pytest.raises(AssertionError, match="the edges differ"):
        graph_builder.main()


def test_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {"train": 600, "valid": 20, "test": 24}  # as many as have every answer
    load_recipe("digit_ops").convert(tmp_path / "digit_ops_dialled", "dialled", None, rows, tmp_path / "work")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    options = [
        "--out",
        str(tmp_path),
        "--epochs",
        "1",
        "--device",
        "cpu",
        "--results",
        str(tmp_path),
        "--at-least",
        "1.01",
    ]
    monkeypatch.setattr("sys.argv", ["demo.py", *options])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(BENCHMARKS / "demo.py"), run_name="__main__")
    assert stop.value.code == 1
    assert "below 101.0%" in capsys.readouterr().out
    record = json.loads((tmp_path / "demo_cpu.json").read_text())
    again, test = FusionPredictor.load(tmp_path / "run"), tmp_path / "digit_ops_dialled" / "test.parquet"
    assert record["accuracy"]["image + sound + question"] == pytest.approx(again.evaluate(test)["accuracy"], abs=1e-4)
    assert record["accuracy"]["image"] == pytest.approx(
        again.evaluate(test, without=("sound", "question"))["accuracy"], abs=1e-4
    )
    assert len(record["accuracy"]) == 7
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("graph.png", "confusion.png"))


class Weighed:
    """What a fitted predictor says of four rows, of which it gets the last one wrong."""

    targets = ("digit",)

    def predict(self, table: Any) -> list[str]:
        return ["1", "2", "3", "5"]

    def modality_weights(self, table: Any) -> dict[str, np.ndarray[Any, Any]]:
        return {"word": np.array([0.1, 0.2, 0.6, 0.8]), "image": np.array([0.9, 0.8, 0.4, 0.2])}


def test_weights_by_the_letters_that_are_there() -> None:
    table = read_table({"word": ["____", "t_o", "t__ee", "_o_r"], "digit": ["1", "2", "3", "4"]})
    found = weights.weights_by_letters(Weighed(), table)  # type: ignore[arg-type]
    assert [(r["letters"], r["rows"], r["modality"], r["weight"], r["accuracy"]) for r in found] == [
        (0, 1, "word", 0.1, 1.0),
        (0, 1, "image", 0.9, 1.0),
        (2, 2, "word", 0.5, 0.5),
        (2, 2, "image", 0.5, 0.5),
        (3, 1, "word", 0.6, 1.0),
        (3, 1, "image", 0.4, 1.0),
    ]


def test_weights_of_few_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(name: str) -> Any:
        data = miniature(name, tmp_path / name)
        return lambda sources: replace(data, fit={**data.fit, "epochs": 1, "dim": 16, "heads": 2})

    monkeypatch.setattr(weights, "data_of", small)
    assert weights.main(["--results", str(tmp_path / "out")]) == 0
    rows = list(csv.DictReader((tmp_path / "out" / "weights.csv").read_text().splitlines()))
    assert [(r["strategy"], r["modality"]) for r in rows] == [
        (s, m) for s in weights.CHOOSERS for m in ("image", "sound", "word")
    ]
    assert sum(float(r["weight"]) for r in rows[:3]) == pytest.approx(1.0, abs=2e-4)
    assert {r["rows"] for r in rows} == {"6"}
    for name in ("weights.png", "weights_tokens.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
