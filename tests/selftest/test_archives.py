"""The check of archives passes, and notices each guard that is not there."""

from __future__ import annotations

import re
import tarfile
import zipfile
from pathlib import Path

import pytest

from graphfusion.selftest import archives
from graphfusion.selftest.archives import s04, tar_of, zip_of


def test_passes(tmp_path: Path) -> None:
    figure = s04(tmp_path, False)
    assert figure.ok, figure
    assert figure.total == 48


def careless(archive: Path, folder: Path) -> None:
    """The standard library alone."""
    if tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="fully_trusted")
    else:
        with zipfile.ZipFile(archive) as file:
            file.extractall(folder)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (tar_of("../stray"), "wrote ["),
        (zip_of("a"), "not refused"),
        (archives._links()["tar link out"], "wrote a link"),
        (archives._links()["zip encrypted"], "RuntimeError"),
        (archives._bombs(66 * 2**20)["tar.gz bomb"], "bytes"),
    ],
    ids=["stray", "let pass", "link", "other error", "bomb"],
)
def test_each_thing_is_noticed(data: bytes, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "extract", lambda archive, folder: too_late(archive, folder, why))
    assert why in (archives._attack(tmp_path / "x", data, False) or "")


def too_late(archive: Path, folder: Path, why: str) -> None:
    """Refuse once everything is unpacked, or, where it is that which is to be noticed, not at all."""
    careless(archive, folder)
    if why != "not refused":
        raise archives.TableError("refused, but too late")


def test_time_and_memory_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SECONDS", 0.0)
    assert re.fullmatch(r"took \d\.\d s", archives._attack(tmp_path / "x", tar_of("../a"), True) or "")
    monkeypatch.setattr(archives, "MEMORY", -1)
    assert "of memory" in (archives._attack(tmp_path / "y", tar_of("../a"), False) or "")
