"""A saved folder is there whole or not at all, and whatever is altered in it is refused."""

from __future__ import annotations

import json
import os
import struct
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphfusion.errors import CheckpointError
from graphfusion.training import checkpoint
from graphfusion.training.checkpoint import (
    FORMAT,
    MANIFEST,
    as_checkpoint_error,
    from_json,
    from_safetensors,
    newest_folder,
    prepare_folder,
    read_folder,
    recover,
    remove_folder,
    to_json,
    to_safetensors,
    write_file,
    write_folder,
)

FIRST = {"a.safetensors": b"first" * 100, "b.json": b"{}"}
SECOND = {"a.safetensors": b"second" * 90, "c.json": b"[1]"}


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
    """Interrupted before the step (kills: graphfusion/selftest/folders.py): one whole folder, and nothing beside it."""
    path = tmp_path / "run"
    write_folder(path, FIRST)
    owner, name = (Path, "rename") if call == "rename" else (checkpoint, call)
    original, seen = getattr(owner, name), []

    def crash(*args: object) -> object:
        seen.append(1)
        if len(seen) == at + 1:
            raise KeyboardInterrupt
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, crash)
        try:
            write_folder(path, SECOND)
        except KeyboardInterrupt:
            pass
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    assert read_folder(path) in (FIRST, SECOND)
    write_folder(path, SECOND)
    assert read_folder(path) == SECOND


LEFT = (".run.graphfusion-new", ".run.graphfusion-old", ".other.graphfusion-gone")


def test_what_a_killed_writer_left_is_undone_by_whoever_comes_next(tmp_path: Path) -> None:
    for start in (
        lambda: read_folder(tmp_path / "run"),
        lambda: write_folder(tmp_path / "x", FIRST),
        lambda: newest_folder(tmp_path, "ru*"),
        lambda: recover(tmp_path),
    ):
        write_folder(tmp_path / "run", FIRST)
        (tmp_path / "run").rename(tmp_path / LEFT[1])  # killed between the two renames
        for name in (LEFT[0], LEFT[2]):
            (tmp_path / name).mkdir()
            (tmp_path / name / "half.json").write_text("{")
        start()
        assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
        assert read_folder(tmp_path / "run") == FIRST
    assert newest_folder(tmp_path / "none", "*") is None


def test_a_reader_waits_for_a_writer_that_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It neither reads half of two folders nor takes the temporary of the writer for litter."""
    write_folder(tmp_path / "run", FIRST)
    midway, go_on = threading.Event(), threading.Event()
    write = checkpoint._write_synced

    def slowly(path: Path, data: bytes) -> None:
        midway.set()
        assert go_on.wait(60)
        write(path, data)

    monkeypatch.setattr(checkpoint, "_write_synced", slowly)
    found: list[dict[str, bytes]] = []
    writer = threading.Thread(target=write_folder, args=(tmp_path / "run", SECOND))
    reader = threading.Thread(target=lambda: found.append(read_folder(tmp_path / "run")))
    writer.start()
    assert midway.wait(60)
    reader.start()
    reader.join(0.2)
    assert not found
    assert (tmp_path / LEFT[0]).is_dir()
    go_on.set()
    writer.join(60)
    reader.join(60)
    assert found == [SECOND]


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
    with pytest.raises(CheckpointError):
        read_folder(path)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no saved folder here"):
        read_folder(tmp_path / "none")
    write_folder(tmp_path / "run", FIRST)
    (tmp_path / "run" / "b.json").unlink()
    with pytest.raises(CheckpointError, match=r"'b\.json' of the manifest is missing"):
        read_folder(tmp_path / "run")
    (tmp_path / "run" / MANIFEST).write_bytes(to_json({"format": 99, "sha256": {}}))
    with pytest.raises(CheckpointError, match=f"expected format {FORMAT}; saved by another version"):
        read_folder(tmp_path / "run")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        from_safetensors(b"\x80\x04pickle", "x.safetensors")


def test_the_newest_whole_folder_is_found(tmp_path: Path) -> None:
    assert newest_folder(tmp_path, "epoch-*") is None
    for i in (1, 2, 3):
        write_folder(tmp_path / f"epoch-{i:05}", FIRST)
    (tmp_path / "epoch-00003" / "a.safetensors").write_bytes(b"cut")
    with pytest.warns(UserWarning, match="epoch-00003"):
        assert newest_folder(tmp_path, "epoch-*") == tmp_path / "epoch-00002"
    for i in (1, 2):
        (tmp_path / f"epoch-{i:05}" / "a.safetensors").unlink()
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
    assert [p.name for p in tmp_path.iterdir()] == ["run"]  # the half of the new one takes no room


def test_a_file_is_replaced_or_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(tmp_path / "log", b"first")
    write_file(tmp_path / "log", b"second")
    (tmp_path / ".other.graphfusion-new").write_bytes(b"of a killed writer")
    with monkeypatch.context() as patch, pytest.raises(CheckpointError, match="log: cannot be written"):
        patch.setattr(os, "fsync", full_disk)
        write_file(tmp_path / "log", b"third")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"log": b"second"}


def full_disk(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_places_that_take_no_files_are_known_before_any_work(tmp_path: Path) -> None:
    prepare_folder(tmp_path / "deep" / "run")
    assert not list((tmp_path / "deep" / "run").iterdir())
    (tmp_path / "file").write_text("mine")
    for place in (
        tmp_path / "file",
        tmp_path / "file" / "run",
        tmp_path / ("x" * 300),
        tmp_path / "a\0b",
        Path("/proc/run"),
    ):
        for use in (prepare_folder, read_folder, lambda path: write_folder(path, FIRST)):
            with pytest.raises(CheckpointError):
                use(place)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["../b.json", "/etc/b.json", "b.pt", ".b.json", "b.json\0", "b" * 300, "", "x/b.json"])
def test_a_manifest_lists_only_files_of_the_folder(name: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "run", FIRST)
    (tmp_path / "b.json").write_bytes(b"{}")
    own = json.loads((tmp_path / "run" / MANIFEST).read_bytes())["sha256"]
    (tmp_path / "run" / MANIFEST).write_bytes(checkpoint._manifest({**own, name: own["b.json"]}))
    with pytest.raises(CheckpointError, match="never writes"):
        read_folder(tmp_path / "run")


@pytest.mark.parametrize("name", ["b.json", MANIFEST])
def test_links_in_a_folder_are_refused(name: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "run", FIRST)
    (tmp_path / "run" / name).rename(tmp_path / "away")
    (tmp_path / "run" / name).symlink_to(tmp_path / "away")
    with pytest.raises(CheckpointError, match="a link"):
        read_folder(tmp_path / "run")


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"[" * 100_000,
        b"[]",
        b'{"format": %d}' % FORMAT,
        b'{"format": %d, "sha256": {"b.json": ["\\ud800"]}}' % FORMAT,
    ],
)
def test_a_manifest_of_anything_else_is_an_error_and_can_be_replaced(manifest: bytes, tmp_path: Path) -> None:
    write_folder(tmp_path / "run", FIRST)
    (tmp_path / "run" / MANIFEST).write_bytes(manifest)
    with pytest.raises(CheckpointError, match="manifest"):
        read_folder(tmp_path / "run")
    write_folder(tmp_path / "run", FIRST)
    assert read_folder(tmp_path / "run") == FIRST


def test_errors_of_making_objects_become_one() -> None:
    for error in (KeyError("dim"), TypeError("no"), RuntimeError("size")):
        expected = rf"run: not what graphfusion writes.*{type(error).__name__}"
        with pytest.raises(CheckpointError, match=expected), as_checkpoint_error("run"):
            raise error
    with pytest.raises(CheckpointError, match=r"^as it is$"), as_checkpoint_error("run"):
        raise CheckpointError("as it is")
    with pytest.raises(CheckpointError, match="not JSON"):
        from_json(b"[" * 100_000, "x")


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (json.dumps({"a\0b": ONE}), "tensor name"),
        (json.dumps({"../a": ONE}), "tensor name"),
        (f'{{"a": {json.dumps(ONE)}, "a": {json.dumps(ONE)}}}', "twice"),
        (json.dumps({"a": {**ONE, "dtype": "F4", "shape": [8]}}), "F4"),
        (json.dumps({"a": ONE}) + " " * checkpoint.MAX_HEADER, "header claims 1,048,"),
        ("[" * 9_000, "not a safetensors file"),
    ],
)
def test_what_the_tensor_library_lets_pass_is_refused(header: str, why: str) -> None:
    data = struct.pack("<Q", len(header)) + header.encode() + bytes(4)
    with pytest.raises(CheckpointError, match=why):
        from_safetensors(data, "x")


def test_tensors_of_any_layout() -> None:
    base = torch.randn(4, 6)
    tensors = {"t": base.T, "view": base[1:3], "same": base, "half": base.bfloat16(), "none": torch.empty(0, 3)}
    found = from_safetensors(to_safetensors(tensors), "x")
    assert all(torch.equal(found[n], t) for n, t in tensors.items())
