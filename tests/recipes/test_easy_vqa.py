"""The easy-VQA recipe on a miniature of its source: rows as the source says, splits by picture, every place it may lie in."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks.recipes import load_recipe
from graphfusion import FusionPredictor
from graphfusion.data import read_table
from graphfusion.data.recipe import SPLITS, digest
from tests.conftest import png

convert = load_recipe("easy_vqa")

IMAGES = {"train": 20, "test": 4}
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def colour(part: str, number: int) -> str:
    return sorted(COLOURS)[(number + (part == "test")) % 3]


def picture(part: str, number: int) -> bytes:
    """A picture of one colour; its corner says which it is."""
    pixels = np.full((64, 64, 3), COLOURS[colour(part, number)], np.uint8)
    pixels[0, 0] = (number, part == "test", 7)
    return png(pixels)


def questions(part: str) -> list[tuple[str, str, int]]:
    """Three questions about even pictures, two about odd ones."""
    found = []
    for i in range(IMAGES[part]):
        found += [("what color is the shape?", colour(part, i), i), ("is there a circle?", "yes" if i % 5 else "no", i)]
        found += [("is there not a red shape in the image?", "no" if colour(part, i) == "red" else "yes", i)] * (
            i % 2 == 0
        )
    return found


def files() -> dict[str, bytes]:
    """The files that the recipe reads."""
    made = {f"{part}/images/{i}.png": picture(part, i) for part, count in IMAGES.items() for i in range(count)}
    return made | {f"{part}/questions.json": json.dumps(questions(part)).encode() for part in IMAGES}


def lay_out(folder: Path) -> Path:
    """The source below `folder`, with what lies beside it in the true one."""
    for name, data in (files() | {"README.md": b"# data/", "answers.txt": b"yes\nno"}).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.fixture
def miniature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source of the true form: 20 training pictures with 50 questions, 4 test pictures with 10."""
    monkeypatch.setattr(convert, "SHA256", digest(files()))
    monkeypatch.setattr(convert, "ROWS", {"train": 45, "valid": 5, "test": 10})
    monkeypatch.setattr(convert, "held_out", lambda images: {"train/3", "train/8"})
    return lay_out(tmp_path / "source")


def tables(folder: Path) -> dict[str, bytes]:
    return {split: (folder / f"{split}.parquet").read_bytes() for split in SPLITS}


def run(out: Path, *arguments: object) -> dict[str, bytes]:
    """The tables that the command line writes to `out`."""
    assert convert.main(["--out", str(out), *map(str, arguments)]) == 0
    return tables(out)


def test_the_counts_are_those_of_the_official_splits() -> None:
    assert convert.ROWS["train"] + convert.ROWS["valid"] == 38_575
    assert convert.ROWS["test"] == 9_673


def test_rows_are_those_of_the_source(miniature: Path, tmp_path: Path) -> None:
    run(tmp_path / "out", "--source", miniature)
    expected = {
        "train": [("train", *row) for row in questions("train") if row[2] not in (3, 8)],
        "valid": [("train", *row) for row in questions("train") if row[2] in (3, 8)],
        "test": [("test", *row) for row in questions("test")],
    }
    for split, rows in expected.items():
        columns = read_table(tmp_path / "out" / f"{split}.parquet").columns
        assert list(columns) == ["image", "question", "answer", "image_id"]
        found = list(zip(*columns.values(), strict=True))
        assert found == [(picture(part, i), question, answer, f"{part}/{i}") for part, question, answer, i in rows]


def test_validation_is_a_tenth_of_the_pictures_and_always_the_same() -> None:
    images = sorted(f"train/{i}" for i in range(4000))
    held = convert.held_out(images)
    assert len(held) == 400
    assert held < set(images)
    assert held == convert.held_out(images)
    numbers = [int(name.removeprefix("train/")) for name in held]
    assert 1800 < np.mean(numbers) < 2200  # from all over the source, not its start


def test_the_seed_changes_nothing(miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "held_out", load_recipe("easy_vqa").held_out)
    monkeypatch.setattr(convert, "ROWS", {})
    assert run(tmp_path / "a", "--source", miniature) == run(tmp_path / "b", "--source", miniature, "--seed", 5)
    ids = {split: set(read_table(tmp_path / "a" / f"{split}.parquet").column("image_id")) for split in SPLITS}
    assert {split: len(found) for split, found in ids.items()} == {"train": 18, "valid": 2, "test": 4}
    assert len(set.union(*ids.values())) == 24


@pytest.mark.parametrize("top", [".", "easy-vqa-1.0/easy_vqa/data", "easy-VQA-3b553bb/easy_vqa/data"])
@pytest.mark.parametrize("packed", ["tar", "zip", "folder"])
def test_every_layout_gives_the_same_tables(miniature: Path, tmp_path: Path, top: str, packed: str) -> None:
    source = tmp_path / "given"
    if packed == "tar":
        with tarfile.open(source, "w:gz") as tar:
            tar.add(miniature, arcname=top)
    elif packed == "zip":
        with zipfile.ZipFile(source, "w") as archive:
            for path in miniature.rglob("*.*"):
                archive.write(path, f"{top}/{path.relative_to(miniature)}")
    else:
        lay_out(source / top)
    assert run(tmp_path / "a", "--source", miniature) == run(tmp_path / "b", "--source", source)


def test_an_installed_package_is_read_and_never_imported(
    miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(tmp_path / "site" / "easy_vqa" / "data")
    (tmp_path / "site" / "easy_vqa" / "__init__.py").write_text("raise SystemError('imported')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delattr(convert, "download")
    assert run(tmp_path / "a") == run(tmp_path / "b", "--source", miniature)


def test_a_package_of_that_name_without_the_data_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site" / "easy_vqa").mkdir(parents=True)
    (tmp_path / "site" / "easy_vqa" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert convert.installed() is None


def test_the_download_gives_the_same_tables(miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive in the form of GitHub's: one top folder, the data two below it."""
    commit = "3b553bb7ff42a868d5f4cbe8c88255d7333c3c31"

    def served(url: str, target: Path) -> Path:
        assert url == f"https://github.com/vzhou842/easy-VQA/archive/{commit}.tar.gz"
        with tarfile.open(target, "w:gz") as tar:
            tar.add(miniature, arcname=f"easy-VQA-{commit}/easy_vqa/data")
        return target

    monkeypatch.setattr(convert, "installed", lambda: None)
    monkeypatch.setattr(convert, "download", served)
    assert run(tmp_path / "a") == run(tmp_path / "b", "--source", miniature)


def refusal(source: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command line says of a source that it refuses; it writes nothing then."""
    assert convert.main(["--out", str(out), "--source", str(source)]) == 2
    assert not out.exists()
    return capsys.readouterr().err


def test_other_contents_and_missing_sources_are_refused(
    miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as other:
        other.setattr(convert, "ROWS", {"train": 46, "valid": 4, "test": 10})
        assert "train: expected 46 rows, got 45" in refusal(miniature, out, capsys)
    assert "no such file" in refusal(tmp_path / "none.tar.gz", out, capsys)
    (tmp_path / "empty").mkdir()
    said = refusal(tmp_path / "empty", out, capsys)
    assert "expected train/questions.json" in said
    assert "github.com/vzhou842/easy-VQA" in said
    (miniature / "train" / "images" / "3.png").write_bytes(b"changed")
    assert "not the same data" in refusal(miniature, out, capsys)
    (miniature / "test" / "questions.json").unlink()
    assert "no test/questions.json" in refusal(miniature, out, capsys)


@pytest.mark.parametrize("kind", ["outside", "link", "text"])
def test_an_unsafe_archive_is_refused(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    archive = tmp_path / "given.tar"
    if kind == "text":
        archive.write_bytes(b"no archive")
    else:
        member = tarfile.TarInfo("../outside.png" if kind == "outside" else "train/questions.json")
        if kind == "link":
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        with tarfile.open(archive, "w") as tar:
            tar.addfile(member, io.BytesIO())
    said = refusal(archive, tmp_path / "out", capsys)
    assert ("neither a tar nor a zip" if kind == "text" else "refused") in said
    assert not (tmp_path / "outside.png").exists()


def test_the_settings_train(miniature: Path, tmp_path: Path) -> None:
    run(tmp_path / "out", "--source", miniature)
    predictor = FusionPredictor(**convert.FIT | {"epochs": 1, "dim": 8})
    predictor.fit(tmp_path / "out" / "train.parquet", valid=tmp_path / "out" / "valid.parquet", quiet=True)
    assert set(predictor.schema.inputs) == {"image", "question"}
    assert predictor.schema.targets["answer"].classes == ("blue", "green", "no", "red", "yes")  # type: ignore[union-attr]
    assert predictor.evaluate(tmp_path / "out" / "test.parquet")["rows"] == 10
