"""The check of videos passes here, and can fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphfusion.selftest import video


def test_i30(tmp_path: Path) -> None:
    figure = video.i30(tmp_path, full=False)
    assert figure.ok, str(figure)


def test_i30_notices_what_is_read_without_its_guards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphfusion.data.media.video.check_whole", lambda data: None)
    monkeypatch.setattr("graphfusion.data.media.video._upright", lambda picture, matrix: picture)
    figure = video.i30(tmp_path, full=False)
    assert 0 < figure.passed < figure.total
    assert "bytes" in figure.note


def test_i30_notices_another_error_and_a_slow_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(work: Path) -> str | None:
        raise KeyError("a")

    assert video._timed(broken, tmp_path) == "KeyError: 'a'"
    monkeypatch.setattr(video, "SECONDS", -1.0)
    assert "took" in str(video._timed(lambda work: None, tmp_path))
