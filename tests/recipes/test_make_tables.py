"""`make_tables`: tables that are there are taken only if the recipe would make them so."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import recipes
from benchmarks.recipes import STAMP, make_tables
from graphfusion.data.recipe import SPLITS, write_tables


class Toy(SimpleNamespace):
    """A recipe with a script; `calls` are the arguments of its conversions. It refuses the source `refused`."""

    def main(self, arguments: list[str]) -> int:
        self.calls.append(arguments)
        if any(a.endswith("refused") for a in arguments):
            return 2
        write_tables(Path(arguments[1]) / self.TABLES, {split: [{"a": 1}] for split in SPLITS})
        return 0


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Toy:
    script = tmp_path / "convert.py"
    script.write_text("first")
    made = Toy(calls=[], TABLES="", __file__=str(script))
    monkeypatch.setattr(recipes, "load_recipe", lambda _: made)
    return made


def refused(
    capsys: pytest.CaptureFixture[str], folder: Path, options: tuple[str, ...] = (), source: Path | None = None
) -> str:
    """What is said where no tables are given back."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        make_tables("toy", source, folder, options)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_a_stamp_says_what_made_the_tables(toy: Toy, tmp_path: Path) -> None:
    toy.TABLES = "below"
    tables = make_tables("toy", None, tmp_path / "out", ["--fold", "2"])
    assert tables == tmp_path / "out" / "below"
    sha256 = hashlib.sha256(b"first").hexdigest()
    assert json.loads((tables / STAMP).read_text()) == {"recipe": sha256, "options": ["--fold", "2"]}
    assert make_tables("toy", None, tmp_path / "out", ["--fold", "2"]) == tables
    assert toy.calls == [["--out", str(tmp_path / "out"), "--fold", "2"]]
    (tables / "valid.parquet").unlink()
    make_tables("toy", None, tmp_path / "out", ["--fold", "3"])
    assert json.loads((tables / STAMP).read_text())["options"] == ["--fold", "3"]


def test_a_module_without_a_script_has_an_empty_digest(toy: Toy, tmp_path: Path) -> None:
    del toy.__file__
    assert json.loads((make_tables("toy", None, tmp_path / "out") / STAMP).read_text())["recipe"] == ""


def test_tables_of_other_options_are_refused(toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tables("toy", None, tmp_path / "out", ["--fold", "2"])
    said = refused(capsys, tmp_path / "out")
    assert said == (
        f"error: {tmp_path / 'out'}: tables are there, but they were made with other options (--fold 2; now none); "
        "delete the folder to convert anew, or name another.\n"
    )
    assert len(toy.calls) == 1


def test_tables_of_another_version_of_the_recipe_are_refused(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tables("toy", None, tmp_path / "out")
    Path(toy.__file__).write_text("second")
    said = refused(capsys, tmp_path / "out")
    assert "they were made by another version of the recipe (its convert.py has changed); delete" in said
    said = refused(capsys, tmp_path / "out", ("--fold", "2"))
    assert "by another version of the recipe" in said
    assert "and with other options (none; now --fold 2)" in said


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"recipe": ""}', '{"recipe": "", "options": 3}', "\xff"])
def test_a_stamp_that_cannot_be_read_is_refused(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (make_tables("toy", None, tmp_path / "out") / STAMP).write_text(text, "latin-1")
    assert f"{STAMP} beside them cannot be read; delete" in refused(capsys, tmp_path / "out")


def test_tables_without_a_stamp_are_taken(toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (make_tables("toy", None, tmp_path / "out") / STAMP).unlink()
    assert make_tables("toy", tmp_path, tmp_path / "out", ["--fold", "2"]) == tmp_path / "out"
    assert f"tables are there, {tmp_path} is not read" in capsys.readouterr().err
    assert len(toy.calls) == 1
    assert not (tmp_path / "out" / STAMP).exists()


def test_a_source_that_is_not_there_is_an_error_even_where_tables_are(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone.tar"
    expected = f"error: {gone}: no such file or folder.\n"
    assert refused(capsys, tmp_path / "out", source=gone) == expected
    assert not toy.calls
    make_tables("toy", None, tmp_path / "out")
    assert refused(capsys, tmp_path / "out", source=gone) == expected


def test_a_conversion_that_fails_writes_no_stamp(toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "refused").touch()
    refused(capsys, tmp_path / "out", source=tmp_path / "refused")
    assert len(toy.calls) == 1
    assert not (tmp_path / "out").exists()
