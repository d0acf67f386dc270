"""What a fit shows and writes while it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from graphfusion.training.progress import FitProgress, MetricsLog


def test_a_fit_outlives_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = MetricsLog(tmp_path, 0)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log.board, "add_scalar", full)
    with pytest.warns(UserWarning, match="TensorBoard files cannot be written and end here: .*No space left"):
        log.write([{"epoch": 1, "train_loss": 2.0}])
    log.write([{"epoch": 1, "train_loss": 2.0}, {"epoch": 2, "train_loss": 1.0}])
    log.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["train_loss"] for line in lines] == [2.0, 1.0]
    (tmp_path / "tensorboard").rename(tmp_path / "other")
    (tmp_path / "tensorboard").write_text("in the way")
    with pytest.warns(UserWarning, match="TensorBoard files cannot be written"):
        MetricsLog(tmp_path, 0).close()


def test_a_bar_that_is_left_early_goes() -> None:
    progress = FitProgress(3)
    steps = progress.steps(1, range(5), 5)
    assert [next(steps), next(steps)] == [0, 1]
    assert len(progress.bar.tasks) == 1
    steps.close()
    assert not progress.bar.tasks
    assert list(progress.steps(2, range(2), 2)) == [0, 1]
    assert not progress.bar.tasks
