"""Make the digit-ops tables: an image of a digit a, a sound of a digit b, a question about the two, the answer.

    python datasets/digit_ops/convert.py --out DIR                    # real speech: downloads MNIST and FSDD, verified
    python datasets/digit_ops/convert.py --out DIR --source PATH      # … from digits.tar.gz or a folder of its files
    python datasets/digit_ops/convert.py --out DIR --sound dialled    # no source: scikit-learn's digits, dialled tones

Writes train.parquet, valid.parquet and test.parquet with the columns image, sound, question, answer. See CARD.md.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphfusion.data import counted_rng
from graphfusion.data.download import download, extract
from graphfusion.data.recipe import parser_of, read_files, run_recipe, source_folder, verify, write_tables
from graphfusion.schema import Audio, Image

OPERATIONS: dict[str, tuple[Callable[[int, int], int], tuple[str, str, str]]] = {
    "sum": (
        lambda a, b: a + b,
        ("add the two digits", "what is the sum of the two numbers", "how much are both together"),
    ),
    "difference": (
        lambda a, b: abs(a - b),
        (
            "what is the difference between the two",
            "how far apart are the digits",
            "subtract the smaller from the larger",
        ),
    ),
    "larger": (max, ("which of the two is larger", "give the maximum of both digits", "take the bigger number")),
    "smaller": (min, ("which of the two is smaller", "give the minimum of both digits", "take the lesser number")),
}
PHRASES = tuple((name, phrase) for name, (_, phrases) in OPERATIONS.items() for phrase in phrases)

MNIST = "https://github.com/rasbt/mnist-pngs/archive/d26bd33bf1e454dd15bd4fe8b8ba64c76308f91c.tar.gz"
FSDD = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/26eb9aaf76e81b692f806f9140c2d2777410d7a1.tar.gz"
IMAGES_SHA256 = "d88e35c8f2b5c7e7588747c16cc5690cbfa28e311f9210f3f63646c6d0fc7ebf"
SOUNDS_SHA256 = "997e451901d158bdf09dde66b240f3f19310fdbf4d9c056ebd806254df4a672c"
ROWS = {
    "spoken": {"train": 12_000, "valid": 2_000, "test": 2_000},
    "dialled": {"train": 6_000, "valid": 600, "test": 2_000},
}

FIT: dict[str, Any] = {
    "target": "answer",
    # patches as MNIST's pixels lie, at half the work of 32 x 32; nothing is recorded above 4 kHz
    "columns": {"image": Image(size=28, patch=7, channels=1), "sound": Audio(sample_rate=8_000, bands=40)},
    "modality_dropout": 0.0,  # no two modalities tell the answer
    "dropout": 0.0,
    "epochs": 12,
    "patience": 4,
}
"""What `benchmarks/train.py` gives to `FusionPredictor`. Chosen on validation rows."""

TONES = {  # ITU-T Q.23: low and high frequency of each digit, in Hz
    0: (941, 1336), 1: (697, 1209), 2: (697, 1336), 3: (697, 1477), 4: (770, 1209),
    5: (770, 1336), 6: (770, 1477), 7: (852, 1209), 8: (852, 1336), 9: (852, 1477),
}  # fmt: skip
TONE_RATE = 8_000


@dataclass(frozen=True)
class Pool:
    """What one split draws from: for each digit, the cells of its images and how to make its sounds."""

    images: Mapping[int, list[Any]]
    sound: Callable[[int, np.random.Generator], Any]


def make_rows(pool: Pool, count: int, split: str, seed: int) -> list[dict[str, Any]]:
    """`count` rows: digits, phrase, image and sound each drawn uniformly, by (seed, split, row)."""
    rows = []
    for i in range(count):
        rng = counted_rng(seed, f"digit_ops/{split}", i)
        a, b = (int(d) for d in rng.integers(10, size=2))
        operation, phrase = PHRASES[int(rng.integers(len(PHRASES)))]
        images = pool.images[a]
        rows.append(
            {
                "image": images[int(rng.integers(len(images)))],
                "sound": pool.sound(b, rng),
                "question": phrase,
                "answer": OPERATIONS[operation][0](a, b),
            }
        )
    return rows


def dialled_pools() -> dict[str, Pool]:
    """scikit-learn's 8 x 8 digits, split by image (70 % train, 10 % valid, 20 % test), with dialled tones."""
    from PIL.Image import fromarray
    from sklearn.datasets import load_digits

    digits = load_digits()
    pngs = [_png(fromarray((image * (255 / 16)).round().astype(np.uint8))) for image in digits.images]
    order = counted_rng(0, "digit_ops/handwriting").permutation(len(pngs))
    bounds = {"train": (0.0, 0.7), "valid": (0.7, 0.8), "test": (0.8, 1.0)}
    pools = {}
    for split, (low, high) in bounds.items():
        part = sorted(order[round(low * len(pngs)) : round(high * len(pngs))])
        pools[split] = Pool({d: [pngs[i] for i in part if digits.target[i] == d] for d in range(10)}, dialled)
    return pools


def dialled(digit: int, rng: np.random.Generator) -> dict[str, Any]:
    """The two tones of a dialled digit: 0.12 to 0.35 s, −26 to −6 dB, random phases, white noise at 5 to 25 dB below."""
    length = int(TONE_RATE * rng.uniform(0.12, 0.35))
    time = np.arange(length) / TONE_RATE
    level = 10 ** (rng.uniform(-26, -6) / 20)
    wave = sum(np.sin(2 * np.pi * (f * time + rng.random())) for f in TONES[digit]) / 2
    wave = wave + rng.normal(size=length) * np.sqrt(0.25) * 10 ** (-rng.uniform(5, 25) / 20)
    samples = np.clip(level * wave, -1, 1) * 32767
    return {"array": samples.round().astype(np.int16), "sampling_rate": TONE_RATE}


def spoken_pools(folder: Path) -> dict[str, Pool]:
    """MNIST and FSDD. Test: MNIST's test images, recordings 0–4 of each speaker and digit; valid: 10 % of the training
    images, recordings 5–9; train: the rest.
    """
    images = {name: data for name, data in read_files(folder / "image", "*.png").items() if name in _subset()}
    sounds = read_files(folder / "audio", "*.wav")
    verify(images, IMAGES_SHA256, f"{folder / 'image'}")
    verify(sounds, SOUNDS_SHA256, f"{folder / 'audio'}")
    train = {d: sorted(n for n in images if n.startswith(f"train/{d}/")) for d in range(10)}
    held = {
        d: set(counted_rng(0, "digit_ops/valid", d).choice(names, len(names) // 10, False))
        for d, names in train.items()
    }
    pictures = {
        "train": {d: [n for n in names if n not in held[d]] for d, names in train.items()},
        "valid": {d: sorted(held[d]) for d in range(10)},
        "test": {d: sorted(n for n in images if n.startswith(f"test/{d}/")) for d in range(10)},
    }
    recordings = {"test": range(5), "valid": range(5, 10), "train": range(10, 50)}
    return {
        split: Pool(
            {d: [images[n] for n in names] for d, names in pictures[split].items()},
            _spoken(
                {
                    d: [sounds[n] for n in sorted(sounds) if _recording(n) in {(d, i) for i in numbers}]
                    for d in range(10)
                }
            ),
        )
        for split, numbers in recordings.items()
    }


def _spoken(sounds: Mapping[int, list[bytes]]) -> Callable[[int, np.random.Generator], bytes]:
    return lambda digit, rng: sounds[digit][int(rng.integers(len(sounds[digit])))]


def _recording(name: str) -> tuple[int, int]:
    """(digit, number of the recording) of `7_jackson_32.wav`."""
    digit, _, number = name.removesuffix(".wav").split("_")
    return int(digit), int(number)


def _subset() -> set[str]:
    """The 7,000 MNIST images used: 600 training and 100 test images of each digit."""
    lines = (Path(__file__).parent / "mnist_subset.txt").read_text().splitlines()
    return {f"{folder}/{number}.png" for folder, *numbers in map(str.split, lines) for number in numbers}


def fetch(work: Path) -> None:
    """Lay the public sources out as image/<split>/<digit>/*.png and audio/*.wav."""
    for url, inner, part in ((MNIST, "", "image"), (FSDD, "recordings", "audio")):
        archive = download(url, work / f"{part}.tar.gz")  # GitHub packs anew at will: the contents are verified instead
        extract(archive, work / "unpacked" / part)
        (top,) = (work / "unpacked" / part).iterdir()
        (top / inner).rename(work / part)


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def convert(out: Path, sound: str, source: Path | None, rows: Mapping[str, int], work: Path, seed: int = 0) -> None:
    """Write the three tables below `out`."""
    pools = dialled_pools() if sound == "dialled" else spoken_pools(source_folder(source, work, fetch))
    write_tables(out, {split: make_rows(pools[split], count, split, seed) for split, count in rows.items()}, rows)


def main(arguments: list[str] | None = None) -> int:
    """Command line; 2 where the source cannot be used."""
    parser = parser_of(__doc__, "digits.tar.gz, or a folder with its image/ and audio/")
    parser.add_argument("--sound", choices=tuple(ROWS), default="spoken", help="real speech (default) or dialled tones")
    parser.add_argument("--train", type=int, help="training rows (default: 12,000 spoken, 6,000 dialled)")

    def run(options: argparse.Namespace, work: Path) -> None:
        rows = {**ROWS[options.sound], **({"train": options.train} if options.train else {})}
        convert(options.out, options.sound, options.source, rows, work, options.seed)

    return run_recipe(parser, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
