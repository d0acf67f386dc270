"""The command line, run as a user would."""

from __future__ import annotations

import subprocess
import sys

import pytest

from graphfusion.cli import doctor, main
from graphfusion.ops.hetero_attention import library


def test_doctor_as_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "graphfusion.cli", "doctor"], capture_output=True, text=True, check=True
    )
    assert "attention backend reference  ready" in done.stdout
    assert "CUDA device" in done.stdout


def test_doctor_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_library", lambda: "no compiler was there")
    assert "cpu        cannot run: no compiler was there" in doctor()


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["docter"])
    assert "doctor" in capsys.readouterr().err
