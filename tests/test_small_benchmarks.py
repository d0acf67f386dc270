"""`benchmarks/graph_builder.py` on few nodes and `benchmarks/demo.py` on few rows."""

from __future__ import annotations

import csv
import json
import runpy
from pathlib import Path

import pytest

from benchmarks import graph_builder
from benchmarks.recipes import load_recipe
from graphfusion import FusionPredictor

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
