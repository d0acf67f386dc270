"""The Flickr8k recipe on a miniature of its source: official splits, pairs that say the truth, sources refused."""

from __future__ import annotations

import csv
import io
import shutil
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.recipes import load_recipe
from graphfusion import FusionPredictor
from graphfusion.data import read_table
from graphfusion.data.infer import infer_schema
from graphfusion.data.recipe import SPLITS, digest

convert = load_recipe("flickr8k")

PHOTOS = {"train": range(8), "valid": range(10, 13), "test": range(20, 24), "": range(30, 32)}
"""Numbers of the photos of each split; the last ones are in no list, as 91 of the true source."""
LISTED = {"train": "train", "valid": "dev", "test": "test"}
PUBLISHED = {"train": "trainImages", "valid": "devImages", "test": "testImages"}


def name_of(number: int) -> str:
    return f"{number}_ab.jpg"


def captions_of(number: int) -> list[str]:
    """Five captions; the last is the same for all photos, the one before is there twice."""
    own = [f'A dog , no. {number} , says " {word} " .' for word in ("wau", "wuff", "bow")]
    return [*own, own[2], "A dog ."]


def jpeg(number: int, size: tuple[int, int]) -> bytes:
    """A photo of one colour, which tells its number."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (8 * number, 0, 255 - 8 * number)).save(buffer, "JPEG")
    return buffer.getvalue()


def number_of(image: bytes) -> int:
    """The number that the colour of a photo tells."""
    return round(float(np.asarray(Image.open(io.BytesIO(image)))[..., 0].mean()) / 8)


def everything() -> list[int]:
    return [n for numbers in PHOTOS.values() for n in numbers]


def write_small(folder: Path) -> Path:
    """The layout of flickr8k.tar."""
    (folder / "images").mkdir(parents=True)
    with (folder / "captions.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "caption"])
        writer.writerows([name_of(n), caption] for n in everything() for caption in captions_of(n))
    for n in everything():
        (folder / "images" / name_of(n)).write_bytes(jpeg(n, (112, 112)))
    for split, listed in LISTED.items():
        (folder / f"split_{listed}.txt").write_text("".join(f"{name_of(n)}\n" for n in PHOTOS[split]))
    return folder


def write_published(folder: Path) -> Path:
    """The layout of the two public archives, unpacked into one folder on a Mac."""
    photos = folder / "Flickr8k_Dataset" / "Flicker8k_Dataset"
    mac = folder / "__MACOSX"
    for path in (photos, mac):
        path.mkdir(parents=True)
    lines = [f"{name_of(n)}#{k}\t{caption}\n" for n in everything() for k, caption in enumerate(captions_of(n))]
    (folder / "Flickr8k.token.txt").write_text("".join(lines) + "2258277193_586949ec62.jpg.1#0\tPeople wait .\n")
    for n in everything():
        (photos / name_of(n)).write_bytes(jpeg(n, (500, 375) if n % 2 else (333, 500)))
        (mac / f"._{name_of(n)}").write_bytes(b"\0\5\x16\7")
    for split, listed in PUBLISHED.items():
        (folder / f"Flickr_8k.{listed}.txt").write_text("".join(f"{name_of(n)}\n" for n in PHOTOS[split]))
    return folder


@pytest.fixture
def miniature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders `small` and `published` with the same photos and captions."""
    write_small(tmp_path / "small")
    write_published(tmp_path / "published")
    lines = {f"{s}/{name_of(n)}": "\n".join(captions_of(n)).encode() for s in SPLITS for n in PHOTOS[s]}
    monkeypatch.setattr(convert, "TEXTS_SHA256", digest(lines))
    monkeypatch.setattr(convert, "ROWS", {"train": 8, "valid": 3, "test": 4})
    monkeypatch.setattr(convert, "PAIRS", {"train": 80, "valid": 6, "test": 8})
    return tmp_path


def table_rows(path: Path) -> list[dict[str, Any]]:
    table = read_table(path)
    return [dict(zip(table.columns, cells, strict=True)) for cells in zip(*table.columns.values(), strict=True)]


@pytest.mark.parametrize("layout", ["small", "published"])
def test_photos_have_their_captions_and_the_official_split(miniature: Path, layout: str) -> None:
    assert convert.main(["--out", str(miniature / "out"), "--source", str(miniature / layout)]) == 0
    for split in SPLITS:
        rows = table_rows(miniature / "out" / f"{split}.parquet")
        assert [list(row) for row in rows] == [["image", "captions", "image_id"]] * len(PHOTOS[split])
        assert [number_of(row["image"]) for row in rows] == list(PHOTOS[split])
        for row in rows:
            assert row["image_id"] == f"{number_of(row['image'])}_ab"
            assert list(row["captions"]) == captions_of(number_of(row["image"]))
            assert Image.open(io.BytesIO(row["image"])).size == (112, 112)


def test_small_photos_keep_their_bytes(miniature: Path) -> None:
    convert.convert(miniature / "out", miniature / "small", miniature / "work")
    for row in table_rows(miniature / "out" / "train.parquet"):
        assert row["image"] == (miniature / "small" / "images" / f"{row['image_id']}.jpg").read_bytes()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pairs_say_the_truth(miniature: Path, seed: int) -> None:
    convert.convert(miniature / "out", miniature / "small", miniature / "work", seed)
    for split in SPLITS:
        rows = table_rows(miniature / "out" / "pairs" / f"{split}.parquet")
        of_split = {caption for n in PHOTOS[split] for caption in captions_of(n)}
        shown: dict[int, dict[str, Counter[str]]] = {}
        for row in rows:
            assert list(row) == ["image", "caption", "matches", "image_id"]
            number = number_of(row["image"])
            assert row["image_id"] == f"{number}_ab"
            assert row["matches"] == ("yes" if row["caption"] in captions_of(number) else "no")
            assert row["caption"] in of_split
            shown.setdefault(number, {"yes": Counter(), "no": Counter()})[row["matches"]][row["caption"]] += 1
        assert set(shown) == set(PHOTOS[split])
        for number, counts in shown.items():
            assert counts["yes"].total() == counts["no"].total() == (5 if split == "train" else 1)
            if split == "train":
                assert counts["yes"] == Counter(captions_of(number))


def test_another_seed_draws_other_pairs_of_the_same_photos(miniature: Path) -> None:
    for seed in ("0", "1"):
        assert convert.main(["--out", str(miniature / seed), "--source", str(miniature / "small"), "--seed", seed]) == 0
    same = [(miniature / "0" / f).read_bytes() == (miniature / "1" / f).read_bytes() for f in
            ("train.parquet", "test.parquet", "pairs/train.parquet")]  # fmt: skip
    assert same == [True, True, False]


def test_an_archive_and_a_folder_give_the_same_tables(miniature: Path) -> None:
    with tarfile.open(miniature / "flickr8k.tar", "w") as tar:
        tar.add(miniature / "small", arcname=".")
    convert.convert(miniature / "a", miniature / "small", miniature / "w1")
    convert.convert(miniature / "b", miniature / "flickr8k.tar", miniature / "w2")
    files = [f"{folder}{split}.parquet" for folder in ("", "pairs/") for split in SPLITS]
    assert all((miniature / "a" / f).read_bytes() == (miniature / "b" / f).read_bytes() for f in files)


def test_sources_that_cannot_be_used_are_refused(miniature: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*source: str) -> str:
        assert convert.main(["--out", str(miniature / "o"), *source]) == 2
        assert not (miniature / "o").exists()
        return capsys.readouterr().err

    missing = refused()
    assert "--source" in missing
    assert "forms.illinois.edu" in missing
    small = miniature / "small"
    assert "no such file" in refused("--source", str(miniature / "none"))
    photo = small / "images" / name_of(11)
    photo.write_bytes(photo.read_bytes()[:-200])
    assert f"{name_of(11)}: expected a JPEG photo" in refused("--source", str(small))
    photo.unlink()
    assert f"1 of 3 photos are not there, the first {name_of(11)}" in refused("--source", str(small))
    (small / "captions.csv").write_text((small / "captions.csv").read_text().replace("no. 5", "no. 6", 1))
    assert "not the same data" in refused("--source", str(small))
    (small / "split_dev.txt").unlink()
    assert "no split_dev.txt files" in refused("--source", str(small))
    shutil.rmtree(small)
    small.mkdir()
    assert "expected captions.csv or Flickr8k.token.txt, found neither" in refused("--source", str(small))


def test_a_photo_in_two_splits_is_refused(miniature: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (miniature / "small" / "split_test.txt").open("a") as file:
        file.write(f"{name_of(0)}\n")
    assert convert.main(["--out", str(miniature / "o"), "--source", str(miniature / "small")]) == 2
    assert "not the same data" in capsys.readouterr().err


def test_the_predictor_takes_the_settings(miniature: Path) -> None:
    convert.convert(miniature / "out", miniature / "small", miniature / "work")
    predictor = FusionPredictor(**convert.FIT)
    schema = infer_schema(
        read_table(miniature / "out" / "pairs" / "train.parquet"), predictor.targets, predictor.columns
    )
    assert set(schema.inputs) == {"image", "caption"}
    assert set(schema.targets) == {"matches"}
