"""The check of huge rows, and that it sees what it is to see."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphfusion.selftest import huge_rows


def test_a_huge_row_is_cut_and_weighs_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = huge_rows.r17(tmp_path, False)
    assert figure.ok, figure
    monkeypatch.setattr(huge_rows, "_weighed", lambda name: {"why": None, "peak": 151.0 if name else 100.0})
    heavy = huge_rows.r17(tmp_path, False)
    assert heavy.passed == heavy.total - 1
    assert "a million words: 151 MB, 100 without the row" in heavy.note
