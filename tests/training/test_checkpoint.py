"""A saved folder is there whole or not at all, and whatever is altered in it is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphfusion.errors import CheckpointError
from graphfusion.training import checkpoint
from graphfusion.training.checkpoint import (
    MANIFEST,
    from_safetensors,
    newest_folder,
    read_folder,
    remove_folder,
    to_json,
    to_safetensors,
    write_folder,
)

FIRST = {"a.bin": b"first" * 100, "b.json": b"{}"}
SECOND = {"a.bin": b"second" * 90, "c.json": b"[1]"}


def test_round_trip_and_replacement(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run"
    write_folder(path, FIRST)
    assert read_folder(path) == FIRST
    write_folder(path, SECOND)
    assert read_folder(path) == SECOND
    assert [p.name for p in path.parent.iterdir()] == ["run"]
    remove_folder(path)
    assert not list(path.parent.iterdir())


CALLS = [(name, k) for name in ("_write_synced", "_sync") for k in range(3)] + [
    ("rename", 0),
    ("rename", 1),
    ("rename", 2),
]


@pytest.mark.parametrize(("call", "at"), CALLS)
def test_a_crash_at_any_step_leaves_the_old_or_the_new(
    call: str, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process stops before the step; the next start finds one whole folder, and the next write leaves no litter."""
    path = tmp_path / "run"
    write_folder(path, FIRST)
    owner, name = (Path, "rename") if call == "rename" else (checkpoint, call)
    original, seen = getattr(owner, name), []

    def crash(*args: object) -> object:
        seen.append(1)
        if len(seen) > at:
            raise KeyboardInterrupt
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, crash)
        try:
            write_folder(path, SECOND)
        except KeyboardInterrupt:
            pass
    assert read_folder(path) in (FIRST, SECOND)
    write_folder(path, SECOND)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@given(st.data())
def test_any_flipped_or_missing_byte_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("x") / "run"
    write_folder(path, FIRST)
    name = data.draw(st.sampled_from(sorted(os.listdir(path))))
    content = bytearray((path / name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[place:]
    (path / name).write_bytes(content)
    try:
        assert read_folder(path) == FIRST  # a flip in the manifest's white space changes nothing
        assert name == MANIFEST
    except CheckpointError:
        pass


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no saved folder here"):
        read_folder(tmp_path / "none")
    write_folder(tmp_path / "run", FIRST)
    (tmp_path / "run" / "b.json").unlink()
    with pytest.raises(CheckpointError, match=r"'b\.json' of the manifest is missing"):
        read_folder(tmp_path / "run")
    (tmp_path / "run" / MANIFEST).write_bytes(to_json({"format": 99, "sha256": {}}))
    with pytest.raises(CheckpointError, match="expected format 1"):
        read_folder(tmp_path / "run")
    outside = {"format": 1, "sha256": {"../secret": "0"}}
    (tmp_path / "run" / MANIFEST).write_text(json.dumps(outside))
    with pytest.raises(CheckpointError, match="secret"):
        read_folder(tmp_path / "run")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        from_safetensors(b"\x80\x04pickle", "x.safetensors")


def test_the_newest_whole_folder_is_found(tmp_path: Path) -> None:
    assert newest_folder(tmp_path, "epoch-*") is None
    for i in (1, 2, 3):
        write_folder(tmp_path / f"epoch-{i:05}", FIRST)
    (tmp_path / "epoch-00003" / "a.bin").write_bytes(b"cut")
    with pytest.warns(UserWarning, match="epoch-00003"):
        assert newest_folder(tmp_path, "epoch-*") == tmp_path / "epoch-00002"
    for i in (1, 2):
        (tmp_path / f"epoch-{i:05}" / "a.bin").unlink()
    with pytest.warns(UserWarning, match="passed over"), pytest.raises(CheckpointError, match="every saved folder"):
        newest_folder(tmp_path, "epoch-*")


def test_nothing_else_is_ever_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for path in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(CheckpointError, match=r"thesis\.txt"):
            write_folder(path, FIRST)
    write_folder(tmp_path / "run", FIRST)
    (tmp_path / "run" / "note.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"note\.txt"):
        write_folder(tmp_path / "run", SECOND)
    assert (tmp_path / "run" / "note.txt").read_text() == "mine"
    assert read_folder(tmp_path / "run") == FIRST


def test_an_unwritable_place_is_an_error_and_keeps_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "run", FIRST)

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_write_synced", full)
    with pytest.raises(CheckpointError, match="No space left"):
        write_folder(tmp_path / "run", SECOND)
    assert read_folder(tmp_path / "run") == FIRST


def test_tensors_of_any_layout() -> None:
    base = torch.randn(4, 6)
    tensors = {"t": base.T, "view": base[1:3], "same": base, "half": base.bfloat16(), "none": torch.empty(0, 3)}
    found = from_safetensors(to_safetensors(tensors), "x")
    assert all(torch.equal(found[n], t) for n, t in tensors.items())
