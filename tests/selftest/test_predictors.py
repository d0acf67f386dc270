"""The checks of saved predictors pass, and notice what differs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from graphfusion.predictor import FusionPredictor
from graphfusion.selftest import predictors
from graphfusion.selftest.predictors import r21, r24


def test_r21_passes(tmp_path: Path) -> None:
    figure = r21(tmp_path, False)
    assert figure.ok, figure


def test_r21_notices_a_fit_that_is_not_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of a process: a folder of other weights, and nothing at all."""

    class Process:
        def communicate(self) -> tuple[None, str]:
            return None, "Traceback\nKeyError: 'why'"

    def start(call: str, **environment: str) -> Process:
        folder = Path(call.split("'")[1])
        shutil.copytree(tmp_path / "here", folder)
        (folder / "weights.safetensors").write_text(environment["PYTHONHASHSEED"])
        return Process()

    monkeypatch.setattr(predictors, "_start", start)
    assert "differ: ['weights.safetensors']" in r21(tmp_path, False).note
    monkeypatch.setattr(predictors, "_start", lambda call, **environment: Process())
    assert r21(tmp_path / "none", False).note.endswith("nothing was saved; KeyError: 'why'")


def test_r24_passes_and_notices_other_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    figure = r24(tmp_path / "a", False)
    assert figure.ok, figure
    real = FusionPredictor.load.__func__  # type: ignore[attr-defined]

    def load(cls: type[FusionPredictor], path: Path) -> FusionPredictor:
        found = real(cls, path)
        for parameter in found.pipeline.model.parameters():
            parameter.data *= 1.01
        return found

    monkeypatch.setattr(FusionPredictor, "load", classmethod(load))
    (tmp_path / "b").mkdir()
    assert "answers differ" in r24(tmp_path / "b", False).note
