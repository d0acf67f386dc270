"""What recipes share: sources, digests, tables and archives."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest

from graphfusion.data import read_table
from graphfusion.data.download import extract, extract_zip
from graphfusion.data.recipe import digest, read_files, source_folder, verify, write_tables
from graphfusion.errors import TableError


def packed(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def test_a_zip_is_unpacked(tmp_path: Path) -> None:
    extract(packed(tmp_path / "a.zip", {"x/y": b"1", "z": b"22"}), tmp_path / "out")
    assert read_files(tmp_path / "out", "*") == {"x/y": b"1", "z": b"22"}


def test_members_of_a_zip_that_would_leave_or_tie_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="leaves the folder"):
        extract_zip(packed(tmp_path / "a.zip", {"../../out": b"x"}), tmp_path / "in" / "side")
    assert not (tmp_path / "out").exists()
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
    with pytest.raises(TableError, match="is a link"):
        extract_zip(tmp_path / "b.zip", tmp_path / "in")


def test_what_a_zip_grows_to_is_counted_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphfusion.data.download.MAX_EXTRACTED", 10_000)
    with pytest.raises(TableError, match="more than 10,000 bytes"):
        extract_zip(packed(tmp_path / "a.zip", {"zeros": bytes(10_001)}), tmp_path / "in")


@pytest.mark.parametrize("data", [b"", b"no archive", b"\xfd7zXZ\0broken", b"PK\x03\x04broken"])
def test_what_is_no_archive_is_told(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(TableError, match=r"neither a tar nor a zip|damaged"):
        extract(tmp_path / "a", tmp_path / "out")


def test_a_damaged_zip_is_told(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", {"x": bytes(range(256)) * 50})
    data = bytearray(path.read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(bytes(data))
    with pytest.raises(TableError, match="damaged"):
        extract(path, tmp_path / "out")


def test_a_source_is_a_folder_an_archive_or_a_download(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.txt").write_text("1")
    assert source_folder(folder, tmp_path / "w1") == folder
    unpacked = source_folder(packed(tmp_path / "a.zip", {"a.txt": b"1"}), tmp_path / "w2")
    assert read_files(unpacked, "*.txt") == {"a.txt": b"1"}
    fetched = source_folder(None, tmp_path / "w3", lambda work: extract(tmp_path / "a.zip", work))
    assert (fetched / "a.txt").is_file()
    with pytest.raises(TableError, match=r"pass --source PATH\. Ask the authors"):
        source_folder(None, tmp_path, where="Ask the authors.")
    with pytest.raises(TableError, match="no such file"):
        source_folder(tmp_path / "gone", tmp_path)


def test_a_digest_is_of_names_and_contents() -> None:
    one = {"a": b"1", "b": b"2"}
    assert digest(one) == digest(dict(reversed(one.items())))
    assert len({digest(d) for d in (one, {"a": b"1", "b": b"3"}, {"a": b"12", "b": b""}, {"a": b"1", "c": b"2"})}) == 4
    verify(one, digest(one), "x")
    with pytest.raises(TableError, match=r"x: 2 files with digest .*; not the same data"):
        verify(one, "0" * 64, "x")


def test_tables_have_the_rows_that_the_card_says(tmp_path: Path) -> None:
    write_tables(tmp_path, {"train": [{"a": 1}, {"a": 2}]}, {"train": 2})
    assert list(read_table(tmp_path / "train.parquet").column("a")) == [1, 2]
    with pytest.raises(TableError, match="train: expected 3 rows, got 1"):
        write_tables(tmp_path, {"train": [{"a": 5}]}, {"train": 3})
    with pytest.raises(TableError, match="valid: expected some rows, got 0"):
        write_tables(tmp_path, {"train": [{"a": 5}], "valid": []})
    assert list(read_table(tmp_path / "train.parquet").column("a")) == [1, 2]  # nothing was replaced
    assert [p.name for p in tmp_path.iterdir()] == ["train.parquet"]
