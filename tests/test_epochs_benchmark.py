"""A reduced run of `benchmarks/epochs.py`."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from benchmarks import epochs
from graphfusion.fusion import FUSIONS


def test_a_row_for_each_model_with_ratios_to_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FUSIONS, "on_pyg", epochs.PyGFusion)  # taken back after the test
    assert epochs.main(["--only", "easy_vqa", "--rows", "13", "--rounds", "1", "--results", str(tmp_path)]) == 0
    with (tmp_path / "epochs_cpu.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["model"] for r in rows] == ["graphfusion", "PyG layers", "dense Transformer"]
    for row in rows:
        ratio = float(row["epoch_seconds"]) / float(rows[0]["epoch_seconds"])
        assert float(row["times_the_engine"]) == pytest.approx(ratio, rel=0.01)


def test_every_way_of_fusing_has_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FUSIONS, "on_pyg", epochs.PyGFusion)
    words = [w for w in FUSIONS if w not in ("graph", "gat", "on_pyg")]
    assert list(epochs.STRATEGIES)[1:] == words
    some = {name: epochs.STRATEGIES[name] for name in ("graphfusion", "gated", "weighted_vote")}
    monkeypatch.setattr(epochs, "STRATEGIES", some)
    options = ["--strategies", "--only", "easy_vqa", "--rows", "13", "--rounds", "1", "--results", str(tmp_path)]
    assert epochs.main(options) == 0
    with (tmp_path / "strategy_epochs_cpu.csv").open() as file:
        assert [r["model"] for r in csv.DictReader(file)] == list(some)
