"""The command line of every recipe: what is wrong is told in terms of what was given, before anything is made."""

from __future__ import annotations

import errno
import os
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.recipes import SHELF, load_recipe
from graphfusion.data.recipe import run_plain
from graphfusion.errors import TableError

RECIPES = sorted(path.parent.name for path in SHELF.glob("*/convert.py"))


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where sources are unpacked."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("name", RECIPES)
def test_an_archive_of_other_things_is_told_by_its_own_name(
    name: str, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.txt").touch()
    archive = tmp_path / "other.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(tmp_path / "other.txt", "other.txt")
    assert load_recipe(name).main(["--out", str(tmp_path / "out"), "--source", str(archive)]) == 2
    said = capsys.readouterr().err
    assert str(archive) in said
    assert str(work) not in said
    assert not (tmp_path / "out").exists()
    assert not list(work.iterdir())


@pytest.mark.parametrize("name", RECIPES)
def test_a_place_below_a_file_is_told_before_the_source_is_read(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    for out in (file, file / "tables", file / "a" / "b"):
        assert load_recipe(name).main(["--out", str(out), "--source", str(tmp_path / "gone")]) == 2
        said = capsys.readouterr().err
        assert said == f"error: {out}: tables cannot be written there, {file} is not a folder; name another place.\n"


def plain(convert: Callable[[Path, Path | None, Path], None], *arguments: str | Path) -> int:
    return run_plain(None, "", convert, ["--out", *map(str, arguments)])


def test_a_place_that_takes_no_files_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    assert plain(lambda *_: None, tmp_path / "a" / "b") == 2
    assert f"{tmp_path} takes no files" in capsys.readouterr().err


def test_what_is_wrong_with_a_download_is_said_of_it(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def convert(out: Path, source: Path | None, folder: Path) -> None:
        raise TableError(f"{folder / 'image'}: not the same data.")

    assert plain(convert, work / "out") == 2
    assert capsys.readouterr().err == "error: the download/image: not the same data.\n"


def test_an_error_of_the_file_system_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def convert(out: Path, source: Path | None, folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(out))

    assert plain(convert, tmp_path) == 2
    assert capsys.readouterr().err == f"error: [Errno 28] No space left on device: '{tmp_path}'\n"
    assert plain(convert, tmp_path / ("x" * 300)) == 2
    assert "File name too long" in capsys.readouterr().err
