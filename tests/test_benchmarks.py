"""The table of benchmarks/digit_ops.py, from files made by hand."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from benchmarks import digit_ops


def test_the_table_comes_from_the_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digit_ops, "RESULTS", tmp_path)
    truth = np.array([str(i % 3) for i in range(60)])
    right = {"graph (hub) / 0": 57, "graph (hub) / 1": 60, "no edges / 0": 48, "no edges / 1": 54}
    answers = {name: [t if i < k else "9" for i, t in enumerate(truth)] for name, k in right.items()}
    with (tmp_path / "digit_ops_answers.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["truth", *answers], *zip(truth, *answers.values(), strict=True)])
    rows = [
        {"model": name.split(" / ")[0], "seed": name[-1], "test_accuracy": k / 60, "test_macro_f1": k / 60, "parameters": 1234,
         "fit_seconds": 30 if "graph" in name else 10, "peak_mb": 100, "machine": "m", "threads": 1, "versions": "v", "commit": "c",
         "settings": digit_ops.settings_of(name.split(" / ")[0])}
        for name, k in right.items()
    ]  # fmt: skip
    with (tmp_path / "digit_ops.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    text = digit_ops.table()
    assert "| graph (hub) | 2 | 97.50 ± 3.54 |" in text
    assert "| no edges | 2 | 85.00 ± 7.07 |" in text
    assert "3.00 ×" in text
    assert "to +2" in text
    np.testing.assert_allclose(digit_ops.right_items("no edges").mean(), 0.85)
