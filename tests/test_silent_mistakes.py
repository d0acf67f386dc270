"""What a reader of the training code found: each was silent once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import graphfusion as gf
from graphfusion.errors import ConfigError, SchemaError
from graphfusion.graph_builder import SequenceWindow
from graphfusion.modalities.tabular import scale_of
from graphfusion.tasks.classification import ClassificationTask

SMALL = {"dim": 8, "heads": 2, "layers": 1, "epochs": 1, "seed": 0}
COLUMNS = {"words": gf.Text(), "x": gf.Tabular("number")}


def rows(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"words": f"red pot {i}", "x": i % 5, "label": "ab"[i % 2], **more} for i in range(count)]


def test_validation_rows_without_a_target_are_refused() -> None:
    p = gf.FusionPredictor("label", columns=COLUMNS, **SMALL)
    with pytest.raises(SchemaError, match="no validation row has a target that is known"):
        p.fit(rows(12), valid=rows(4, label=None), quiet=True)


def test_scores_of_rows_without_a_target_are_no_numbers() -> None:
    p = gf.FusionPredictor("label", columns=COLUMNS, **SMALL).fit(rows(12), valid=None, quiet=True)
    found = p.evaluate(rows(3, label=None))
    assert found["rows"] == 0
    assert np.isnan(found["loss"])
    assert np.isnan(found["score"])


def test_a_target_that_cannot_be_scored_leaves_the_others_to_choose_the_epoch() -> None:
    """r2 of one row is no number."""
    table = [{**r, "y": float(i)} for i, r in enumerate(rows(12))]
    held = [{**r, "y": 1.0 if i == 0 else None} for i, r in enumerate(rows(4))]
    p = gf.FusionPredictor(["label", "y"], columns=COLUMNS, **SMALL).fit(table, valid=held, quiet=True)
    assert p.history[0]["valid_score"] == p.history[0]["valid_label/accuracy"]


def test_a_finished_predictor_is_not_written_over_by_resume(tmp_path: Path) -> None:
    gf.FusionPredictor("label", columns=COLUMNS, **SMALL).fit(
        rows(12), valid=None, save_path=tmp_path / "a", quiet=True
    )
    shutil.rmtree(tmp_path / "a" / "checkpoints")
    other = gf.FusionPredictor("label", columns={**COLUMNS, "x": None}, **SMALL)
    with pytest.raises(
        ConfigError, match=r"holds a finished predictor and no checkpoint to go on from.*resume='restart'"
    ):
        other.fit(rows(12), valid=None, save_path=tmp_path / "a", resume="auto", quiet=True)
    assert "x" in str(gf.FusionPredictor.load(tmp_path / "a").schema.inputs)
    other.fit(rows(12), valid=None, save_path=tmp_path / "a", resume="restart", quiet=True)
    assert list(gf.FusionPredictor.load(tmp_path / "a").schema.inputs) == ["words"]


def test_small_units_are_scaled() -> None:
    assert scale_of(np.array([1e-12, 2e-12, 3e-12])) == pytest.approx((2e-12, (2 / 3) ** 0.5 * 1e-12))
    assert scale_of(np.array([0.1] * 10))[1] == 1.0
    assert scale_of(np.zeros(3))[1] == 1.0
    table = [{**r, "farad": (1 + r["x"]) * 1e-12} for r in rows(40)]
    p = gf.FusionPredictor("farad", columns={**COLUMNS, "label": None}, **{**SMALL, "epochs": 40, "lr": 0.02})
    p.fit(table, valid=None, quiet=True)
    assert p.evaluate(table)["r2"] > 0.5


def test_a_target_kind_for_what_is_no_target_is_refused() -> None:
    p = gf.FusionPredictor("x", columns={"words": gf.Text(), "label": gf.Class()}, **SMALL)
    with pytest.raises(SchemaError, match=r"column 'label' is declared as a target \(class\), and the targets are 'x'"):
        p.fit(rows(12), valid=None, quiet=True)


def test_a_hub_that_hears_nothing_is_not_read() -> None:
    for settings in ({"relations": [SequenceWindow("words", 2)]}, {"graph": "within"}):
        p = gf.FusionPredictor("label", columns=COLUMNS, readout="hub", hubs=2, **settings, **SMALL)
        with pytest.raises(ConfigError, match="no relation leads to them"):
            p.fit(rows(12), valid=None, quiet=True)
    p = gf.FusionPredictor("label", columns=COLUMNS, readout="hub", hubs=2, **{**SMALL, "layers": 0})
    with pytest.raises(ConfigError, match="layers=0 lets them hear nothing"):
        p.fit(rows(12), valid=None, quiet=True)


def test_a_time_limit_is_of_one_fit(tmp_path: Path) -> None:
    p = gf.FusionPredictor("label", columns=COLUMNS, **SMALL)
    p.fit(rows(12), valid=None, time_limit=30, quiet=True)
    assert p.config.training.time_limit == 0.0


def test_smoothed_labels_are_of_training_alone() -> None:
    torch.manual_seed(0)
    task, logits, target = (
        ClassificationTask("y", 4, ("a", "b"), label_smoothing=0.2),
        torch.randn(6, 2),
        torch.arange(6) % 2,
    )
    plain = torch.nn.functional.cross_entropy(logits, target)
    torch.testing.assert_close(task.eval().loss(logits, target), plain)
    smoothed = 0.8 * plain - 0.2 * logits.log_softmax(1).mean()
    torch.testing.assert_close(task.train().loss(logits, target), smoothed)


def test_strong_augmentation_of_a_sound_takes_all_of_it_at_most() -> None:
    cell = np.sin(np.arange(4000) / 20).astype(np.float32)
    table = [{"sound": cell, "label": "ab"[i % 2]} for i in range(8)]
    columns = {"sound": gf.Audio(sample_rate=8000, array_rate=8000)}
    p = gf.FusionPredictor("label", columns=columns, augment=10.0, **{**SMALL, "epochs": 3})
    p.fit(table, valid=None, quiet=True)
    assert p.report is not None
    assert p.report.skipped == 0


def test_rows_whose_labels_are_sets_have_one_digest_in_every_process() -> None:
    code = (
        "from graphfusion.fit_folder import rows_digest\n"
        "from graphfusion.modalities import TokenizedSample\n"
        "class P: modalities = ()\n"
        "rows = [TokenizedSample(0, {}, {'t': {'red', 'warm', 'large', 'old'}})]\n"
        "print(rows_digest(P, rows))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": str(seed)}, capture_output=True, text=True, check=True
        ).stdout
        for seed in range(3)
    }
    assert len(found) == 1
