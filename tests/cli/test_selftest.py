"""`graphfusion selftest` tells what the checks find."""

from __future__ import annotations

from pathlib import Path

import pytest

import graphfusion.selftest
from graphfusion.cli import main
from graphfusion.selftest import Figure

SEEN: list[tuple[str, bool]] = []


def good(work: Path, full: bool) -> Figure:
    assert not list(work.iterdir())
    (work / "left behind").touch()
    SEEN.append(("R02", full))
    return Figure("R02", "cut checkpoints refused", 1200, 1200)


def bad(work: Path, full: bool) -> Figure:
    assert not list(work.iterdir())
    return Figure("I01", "images as documented", 33, 34, "a | b: turned\nround")


def broken(work: Path, full: bool) -> Figure:
    raise RuntimeError("no pixels")


@pytest.fixture(autouse=True)
def checks(monkeypatch: pytest.MonkeyPatch) -> None:
    SEEN.clear()
    monkeypatch.setattr(graphfusion.selftest, "CHECKS", {"R02": good, "I01": bad, "S05": broken})


def test_each_figure_is_printed_and_a_failure_is_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("R02  ok    1,200 / 1,200  cut checkpoints refused  (")
    assert lines[1].startswith("I01  FAIL     33 / 34")
    assert "S05  FAIL      0 / 1      could not be carried out  RuntimeError: no pixels" in "\n".join(lines)
    assert lines[-1].startswith("1 of 3 checks passed in ")
    assert SEEN == [("R02", False)]


def test_only_some_and_every_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--full", "--only", "r02"]) == 0
    assert SEEN == [("R02", True)]
    assert "1 of 1 checks passed" in capsys.readouterr().out


def test_no_check_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphfusion.selftest, "CHECKS", {})
    assert main(["selftest"]) == 1


def test_the_report_says_what_how_and_where(tmp_path: Path) -> None:
    path = tmp_path / "figures.md"
    main(["selftest", "--only", "R02", "I01", "--report", str(path)])
    lines = path.read_text().splitlines()
    assert f"Made by `graphfusion selftest --only R02 I01 --report {path}` on 20" in lines[2]
    assert "torch 2" in lines[3]
    assert any(line.startswith("| R02 | cut checkpoints refused | 1,200 | 1,200 | 0.") for line in lines)
    assert any(line.endswith(r"| a \| b: turned round |") for line in lines)
    assert lines[-1] == "1 of 2 checks passed."
