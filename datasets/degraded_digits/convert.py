"""Make the degraded-digits tables: one digit as a blurred image, as speech in noise and as a word with letters missing.

    python datasets/degraded_digits/convert.py --out DIR                  # downloads MNIST, FSDD and ESC-50 (700 MB)
    python datasets/degraded_digits/convert.py --out DIR --source PATH    # a folder with digits.tar.gz and esc10.tar

Writes train.parquet, valid.parquet and test.parquet with the columns image, sound, word, digit, recording, noise. See CARD.md.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphfusion.data import counted_rng, read_audio, read_image
from graphfusion.data.recipe import load_script, parser_of, run_recipe, source_folder, write_tables
from graphfusion.errors import MediaError, TableError
from graphfusion.schema import Audio, Image, Text

FloatArray = NDArray[np.floating]


digit_ops, esc10 = (load_script(Path(__file__).parents[1] / name / "convert.py") for name in ("digit_ops", "esc10"))

ROWS = {"train": 12_000, "valid": 2_000, "test": 2_000}
NOISE_FOLDS = {"train": (1, 2, 3), "valid": (4,), "test": (5,)}
"""Folds of ESC-10 that the noise of a split comes from."""
ENERGY = 0.25
"""Share of the variance of the training images that stays."""
SNR = -9.0
"""Power of the speech over that of the noise, in dB."""
MASKED = 0.8
"""Chance of each letter to be masked."""
MASK = "_"
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RATE = 8_000
PEAK = 0.9
"""Largest sample of a mixed sound; full scale is 1."""
QUIET = 0.01
"""A stretch of noise with less than this share of the power of its whole sound is not used."""

DIGITS = ("digits", "digits.tar.gz", "digits.tar")
NOISES = ("esc10", "esc10.tar", "ESC-50-master", "ESC-50-master.zip")
"""What `--source` may hold, in the order in which it is looked for."""

FIT: dict[str, Any] = {
    "target": "digit",
    "columns": {
        "image": Image(size=16, patch=4, channels=1),  # four components have no finer detail
        "sound": Audio(sample_rate=RATE, bands=40),
        "word": Text(vocab_size=256),  # one token a letter
        "recording": None,
        "noise": None,
    },
    "epochs": 10,
    "patience": 4,
}
"""What `benchmarks/train.py` gives to `FusionPredictor`. Chosen on validation rows."""


@dataclass(frozen=True)
class Projection:
    """Onto the leading principal components of images as vectors: `mean` (pixels,), `basis` (components, pixels)."""

    mean: FloatArray
    basis: FloatArray

    def __call__(self, images: FloatArray) -> FloatArray:
        """Images (n, pixels) with only what lies in the components."""
        return self.mean + (images - self.mean) @ self.basis.T @ self.basis


def fit_projection(images: FloatArray, energy: float) -> Projection:
    """The fewest leading components that hold at least the share `energy` of the variance of `images` (n, pixels)."""
    mean = images.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(images, rowvar=False))
    shares = np.cumsum(values[::-1]) / values.sum()
    count = int(np.searchsorted(shares, energy)) + 1
    return Projection(mean, vectors[:, ::-1][:, :count].T)


def blur(pools: Mapping[str, Mapping[int, Sequence[bytes]]], energy: float) -> dict[str, dict[int, list[bytes]]]:
    """The images of each split and digit as PNG bytes of what the components of the training images keep of them."""
    pixels = {s: {d: _pixels(cells) for d, cells in images.items()} for s, images in pools.items()}
    projection = fit_projection(np.concatenate(list(pixels["train"].values())), energy)
    return {s: {d: [_png(v) for v in projection(cells)] for d, cells in images.items()} for s, images in pixels.items()}


def _pixels(cells: Sequence[bytes]) -> FloatArray:
    """(images, pixels) in [0, 1]."""
    return np.stack([read_image(cell, Path(), channels=1).ravel() for cell in cells]).astype(np.float64)


def _png(pixels: FloatArray) -> bytes:
    from PIL.Image import fromarray

    side = round(len(pixels) ** 0.5)
    buffer = io.BytesIO()
    fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8).reshape(side, side)).save(buffer, "PNG")
    return buffer.getvalue()


def mix(speech: FloatArray, noise: FloatArray, snr: float, rng: np.random.Generator) -> FloatArray:
    """`speech` with a stretch of `noise` (a loop), `snr` dB between their powers over the whole length.

    The stretch begins anywhere but where it would be next to silent.
    """
    count = len(speech)
    loop = np.resize(noise, max(len(noise), count)).astype(np.float64)
    power = np.concatenate([[0.0], np.cumsum(np.concatenate([loop, loop[: count - 1]]) ** 2)])
    power = (power[count:] - power[:-count]) / count
    starts = np.flatnonzero(power > QUIET * (loop**2).mean())
    start = int(starts[rng.integers(len(starts))])
    stretch = np.roll(loop, -start)[:count]
    gain = np.sqrt((speech.astype(np.float64) ** 2).mean() / (stretch**2).mean() / 10 ** (snr / 10))
    mixed = speech + gain * stretch
    return mixed * (PEAK / np.abs(mixed).max())


def mask(word: str, chance: float, rng: np.random.Generator) -> str:
    """`word` with each letter replaced by `MASK` by `chance`: its length and the places of the others stay."""
    return "".join(
        MASK if hidden else letter for letter, hidden in zip(word, rng.random(len(word)) < chance, strict=True)
    )


def read_noises(folder: Path) -> dict[str, list[FloatArray]]:
    """Split → its sounds of ESC-10 at `RATE`."""
    sounds = esc10.read_sounds(folder)
    return {split: [_wave(s.data, s.file) for s in sounds if s.fold in folds] for split, folds in NOISE_FOLDS.items()}


def _wave(cell: bytes, file: str) -> FloatArray:
    try:
        wave = read_audio(cell, Path(), RATE, RATE, 30.0)
    except MediaError as error:
        raise TableError(f"{file}: {error}") from error
    if not wave.any():
        raise TableError(f"{file}: a sound without any sample but 0 cannot be mixed.")
    return wave


def make_rows(pool: Any, noises: Sequence[FloatArray], count: int, split: str, seed: int) -> list[dict[str, Any]]:
    """`count` rows, row i of digit i mod 10: image, recording, noise and mask each drawn by (seed, split, row).

    `pool` is a `Pool` of digit_ops.
    """
    rows = []
    for i in range(count):
        rng, digit = counted_rng(seed, f"degraded_digits/{split}", i), i % len(WORDS)
        image = pool.images[digit][int(rng.integers(len(pool.images[digit])))]
        recording, noise = pool.sound(digit, rng), int(rng.integers(len(noises)))
        sound = mix(_wave(recording, f"a recording of {digit}"), noises[noise], SNR, rng)
        row = {"image": image, "sound": _wav(sound), "word": mask(WORDS[digit], MASKED, rng), "digit": digit}
        rows.append({**row, "recording": sha256(recording).hexdigest()[:12], "noise": noise})
    return rows


def _wav(samples: FloatArray) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, (samples * 32767).round().astype(np.int16), RATE, "PCM_16", format="WAV")
    return buffer.getvalue()


def sources(source: Path | None, work: Path) -> tuple[Path, Path]:
    """Folders of digit_ops' source and of esc10's: downloaded, or found in `source` as archives or unpacked.

    Raises:
        TableError: one of them is not there.
    """
    parts = {"digits": (DIGITS, ("image",)), "noise": (NOISES, ("001_Dog_bark", "meta/esc50.csv"))}
    if source is None:
        digit_ops.fetch(work / "digits")
        esc10.fetch(work / "noise")
        return work / "digits", work / "noise"
    folder = source_folder(source, work / "source")
    digits, noise = (_part(folder, names, marks, work / part) for part, (names, marks) in parts.items())
    return digits, noise


def _part(folder: Path, names: Sequence[str], marks: Sequence[str], work: Path) -> Path:
    """`folder` itself where one of `marks` lies in it; else the first of `names` in it, unpacked."""
    if any((folder / mark).exists() for mark in marks):
        return folder
    found = [folder / name for name in names if (folder / name).exists()]
    if not found:
        raise TableError(
            f"{folder}: expected one of {', '.join(names)} in it, got none; --source takes a folder that holds the sources "
            "of digit_ops and of esc10, packed or unpacked (see CARD.md)."
        )
    return source_folder(found[0], work)


def convert(out: Path, source: Path | None, rows: Mapping[str, int], work: Path, seed: int = 0) -> None:
    """Write the three tables below `out`."""
    digits, noise = sources(source, work)
    pools = digit_ops.spoken_pools(digits)
    noises = read_noises(noise)
    images = blur({split: pool.images for split, pool in pools.items()}, ENERGY)
    tables = {
        split: make_rows(digit_ops.Pool(images[split], pools[split].sound), noises[split], count, split, seed)
        for split, count in rows.items()
    }
    write_tables(out, tables, rows)


def main(arguments: list[str] | None = None) -> int:
    """Command line; 2 where the source cannot be used."""
    parser = parser_of(__doc__, "a folder (or an archive of it) with digits.tar.gz and esc10.tar, packed or unpacked")

    def run(options: argparse.Namespace, work: Path) -> None:
        convert(options.out, options.source, ROWS, work, options.seed)

    return run_recipe(parser, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
