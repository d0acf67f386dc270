"""The checks of saved folders pass, and notice a guard that is not there."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from graphfusion.errors import CheckpointError
from graphfusion.selftest.apart import apart
from graphfusion.selftest.figure import Figure
from graphfusion.selftest.folders import checkpoint_files, r01, r02, r03, r05, r06
from graphfusion.training import checkpoint


@pytest.mark.parametrize("check", [r01, r02, r03, r05, r06], ids=lambda c: c.__name__)
def test_passes(check: Callable[[Path, bool], Figure], tmp_path: Path) -> None:
    figure = check(tmp_path, False)
    assert figure.ok, figure


def overwritten(path: Path, files: dict[str, bytes]) -> None:
    """Files written over those that are there, as if nothing ever failed."""
    path.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (path / name).write_bytes(data)
    hashes = {name: checkpoint.hashlib.sha256(data).hexdigest() for name, data in files.items()}
    checkpoint._write_synced(path / checkpoint.MANIFEST, checkpoint._manifest(hashes))


def test_r01_notices_a_writer_that_overwrites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphfusion.selftest.folders.write_folder", overwritten)
    assert not r01(tmp_path, False).ok


def test_r01_notices_what_is_left_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_recover", lambda parent: None)
    figure = r01(tmp_path, False)
    assert not figure.ok
    assert "beside it" in figure.note


@pytest.mark.parametrize("check", [r02, r03], ids=lambda c: c.__name__)
def test_damage_that_is_let_pass_is_noticed(
    check: Callable[[Path, bool], Figure], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "_verified", lambda file, expected: file.read_bytes())
    assert "not noticed" in check(tmp_path, False).note


def test_r03_notices_a_manifest_that_is_not_covered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest of format 1 had no hash of its own: a flip in its white space passed."""
    monkeypatch.setattr(
        checkpoint, "_listed", lambda path: json.loads((path / checkpoint.MANIFEST).read_bytes())["sha256"]
    )
    assert not r03(tmp_path, False).ok


def test_r05_notices_unclear_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unclear(path: Path, files: dict[str, bytes]) -> None:
        try:
            real(path, files)
        except CheckpointError as error:
            raise CheckpointError("something went wrong") from error

    real = checkpoint.write_folder
    monkeypatch.setattr("graphfusion.selftest.folders.write_folder", unclear)
    assert "does not say what" in r05(tmp_path / "a", False).note


def test_r06_notices_a_place_that_is_found_bad_too_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphfusion.fit_folder.prepare_folder", lambda path: None)
    figure = r06(tmp_path, False)
    assert "a model was made first" in figure.note


def test_contents_differ_in_every_file() -> None:
    one, two = checkpoint_files(1), checkpoint_files(2)
    assert all(one[name] != two[name] for name in one)
    assert one == checkpoint_files(1)


def test_a_function_apart_tells_how_it_ends() -> None:
    assert apart(lambda: [1, "a"]).value == [1, "a"]
    assert apart(lambda: os.kill(os.getpid(), signal.SIGKILL)).signal == signal.SIGKILL
    freed = [b"x" * 2**19 for _ in range(400)]  # blocks that malloc keeps for itself
    del freed
    block: list[bytes] = []
    grown = apart(lambda: block.append(b"x" * 2**26)).grown
    assert not block
    assert grown == pytest.approx(2**26, rel=0.2)
