"""The digit-ops recipe on a miniature of its source: right answers, splits that share nothing, verified contents."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.recipes import load_recipe
from graphfusion.data import read_audio, read_table
from graphfusion.data.recipe import digest, read_files
from tests.conftest import png, wav

convert = load_recipe("digit_ops")


def answer(question: str, a: int, b: int) -> int:
    """The answer, from the words of the question."""
    if any(word in question for word in ("add", "sum", "together")):
        return a + b
    if any(word in question for word in ("difference", "apart", "subtract")):
        return abs(a - b)
    return max(a, b) if any(word in question for word in ("larger", "maximum", "bigger")) else min(a, b)


def test_there_are_twelve_phrases_in_four_operations() -> None:
    assert len(convert.PHRASES) == len({p for _, p in convert.PHRASES}) == 12
    for name, phrase in convert.PHRASES:
        for a, b in ((3, 8), (8, 3), (5, 5)):
            assert convert.OPERATIONS[name][0](a, b) == answer(phrase, a, b)


def test_the_card_s_best_guesses() -> None:
    """Share of the 400 cases that the best answer to what is known gets right."""
    cases = [
        (name, a, b, op(a, b)) for name, (op, _) in convert.OPERATIONS.items() for a in range(10) for b in range(10)
    ]
    known = {
        "image and sound": (1, 2),
        "image and question": (0, 1),
        "sound and question": (0, 2),
        "image": (1,),
        "question": (0,),
    }
    found = {}
    for what, parts in known.items():
        answers: dict[tuple[object, ...], Counter[int]] = {}
        for case in cases:
            answers.setdefault(tuple(case[i] for i in parts), Counter())[case[3]] += 1
        found[what] = sum(max(c.values()) for c in answers.values()) / len(cases)
    assert found == {
        "image and sound": 0.39,
        "image and question": 0.345,
        "sound and question": 0.345,
        "image": 0.335,
        "question": 0.165,
    }


def dialled_digit(cell: dict[str, Any]) -> int:
    """The digit whose two tones are strongest in the sound."""
    wave = cell["array"].astype(float)
    time = np.arange(len(wave)) / cell["sampling_rate"]
    power = {f: abs(np.exp(-2j * np.pi * f * time) @ wave) for pair in convert.TONES.values() for f in pair}
    return max(convert.TONES, key=lambda d: sum(power[f] for f in convert.TONES[d]))


def test_dialled_tables_say_the_truth(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    convert.convert(tmp_path, "dialled", None, {"train": 60, "valid": 10, "test": 40}, tmp_path)
    digits = load_digits()
    known = {
        ((image * (255 / 16)).round().astype(np.uint8)).tobytes(): int(d)
        for image, d in zip(digits.images, digits.target, strict=True)
    }
    seen: dict[str, set[bytes]] = {}
    for split in ("train", "valid", "test"):
        table = read_table(tmp_path / f"{split}.parquet")
        assert list(table.columns) == ["image", "sound", "question", "answer"]
        for image, sound, question, truth in zip(*table.columns.values(), strict=True):
            pixels = np.asarray(Image.open(io.BytesIO(image))).tobytes()
            seen.setdefault(split, set()).add(pixels)
            assert truth == answer(question, known[pixels], dialled_digit(sound))
    assert not seen["train"] & seen["test"]
    assert not seen["valid"] & (seen["train"] | seen["test"])


@pytest.fixture
def miniature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source of the true form: 10 training and 2 test images a digit, 12 recordings a digit of one speaker."""
    source, subset = tmp_path / "source", set()
    for digit in range(10):
        for split, count in (("train", 10), ("test", 2)):
            for k in range(count):
                path = source / "image" / split / str(digit) / f"{k}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(png(np.full((28, 28), 20 * digit + k + (10 if split == "test" else 0), np.uint8)))
                subset.add(f"{split}/{digit}/{k}.png")
        for k in range(12):
            path = source / "audio" / f"{digit}_ann_{k}.wav"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(wav(np.full(100, (12 * digit + k) / 200), 8000))
    monkeypatch.setattr(convert, "_subset", lambda: subset)
    monkeypatch.setattr(convert, "IMAGES_SHA256", digest(read_files(source / "image", "*.png")))
    monkeypatch.setattr(convert, "SOUNDS_SHA256", digest(read_files(source / "audio", "*.wav")))
    return source


def test_spoken_tables_keep_the_official_split(miniature: Path, tmp_path: Path) -> None:
    convert.convert(tmp_path / "out", "spoken", miniature, {"train": 80, "valid": 40, "test": 40}, tmp_path)
    numbers = {"train": {10, 11}, "valid": {5, 6, 7, 8, 9}, "test": {0, 1, 2, 3, 4}}
    for split in ("train", "valid", "test"):
        table = read_table(tmp_path / "out" / f"{split}.parquet")
        for image, sound, question, truth in zip(*table.columns.values(), strict=True):
            grey = int(np.asarray(Image.open(io.BytesIO(image)))[0, 0])
            code = round(float(read_audio(sound, Path(), 8000, 8000, 9.0).mean()) * 200)
            assert code % 12 in numbers[split]
            assert (grey % 20 >= 10) == (split == "test")
            assert truth == answer(question, grey // 20, code // 12)


def test_an_archive_and_a_folder_give_the_same_tables(miniature: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "digits.tar.gz", "w:gz") as tar:
        for part in ("image", "audio"):
            tar.add(miniature / part, arcname=f"./{part}")
    rows = {"train": 5, "valid": 5, "test": 5}
    convert.convert(tmp_path / "a", "spoken", miniature, rows, tmp_path / "w1")
    convert.convert(tmp_path / "b", "spoken", tmp_path / "digits.tar.gz", rows, tmp_path / "w2")
    for split in rows:
        assert (tmp_path / "a" / f"{split}.parquet").read_bytes() == (tmp_path / "b" / f"{split}.parquet").read_bytes()


def test_the_downloads_are_laid_out_alike(miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Archives in the form of the public sources (one top folder, recordings/) lead to the same tables."""

    def served(url: str, target: Path) -> Path:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(target, "w:gz") as tar:
            if url == convert.MNIST:
                tar.add(miniature / "image", arcname="mnist-pngs-1")
            else:
                tar.add(miniature / "audio", arcname="fsdd-1/recordings")
        return target

    monkeypatch.setattr(convert, "download", served)
    rows = {"train": 5, "valid": 5, "test": 5}
    convert.convert(tmp_path / "a", "spoken", miniature, rows, tmp_path / "w1")
    convert.convert(tmp_path / "b", "spoken", None, rows, tmp_path / "w2")
    assert (tmp_path / "a" / "test.parquet").read_bytes() == (tmp_path / "b" / "test.parquet").read_bytes()


def test_other_contents_and_missing_sources_are_refused(
    miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (miniature / "audio" / "3_ann_0.wav").write_bytes(b"changed")
    assert convert.main(["--out", str(tmp_path / "o"), "--source", str(miniature)]) == 2
    assert "not the same data" in capsys.readouterr().err
    assert convert.main(["--out", str(tmp_path / "o"), "--source", str(tmp_path / "none.tar.gz")]) == 2
    assert "no such file" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert convert.main(["--out", str(tmp_path / "o"), "--source", str(tmp_path / "empty")]) == 2
    assert "no *.png files" in capsys.readouterr().err
