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
        if options.get("--source") == "nowhere":
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


def test_it_says_what_is_wrong(toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        train.main(["esc10", "--tables", str(tmp_path / "a"), "--source", "nowhere"])
    assert stop.value.code == 2
    assert train.main(["esc10", "--tables", str(tmp_path / "b"), "--set", "epoch=3"]) == 2
    assert "Did you mean 'epochs'" in capsys.readouterr().err
    again = ["esc10", "--tables", str(tmp_path / "b"), "--set", "epochs=1", "graph=hub"]
    assert train.main(again) == 0
    assert "not read" not in capsys.readouterr().err
    assert train.main([*again, "--source", "other"]) == 0
    assert "tables are there, other is not read" in capsys.readouterr().err
