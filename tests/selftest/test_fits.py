"""Faults of a fit, reduced; and that each check notices when its guard is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from graphfusion.selftest import fits
from graphfusion.training import loop, step


@pytest.mark.parametrize("name", ["r04", "r07", "r11", "r16", "r18"])
def test_a_fit_survives(name: str, tmp_path: Path) -> None:
    figure = getattr(fits, name)(tmp_path, False)
    assert figure.ok, str(figure)


def test_r04_notices_randomness_that_is_not_counted(tmp_path: Path) -> None:
    with mock.patch.object(step, "counted_seed", side_effect=range(10**6)):
        assert not fits.r04(tmp_path, False).ok


def test_r16_notices_a_lost_batch(tmp_path: Path) -> None:
    with mock.patch.object(step, "_shares", lambda model, parts: [dict.fromkeys(model.tasks.names, 1.0)] * len(parts)):
        assert not fits.r16(tmp_path, False).ok


def test_r18_notices_missing_guards(tmp_path: Path) -> None:
    def nothing(*_: Any) -> None:
        return None

    with mock.patch.object(step, "check_gradients", nothing), mock.patch.object(loop, "check_weights", nothing):
        figure = fits.r18(tmp_path, False)
    assert not figure.ok
    assert "gradient" in figure.note
