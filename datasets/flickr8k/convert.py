"""Make the Flickr8k tables: photos with their five captions, and pairs of a photo and a caption that match or do not.

    python datasets/flickr8k/convert.py --out DIR --source PATH    # flickr8k.tar, or a folder with the files as published

Writes train.parquet, valid.parquet and test.parquet with the columns image, captions, image_id below DIR, and tables of the
same names with the columns image, caption, matches, image_id below DIR/pairs. See CARD.md.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage
from PIL import ImageOps

from graphfusion.data import counted_rng
from graphfusion.data.recipe import Row, parser_of, read_file, run_recipe, source_folder, verify, write_tables
from graphfusion.errors import TableError
from graphfusion.schema import Image, Text

LAYOUTS = {
    "captions.csv": {"train": "split_train.txt", "valid": "split_dev.txt", "test": "split_test.txt"},
    "Flickr8k.token.txt": {
        "train": "Flickr_8k.trainImages.txt",
        "valid": "Flickr_8k.devImages.txt",
        "test": "Flickr_8k.testImages.txt",
    },
}
"""File of the captions → split → file with the names of its photos."""
TEXTS_SHA256 = "ccbbb2509cf91d8c548edb180a841daae58bba9b42a28fd954fe4b70e85207f8"
ROWS = {"train": 6_000, "valid": 1_000, "test": 1_000}
PAIRS = {"train": 60_000, "valid": 2_000, "test": 2_000}
SIDE = 112
"""Pixels of a photo's sides in the tables."""
WHERE = (
    "Ask for the data at forms.illinois.edu/sec/1713398 and unpack Flickr8k_text.zip and Flickr8k_Dataset.zip into one folder; "
    "CARD.md says more."
)

FIT: dict[str, Any] = {
    "target": "matches",
    "columns": {"image": Image(size=32, patch=8), "caption": Text(max_tokens=48), "image_id": None},
    "modality_dropout": 0.0,  # one modality alone cannot tell
    "dropout": 0.0,
    "lr": 5e-4,
    "patience": 20,  # the first epochs stay at chance
}
"""What `benchmarks/train.py` gives to `FusionPredictor`, for the tables below DIR/pairs."""
TABLES = "pairs"
"""The folder below DIR that `FIT` is for."""


def read_captions(data: bytes, name: str) -> dict[str, list[str]]:
    """Photo → its captions in their order, from `image,caption` (CSV) or lines `photo#number<TAB>caption`."""
    text = data.decode("utf-8", "replace")  # what is no UTF-8 fails the digest
    if name.endswith(".csv"):
        pairs = list(csv.reader(io.StringIO(text, newline="")))[1:]
    else:
        pairs = [line.split("\t", 1) for line in text.splitlines()]
    captions: dict[str, list[str]] = {}
    for photo, *caption in pairs:
        captions.setdefault(photo.partition("#")[0], []).extend(caption)
    return captions


def read_texts(folder: Path) -> dict[str, dict[str, list[str]]]:
    """Split → photo → its captions, of either layout, verified."""
    name = next((name for name in LAYOUTS if any(folder.rglob(name))), "")
    if not name:
        raise TableError(f"{folder}: expected {' or '.join(LAYOUTS)}, found neither. {WHERE}")
    captions = read_captions(read_file(folder, name), name)
    photos = {
        split: read_file(folder, listed).decode("utf-8", "replace").split() for split, listed in LAYOUTS[name].items()
    }
    texts = {split: {photo: captions.get(photo, []) for photo in names} for split, names in photos.items()}
    lines = {f"{split}/{p}": "\n".join(c).encode() for split, of_split in texts.items() for p, c in of_split.items()}
    verify(lines, TEXTS_SHA256, f"{folder}: captions of {name} and the photos of each split")
    return texts


def read_photo(path: Path) -> bytes:
    """The photo as it is, or, where a side is longer than `SIDE`, the middle of it at `SIDE` × `SIDE` pixels.

    Raises:
        TableError: the file is no photo.
    """
    data = path.read_bytes()
    try:
        with PILImage.open(io.BytesIO(data), formats=["JPEG"]) as image:
            image.load()  # all of it: a photo that was cut short is found here
            if max(image.size) <= SIDE:
                return data
            small = ImageOps.fit(image.convert("RGB"), (SIDE, SIDE))
    except (OSError, PILImage.DecompressionBombError) as error:
        raise TableError(f"{path}: expected a JPEG photo ({error}); get the file anew.") from error
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def photo_rows(folder: Path, captions: Mapping[str, Sequence[str]]) -> list[Row]:
    """One row for each photo: image, captions, image_id.

    Raises:
        TableError: a photo is not there.
    """
    paths = {path.name: path for path in sorted(folder.rglob("*.jpg"))}
    lacking = [name for name in captions if name not in paths]
    if lacking:
        raise TableError(
            f"{folder}: {len(lacking):,} of {len(captions):,} photos are not there, the first {lacking[0]}. {WHERE}"
        )
    return [
        {"image": read_photo(paths[name]), "captions": list(own), "image_id": name.removesuffix(".jpg")}
        for name, own in captions.items()
    ]


def pair_rows(photos: Sequence[Row], split: str, seed: int) -> list[Row]:
    """Each photo with its captions (outside train with one of them, drawn), and as often with one of another photo."""
    rows: list[Row] = []
    for i, photo in enumerate(photos):
        rng = counted_rng(seed, f"flickr8k/{split}", i)
        own = photo["captions"]
        for caption in own if split == "train" else [_drawn(own, rng)]:
            for matches, shown in (("yes", caption), ("no", _foreign(photos, own, rng))):
                rows.append(
                    {"image": photo["image"], "caption": shown, "matches": matches, "image_id": photo["image_id"]}
                )
    return rows


def _foreign(photos: Sequence[Row], own: Sequence[str], rng: np.random.Generator) -> str:
    """A drawn caption of a drawn photo that is, word for word, none of `own`."""
    caption: str = own[0]
    while caption in own:
        caption = _drawn(_drawn(photos, rng)["captions"], rng)
    return caption


def _drawn(things: Sequence[Any], rng: np.random.Generator) -> Any:
    return things[int(rng.integers(len(things)))]


def convert(out: Path, source: Path | None, work: Path, seed: int = 0) -> None:
    """Write the three tables of photos below `out` and those of pairs below `out/pairs`."""
    folder = source_folder(source, work, where=WHERE)
    photos = {split: photo_rows(folder, captions) for split, captions in read_texts(folder).items()}
    write_tables(out, photos, ROWS)
    write_tables(out / "pairs", {split: pair_rows(rows, split, seed) for split, rows in photos.items()}, PAIRS)


def main(arguments: list[str] | None = None) -> int:
    """Command line; 2 where the source cannot be used."""
    parser = parser_of(__doc__, "flickr8k.tar, or a folder with captions, lists of photos and photos; no download")

    def run(options: argparse.Namespace, work: Path) -> None:
        convert(options.out, options.source, work, options.seed)

    return run_recipe(parser, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
