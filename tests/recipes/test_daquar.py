"""The DAQUAR recipe on a miniature of its source: rows as the source says, the official lists of images, sources refused."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.recipes import load_recipe
from graphfusion import FusionPredictor
from graphfusion.data import read_table
from graphfusion.data.recipe import SPLITS, digest

convert = load_recipe("daquar")

TRAIN = [f"image{i}" for i in range(3, 33)]
TEST = ["image1", "image2", "image100"]
PAIRS = [
    ("what is on the desk in the image1 ?", "lamp, book", "image1", "what is on the desk in the image ?"),
    ("how many chairs are there in image2 ?", "2", "image2", "how many chairs are there in image ?"),
    ("what is fornt of  the sofa in this image3 ?", "cofee_table", "image3", "what is fornt of  the sofa in this image ?"),
    ("what is left of the image100 in the image100 ?", "door", "image100", "what is left of the image in the image ?"),
    *((f"what color is wall {i % 4} in the image{i} ?", "white", f"image{i}", f"what color is wall {i % 4} in the image ?")
      for i in range(4, 32)),
    *((f"what is below it in the image{i} ?", "map, rug", f"image{i}", "what is below it in the image ?")
      for i in range(4, 32)),
    ("what is on the desk in the image1 ?", "lamp, book", "image1", "what is on the desk in the image ?"),
]  # fmt: skip
"""Question as typed, answer, image, question as the table has it; image32 has none, image1 has one twice."""


def photo(image: str) -> bytes:
    """A photo that differs from image to image."""
    buffer = io.BytesIO()
    number = int(image.removeprefix("image"))
    Image.fromarray(np.full((121, 160, 3), (2 * number, 255 - number, 90), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def texts() -> dict[str, str]:
    """The text files without an end of line at their end, as in the true source."""
    return {
        "all_qa_pairs.txt": "\n".join(f"{typed}\n{answer}" for typed, answer, *_ in PAIRS),
        "train_images_list.txt": "\n".join(TRAIN),
        "test_images_list.txt": "\n".join(TEST),
    }


@pytest.fixture
def miniature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source of the true form: 30 training and 3 test photos with 61 questions."""
    source = tmp_path / "source"
    (source / "images").mkdir(parents=True)
    for name, text in texts().items():
        (source / name).write_text(text)
    for image in (*TRAIN, *TEST):
        (source / "images" / f"{image}.jpg").write_bytes(photo(image))
    (source / "answer_space.txt").write_text("lamp\nbook")
    monkeypatch.setattr(convert, "TEXTS_SHA256", digest({name: text.encode() for name, text in texts().items()}))
    monkeypatch.setattr(convert, "PHOTOS_SHA256", digest({image: photo(image) for image in (*TRAIN, *TEST)}))
    monkeypatch.setattr(convert, "ROWS", {})
    return source


def run(out: Path, *arguments: object) -> dict[str, bytes]:
    """The tables that the command line writes to `out`."""
    assert convert.main(["--out", str(out), *map(str, arguments)]) == 0
    return {split: (out / f"{split}.parquet").read_bytes() for split in SPLITS}


def rows_of(folder: Path, split: str) -> list[tuple[bytes, str, str, str]]:
    return list(zip(*read_table(folder / f"{split}.parquet").columns.values(), strict=True))


def test_the_counts_are_those_of_the_official_splits() -> None:
    assert sum(convert.ROWS.values()) == 12_468
    assert convert.ROWS["test"] == 5_673


def test_rows_are_those_of_the_source(miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "out", "--source", miniature)
    assert "note" not in capsys.readouterr().err
    assert list(read_table(tmp_path / "out" / "test.parquet").columns) == ["image", "question", "answer", "image_id"]
    expected = [(photo(image), question, answer, image) for _, answer, image, question in PAIRS]
    found = {split: rows_of(tmp_path / "out", split) for split in SPLITS}
    held = {row[3] for row in found["valid"]}
    assert found["test"] == [row for row in expected if row[3] in TEST]
    assert found["valid"] == [row for row in expected if row[3] in held]
    assert found["train"] == [row for row in expected if row[3] in TRAIN and row[3] not in held]
    assert held < set(TRAIN)


def test_validation_is_a_tenth_of_the_training_photos_and_always_the_same(miniature: Path, tmp_path: Path) -> None:
    train, test = [f"image{i}" for i in range(795)], [f"image{i}" for i in range(795, 1449)]
    split = convert.split_images(train, test)
    assert {name: len(images) for name, images in split.items()} == {"train": 716, "valid": 79, "test": 654}
    assert split["train"] | split["valid"] == set(train)
    assert split == convert.split_images(train, test)
    numbers = [int(name.removeprefix("image")) for name in split["valid"]]
    assert 300 < np.mean(numbers) < 500  # from all over the list, not its start
    assert run(tmp_path / "a", "--source", miniature) == run(tmp_path / "b", "--source", miniature, "--seed", 5)


@pytest.mark.parametrize("top", [".", "daquar/dataset"])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive_and_a_folder_give_the_same_tables(miniature: Path, tmp_path: Path, top: str, mode: str) -> None:
    with tarfile.open(tmp_path / "given", mode) as tar:  # type: ignore[call-overload]
        tar.add(miniature, arcname=top)
    assert run(tmp_path / "a", "--source", miniature) == run(tmp_path / "b", "--source", tmp_path / "given")


def test_ends_of_lines_do_not_matter(miniature: Path, tmp_path: Path) -> None:
    before = run(tmp_path / "a", "--source", miniature)
    for name, text in texts().items():
        (miniature / name).write_bytes(text.replace("\n", "\r\n").encode() + b"\r\n")
    assert run(tmp_path / "b", "--source", miniature) == before


def test_other_photos_are_taken_with_a_note(
    miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (miniature / "images" / "image2.jpg").write_bytes(photo("image7"))
    run(tmp_path / "out", "--source", miniature)
    assert "not the photos of the card" in capsys.readouterr().err
    assert rows_of(tmp_path / "out", "test")[1][0] == photo("image7")


def refusal(out: Path, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What the command line says of a source that it refuses; it writes nothing then."""
    assert convert.main(["--out", str(out), *map(str, arguments)]) == 2
    assert not out.exists()
    return capsys.readouterr().err


def test_without_a_source_the_message_says_where_to_get_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(tmp_path / "out", capsys)
    for part in ("--source PATH", "all_qa_pairs.txt", "Max Planck", "NYU Depth v2", "CARD.md"):
        assert part in said


def test_other_contents_and_missing_sources_are_refused(
    miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as other:
        other.setattr(convert, "ROWS", {"test": 5})
        assert "test: expected 5 rows, got 4" in refusal(out, capsys, "--source", miniature)
    assert "no such file" in refusal(out, capsys, "--source", tmp_path / "none.tar")
    (tmp_path / "empty").mkdir()
    assert "expected all_qa_pairs.txt in it" in refusal(out, capsys, "--source", tmp_path / "empty")
    (miniature / "images" / "image100.jpg").unlink()
    assert "1 of 33 photos are not there, the first image100.jpg" in refusal(out, capsys, "--source", miniature)
    (miniature / "train_images_list.txt").write_text("\n".join(reversed(TRAIN)))
    assert "not the same data" in refusal(out, capsys, "--source", miniature)
    (miniature / "all_qa_pairs.txt").write_bytes(b"\xff\xfe")
    assert "not the same data" in refusal(out, capsys, "--source", miniature)
    (miniature / "test_images_list.txt").unlink()
    assert "test_images_list.txt: no such file" in refusal(out, capsys, "--source", miniature)


@pytest.mark.parametrize("kind", ["outside", "link", "text"])
def test_an_unsafe_archive_is_refused(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    archive = tmp_path / "given.tar"
    if kind == "text":
        archive.write_bytes(b"no archive")
    else:
        member = tarfile.TarInfo("../outside.jpg" if kind == "outside" else "all_qa_pairs.txt")
        if kind == "link":
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        with tarfile.open(archive, "w") as tar:
            tar.addfile(member, io.BytesIO())
    said = refusal(tmp_path / "out", capsys, "--source", archive)
    assert ("neither a tar nor a zip" if kind == "text" else "refused") in said
    assert not (tmp_path / "outside.jpg").exists()


def test_the_settings_train_on_the_answers_of_train(miniature: Path, tmp_path: Path) -> None:
    run(tmp_path / "out", "--source", miniature)
    predictor = FusionPredictor(**convert.FIT | {"epochs": 1, "dim": 8})
    predictor.fit(tmp_path / "out" / "train.parquet", valid=tmp_path / "out" / "valid.parquet", quiet=True)
    assert set(predictor.schema.inputs) == {"image", "question"}
    answers = {row[2] for row in rows_of(tmp_path / "out", "train")}
    assert set(predictor.schema.targets["answer"].classes) == answers  # type: ignore[union-attr]
    assert set(predictor.predict(tmp_path / "out" / "test.parquet")) <= answers
