"""`benchmarks/shared_trunk.py` on a few rows: the same model with one trunk and with several."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import shared_trunk as script
from benchmarks.harness.command import Entry
from benchmarks.harness.results import read
from tests.conftest import Inline
from tests.test_engine_benchmark import miniature


def test_a_reduced_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = miniature("cmu_mosi", tmp_path / "data")
    for settings in (script.SHARED, script.APART):
        for name, value in (("epochs", 1), ("dim", 16), ("heads", 2)):
            monkeypatch.setitem(settings, name, value)
    monkeypatch.setattr(script, "ENTRIES", [Entry(data.name, lambda _: data, script.trunks, seeds=1)])
    monkeypatch.setattr("benchmarks.harness.command.ProcessPoolExecutor", Inline)
    assert script.run(["--results", str(tmp_path), "--jobs", "1"]) == 0
    rows = {r["model"]: int(r["parameters"]) for r in read(tmp_path / "shared_trunk.csv")}
    one, each, equal = (rows[r.model] for r in script.trunks(data, 0))
    trunk = 2 * (4 * (16 * 16 + 16) + 16 * 64 + 64 + 64 * 16 + 16 + 2 * 32)  # attention, feedforward, norms of 2 layers
    assert each - one == 2 * trunk
    assert equal == pytest.approx(each, rel=0.05)
