"""A folder of classes is a table of its media files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import graphfusion as gf
from graphfusion.data import read_table, sealed
from graphfusion.errors import TableError
from tests.conftest import png, wav


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_rows_are_files_and_labels_their_folders(tmp_path: Path) -> None:
    touch(tmp_path / "dog" / "b.PNG", tmp_path / "cat" / "deep" / "a.jpg", tmp_path / "cat" / "z.jpeg")
    table = read_table(tmp_path)
    assert dict(table.columns) == {
        "image": ["cat/z.jpeg", "cat/deep/a.jpg", "dog/b.PNG"],
        "label": ["cat", "cat", "dog"],
    }
    assert table.root == tmp_path
    above = read_table(str(tmp_path), root=tmp_path.parent)
    assert above.column("image")[2] == f"{tmp_path.name}/dog/b.PNG"
    assert above.root == tmp_path.parent


def test_each_kind_of_media_has_its_column(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "1.wav", tmp_path / "a" / "2.png", tmp_path / "b" / "3.flac", tmp_path / "b" / "4.mp4")
    assert dict(read_table(tmp_path).columns) == {
        "sound": ["a/1.wav", None, "b/3.flac", None],
        "image": [None, "a/2.png", None, None],
        "video": [None, None, None, "b/4.mp4"],
        "label": ["a", "a", "b", "b"],
    }


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "1.png", tmp_path / "a" / "notes.txt", tmp_path / "a" / ".2.png", tmp_path / "loose.png")
    touch(tmp_path / ".hidden" / "3.png", tmp_path / "b" / "4.png")
    os.symlink(tmp_path / "a", tmp_path / "c")
    with pytest.warns(UserWarning, match=r"2 files taken, 4 left out .* the first is 'loose.png'"):
        assert read_table(tmp_path).column("label") == ["a", "b"]


def test_folders_that_are_no_classes_are_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="expected images, sounds or videos in a folder for each class"):
        read_table(tmp_path)
    touch(tmp_path / "train" / "a" / "1.png", tmp_path / "test" / "a" / "2.png")
    with pytest.raises(TableError, match=r"test, train look like splits.*valid="):
        read_table(tmp_path)
    with sealed(tmp_path / "test"), pytest.raises(TableError, match="sealed"):
        read_table(tmp_path / "test")
    assert read_table(tmp_path / "test").column("image") == ["a/2.png"]


def test_a_folder_trains(tmp_path: Path) -> None:
    for i in range(8):
        path = tmp_path / ("light" if i % 2 else "dark") / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(np.full((8, 8, 3), 200 * (i % 2) + i, np.uint8)))
    (tmp_path / "dark" / "hum.wav").write_bytes(wav(np.zeros(800), 8000))
    p = gf.FusionPredictor("label", epochs=1, dim=8, heads=2, layers=1).fit(tmp_path, valid=None, quiet=True)
    assert {name: spec.kind for name, spec in p.schema.inputs.items()} == {"image": "image", "sound": "audio"}
    assert len(p.predict(tmp_path)) == 9
