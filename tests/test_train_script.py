"""`benchmarks/train.py`: converts, fits, scores, and says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import recipes, train
from graphfusion.data.recipe import write_tables
from graphfusion.schema import Text


def rows(count: int) -> list[dict[str, Any]]:
    return [{"words": f"{'good' if i % 2 else 'bad'} day {i}", "verdict": "yn"[i % 2], "id": i} for i in range(count)]


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A recipe with tables in a folder of their own, in place of esc10's."""

    def convert(arguments: list[str]) -> int:
        options = dict(zip(arguments[::2], arguments[1::2], strict=True))
        if options.get("--source", "").endswith("refused"):
            return 2
        tables = {name: rows(count) for name, count in {"train": 40, "valid": 10, "test": 10}.items()}
        tables["test"][0]["verdict"] = "maybe"  # no training row has it
        write_tables(Path(options["--out"]) / "below", tables)
        return 0

    fit = {"target": "verdict", "columns": {"words": Text(), "id": None}, "dim": 16, "heads": 2, "lr": 0.02}
    made = SimpleNamespace(main=convert, FIT=fit, TABLES="below")
    monkeypatch.setattr(recipes, "load_recipe", lambda _: made)
    monkeypatch.setattr(train, "load_recipe", lambda _: made)
    return made


def test_it_converts_fits_and_scores(toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["esc10", "--tables", str(tmp_path), "--set", "epochs=25", "graph=hub"]
    assert train.main(arguments) == 0
    out = capsys.readouterr().out
    scores = json.loads(out[out.index("{\n") :])["test"]
    assert scores["accuracy"] == pytest.approx(0.9)  # the one that cannot be known counts as wrong
    assert train.main([*arguments, "--no-test"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out[out.index("{\n") :]).keys() == {"valid"}
    assert (tmp_path / "below" / "train.parquet").is_file()
    toy.CHOOSE_EPOCH = False
    assert train.main(arguments) == 0
    assert "valid_accuracy" not in capsys.readouterr().out


def failed(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What is said where the exit status is 2."""
    capsys.readouterr()
    try:
        status: Any = train.main(["esc10", *map(str, arguments)])
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    return capsys.readouterr().err


def test_it_says_what_is_wrong_with_a_source(toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone, refused, tables = tmp_path / "gone", tmp_path / "refused", tmp_path / "tables"
    refused.touch()
    assert failed(capsys, "--tables", tables, "--source", gone) == f"error: {gone}: no such file or folder.\n"
    failed(capsys, "--tables", tables, "--source", refused)
    assert not tables.exists()
    again = ["esc10", "--tables", str(tables), "--set", "epochs=1", "graph=hub"]
    assert train.main(again) == 0
    assert "not read" not in capsys.readouterr().err
    assert train.main([*again, "--source", str(refused)]) == 0
    assert f"tables are there, {refused} is not read" in capsys.readouterr().err
    assert failed(capsys, "--tables", tables, "--source", gone) == f"error: {gone}: no such file or folder.\n"


def test_it_says_what_is_wrong_with_settings(toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = tmp_path / "tables"
    assert "Did you mean 'epochs'" in failed(capsys, "--tables", tables, "--set", "epoch=3")
    assert "--set seed: " in failed(capsys, "--tables", tables, "--set", "seed=3")
    assert "use --seed 3." in failed(capsys, "--tables", tables, "--set", "dim=16", "seed=3")
    assert not tables.exists()  # told before anything is converted


def test_settings_of_several_options_add_up(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    real = train.FusionPredictor
    monkeypatch.setattr(train, "FusionPredictor", lambda **settings: given.update(settings) or real(**settings))
    arguments = ["--set", "epochs=2", "graph=hub", "--set", "dim=32", "--set", "epochs=1"]
    assert train.main(["esc10", "--tables", str(tmp_path), "--seed", "3", *arguments]) == 0
    assert [given[name] for name in ("epochs", "graph", "dim", "seed")] == [1, "hub", 32, 3]


def test_it_says_what_is_wrong_with_the_place(toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.touch()
    assert str(file) in failed(capsys, "--tables", file / "tables")
    assert "File name too long" in failed(capsys, "--tables", tmp_path / ("x" * 300))


def test_it_scores_something(toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy.CHOOSE_EPOCH = False
    said = failed(capsys, "--tables", tmp_path / "tables", "--no-test")
    assert "error: --no-test: esc10 scores no validation rows" in said
    assert "datasets/esc10/CARD.md" in said
    assert not (tmp_path / "tables").exists()
