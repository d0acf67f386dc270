"""The degraded-digits recipe on a miniature of its sources: what is left of each view, measured by other means.

Recordings and noises of the miniature are tones, each of its own frequency, so a mixed sound says what it was made of.
"""

from __future__ import annotations

import io
import itertools
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from benchmarks.recipes import load_recipe
from graphfusion import FusionPredictor
from graphfusion.data import counted_rng, read_table
from graphfusion.data.infer import infer_schema
from graphfusion.data.recipe import digest, read_files
from tests.conftest import png, wav

convert = load_recipe("degraded_digits")

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ROWS = {"train": 60, "valid": 20, "test": 20}
RATE, LENGTH, RECORDINGS = 8_000, 1_600, 12
STEP = RATE / LENGTH
"""Hz between tones that are orthogonal over a recording."""


def speech_tone(digit: int, number: int) -> float:
    """Frequency of a recording, 500 to 1,100 Hz."""
    return 500 + STEP * (RECORDINGS * digit + number)


def noise_tone(fold: int) -> float:
    """Frequency of the noises of a fold, 2,000 to 2,800 Hz."""
    return 1_800.0 + 200 * fold


def tone(frequency: float, rate: int, count: int) -> np.ndarray:
    """A sine in [-0.5, 0.5]."""
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(count) / rate)


@pytest.fixture(scope="module")
def made_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """digits/: 10 training and 2 test images of grey noise a digit, 12 recordings a digit of one speaker; esc10/: one sound of
    each class and fold, the second half silent.
    """
    source, rng = tmp_path_factory.mktemp("source"), np.random.default_rng(0)
    for digit in range(10):
        for split, count in (("train", 10), ("test", 2)):
            folder = source / "digits" / "image" / split / str(digit)
            folder.mkdir(parents=True)
            for k in range(count):
                (folder / f"{k}.png").write_bytes(png(rng.integers(64, 192, (28, 28)).astype(np.uint8)))
        (source / "digits" / "audio").mkdir(exist_ok=True)
        for k in range(RECORDINGS):
            samples = tone(speech_tone(digit, k), RATE, LENGTH)
            (source / "digits" / "audio" / f"{digit}_ann_{k}.wav").write_bytes(wav(samples, RATE))
    for c, folder in enumerate(convert.esc10.FOLDERS):
        (source / "esc10" / folder).mkdir(parents=True)
        for fold in range(1, 6):
            samples = np.concatenate([tone(noise_tone(fold), 16_000, 8_000), np.zeros(8_000)])
            soundfile.write(source / "esc10" / folder / f"{fold}-{100 * c + fold}-A.ogg", samples, 16_000)
    return source


@pytest.fixture
def source(made_source: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The miniature, with its own digests expected."""
    images = read_files(made_source / "digits" / "image", "*.png")
    sounds = read_files(made_source / "esc10", "*.ogg")
    names = {f"{convert.esc10.FOLDERS[n.split('/')[0]].replace('_', ' ')}/{n.split('/')[1][:-4]}": b"" for n in sounds}
    monkeypatch.setattr(convert.digit_ops, "_subset", lambda: set(images))
    monkeypatch.setattr(convert.digit_ops, "IMAGES_SHA256", digest(images))
    monkeypatch.setattr(
        convert.digit_ops, "SOUNDS_SHA256", digest(read_files(made_source / "digits" / "audio", "*.wav"))
    )
    monkeypatch.setattr(convert.esc10, "PER_FOLD", 1)
    monkeypatch.setattr(convert.esc10, "NAMES_SHA256", digest(names))
    monkeypatch.setattr(convert.esc10, "SOUNDS_SHA256", digest(sounds))
    monkeypatch.setattr(convert, "ROWS", ROWS)
    return made_source


@pytest.fixture
def out(source: Path, tmp_path: Path) -> Path:
    """The tables of the miniature."""
    assert convert.main(["--out", str(tmp_path / "out"), "--source", str(source)]) == 0
    return tmp_path / "out"


def rows(out: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(split, row) of all tables."""
    for split in ROWS:
        columns = read_table(out / f"{split}.parquet").columns
        for cells in zip(*columns.values(), strict=True):
            yield split, dict(zip(columns, cells, strict=True))


def pixels(data: bytes) -> np.ndarray:
    """The greys of a PNG as a vector."""
    return np.asarray(Image.open(io.BytesIO(data)), float).ravel()


def sources_of(source: Path) -> dict[tuple[str, int], np.ndarray]:
    """(training or test images, digit) → the images of the source."""
    return {
        (split, digit): np.stack(
            [pixels(p.read_bytes()) for p in sorted((source / "digits/image" / split / str(digit)).iterdir())]
        )
        for split in ("train", "test")
        for digit in range(10)
    }


def test_every_digit_is_as_frequent(out: Path) -> None:
    counts = Counter((split, row["digit"]) for split, row in rows(out))
    assert counts == {(split, digit): count // 10 for split, count in ROWS.items() for digit in range(10)}
    assert all(list(row) == ["image", "sound", "word", "digit", "recording", "noise"] for _, row in rows(out))


def test_images_keep_a_quarter_of_the_energy(source: Path, out: Path) -> None:
    """Each image is one of its split, as an SVD of the training images (those that validation has not) projects it."""
    known = sources_of(source)
    held = {d: int(counted_rng(0, "digit_ops/valid", d).choice(10)) for d in range(10)}
    train = np.concatenate([np.delete(known["train", d], held[d], axis=0) for d in range(10)])
    mean = train.mean(axis=0)
    _, singular, axes = np.linalg.svd(train - mean, full_matrices=False)
    share = (singular**2).cumsum() / (singular**2).sum()
    count = next(i for i, s in enumerate(share, start=1) if s >= 0.25)
    axes = axes[:count]
    split_images = (
        {("train", d): np.delete(known["train", d], held[d], axis=0) for d in range(10)}
        | {("valid", d): known["train", d][held[d]][None] for d in range(10)}
        | {("test", d): known["test", d] for d in range(10)}
    )
    expected = {key: mean + (images - mean) @ axes.T @ axes for key, images in split_images.items()}
    for split, row in rows(out):
        distance = {key: np.abs(images - pixels(row["image"])).max(axis=1).min() for key, images in expected.items()}
        near = [key for key, d in distance.items() if d < 1]
        assert near == [(split, row["digit"])]
    projected = np.concatenate([expected["train", d] for d in range(10)])
    kept = ((projected - mean) ** 2).sum() / ((train - mean) ** 2).sum()
    assert 0.25 <= kept == pytest.approx(share[count - 1])
    assert share[count - 2] < 0.25


def amplitude(samples: np.ndarray, frequency: float) -> float:
    """Of the tone of this frequency in samples."""
    time = np.arange(len(samples)) / RATE
    return float(2 * abs(np.exp(-2j * np.pi * frequency * time) @ samples) / len(samples))


def test_speech_is_9_db_below_noise_of_its_own_folds(out: Path) -> None:
    numbers = {"train": {10, 11}, "valid": {5, 6, 7, 8, 9}, "test": {0, 1, 2, 3, 4}}
    folds = {"train": {1, 2, 3}, "valid": {4}, "test": {5}}
    tones = {(digit, k): speech_tone(digit, k) for digit in range(10) for k in range(RECORDINGS)}
    heard, spoken, noises = defaultdict(set), defaultdict(set), defaultdict(set)
    for split, row in rows(out):
        samples, rate = soundfile.read(io.BytesIO(row["sound"]), dtype="float64")
        assert (rate, len(samples)) == (RATE, LENGTH)
        assert soundfile.info(io.BytesIO(row["sound"])).subtype == "PCM_16"
        assert 0.85 < np.abs(samples).max() < 0.95
        digit, number = max(tones, key=lambda key: amplitude(samples, tones[key]))
        assert digit == row["digit"]
        assert number in numbers[split]
        fold = max(range(1, 6), key=lambda f: amplitude(samples, noise_tone(f)))
        assert fold in folds[split]
        heard[split].add(fold)
        spoken[row["recording"]].add((digit, number))
        noises[split, row["noise"]].add(fold)
        speech = amplitude(samples, tones[digit, number]) ** 2 / 2
        noise = (samples**2).mean() - speech
        assert 10 * np.log10(speech / noise) == pytest.approx(-9, abs=0.3)  # the codec leaks some noise into the speech
    assert heard == folds
    assert all(len(each) == 1 for each in (*spoken.values(), *noises.values()))  # a name is of one recording, one noise


def test_a_noise_that_is_mostly_silent_is_mixed_where_it_sounds() -> None:
    speech, burst = np.ones(100), np.zeros(10_000)
    burst[3_000:3_010] = 0.1
    for i in range(50):
        mixed = convert.mix(speech, burst, -9.0, counted_rng(0, "test", i))
        floor = np.median(mixed)  # the speech alone
        assert ((mixed - floor) ** 2).mean() / floor**2 == pytest.approx(10**0.9)
    short = convert.mix(speech, np.array([1.0, -1.0, 2.0]), -9.0, counted_rng(0, "test", 0))
    assert len(short) == 100


def best_guess() -> float:
    """How often the best guess from the word alone is right, counted over every digit and mask."""
    chance: dict[str, dict[str, float]] = defaultdict(dict)
    for word in WORDS:
        for hidden in itertools.product((True, False), repeat=len(word)):
            seen = "".join("_" if h else letter for h, letter in zip(hidden, word, strict=True))
            p = float(np.prod([0.8 if h else 0.2 for h in hidden]))
            chance[seen][word] = chance[seen].get(word, 0.0) + p / 10
    return sum(max(words.values()) for words in chance.values())


def test_the_card_s_best_guess_from_the_word() -> None:
    assert best_guess() == pytest.approx(0.6677, abs=5e-5)
    card = (Path(convert.__file__).parent / "CARD.md").read_text()
    assert "66.8 %" in card


def test_four_letters_in_five_are_masked(out: Path) -> None:
    for _, row in rows(out):
        word = WORDS[row["digit"]]
        assert len(row["word"]) == len(word)
        assert all(seen in (letter, "_") for seen, letter in zip(row["word"], word, strict=True))
    letters = "".join(convert.mask("x" * 5, convert.MASKED, counted_rng(0, "test", i)) for i in range(4_000))
    assert letters.count("_") / len(letters) == pytest.approx(0.8, abs=0.012)  # 4 standard errors


def test_draws_depend_on_seed_split_and_row_alone(source: Path, tmp_path: Path, out: Path) -> None:
    convert.convert(tmp_path / "more", source, {"train": 90, "valid": 20, "test": 20}, tmp_path / "w1")
    first, more = list(rows(out)), list(rows(tmp_path / "more"))
    assert first == more[:60] + more[90:]
    assert convert.main(["--out", str(tmp_path / "other"), "--source", str(source), "--seed", "1"]) == 0
    other = list(rows(tmp_path / "other"))
    assert [row["digit"] for _, row in other] == [row["digit"] for _, row in first]
    assert sum(a == b for a, b in zip(other, first, strict=True)) < 5


def test_packed_and_unpacked_sources_give_the_same_tables(source: Path, tmp_path: Path, out: Path) -> None:
    expected = list(rows(out))
    packed = tmp_path / "packed"
    packed.mkdir()
    for name, mode, part in (("digits.tar.gz", "w:gz", "digits"), ("esc10.tar", "w", "esc10")):
        with tarfile.open(packed / name, mode) as tar:
            tar.add(source / part, arcname=".")
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        tar.add(packed, arcname=".")
    merged = tmp_path / "merged"
    for name in ("digits.tar.gz", "esc10.tar"):
        convert.source_folder(packed / name, merged)
    for i, given in enumerate((packed, tmp_path / "all.tar", merged)):
        assert convert.main(["--out", str(tmp_path / str(i)), "--source", str(given)]) == 0
        assert list(rows(tmp_path / str(i))) == expected


def test_the_downloads_are_laid_out_alike(
    source: Path, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for recipe, part in ((convert.digit_ops, "digits"), (convert.esc10, "esc10")):
        monkeypatch.setattr(
            recipe, "fetch", lambda work, part=part: (work.parent.mkdir(exist_ok=True), work.symlink_to(source / part))
        )
    convert.convert(tmp_path / "b", None, ROWS, tmp_path / "work")
    assert list(rows(tmp_path / "b")) == list(rows(out))


def test_other_and_missing_sources_are_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(given: Path) -> str:
        assert convert.main(["--out", str(tmp_path / "out"), "--source", str(given)]) == 2
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    assert "no such file" in refused(tmp_path / "none")
    half = tmp_path / "half"
    half.mkdir()
    (half / "digits").symlink_to(source / "digits")
    assert "expected one of esc10, esc10.tar" in refused(half)
    (half / "esc10").mkdir()
    assert "neither the folders of ESC-10" in refused(half)
    (half / "digits").unlink()
    assert "expected one of digits, digits.tar.gz" in refused(half)
    monkeypatch.setattr(convert.esc10, "SOUNDS_SHA256", "0")
    assert "not the same data" in refused(source)
    monkeypatch.setattr(convert.digit_ops, "SOUNDS_SHA256", "0")
    assert "audio: 120 files with digest" in refused(source)


def test_a_silent_sound_is_refused() -> None:
    from graphfusion.errors import TableError

    with pytest.raises(TableError, match=r"7_ann_0\.wav: a sound without any sample but 0"):
        convert._wave(wav(np.zeros(100), RATE), "7_ann_0.wav")
    with pytest.raises(TableError, match=r"7_ann_0\.wav: not a readable sound"):
        convert._wave(b"RIFF", "7_ann_0.wav")


def test_the_settings_fit_the_tables(out: Path) -> None:
    predictor = FusionPredictor(**convert.FIT)
    schema = infer_schema(read_table(out / "train.parquet"), predictor.targets, predictor.columns)
    assert {name: spec.kind for name, spec in schema.inputs.items()} == {
        "image": "image",
        "sound": "audio",
        "word": "text",
    }
    assert {name: spec.kind for name, spec in schema.targets.items()} == {"digit": "class"}
