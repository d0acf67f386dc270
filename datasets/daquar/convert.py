"""Make the DAQUAR tables: a photo of a room, a question about it, the answer as one string.

    python datasets/daquar/convert.py --out DIR --source PATH    # daquar.tar or a folder of its files

Writes train.parquet, valid.parquet and test.parquet with the columns image, question, answer, image_id. See CARD.md.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graphfusion.data import counted_rng
from graphfusion.data.recipe import digest, folder_with, run_plain, source_folder, verify, write_tables
from graphfusion.errors import TableError
from graphfusion.schema import Image

QUESTIONS = "all_qa_pairs.txt"
LISTS = {"train": "train_images_list.txt", "test": "test_images_list.txt"}
TEXTS_SHA256 = "d7b881427ab5840fa29170fb6cb6cf6a8fce28c3c8756e548bd399a94992b21f"
PHOTOS_SHA256 = "80391b98b7e1dd0ddbad8683acbc78ad21b60243cf2d745718bec477b1fdb190"
ROWS = {"train": 6_121, "valid": 674, "test": 5_673}
IMAGE = re.compile(r"image\d+")

WHERE = (
    f"Expected {QUESTIONS}, {', '.join(LISTS.values())} (the DAQUAR page of the Max Planck Institute for Informatics: "
    "datasets.d2.mpi-inf.mpg.de/mateusz14visual-turing) and images/image1.jpg to image1449.jpg (the labelled photos of NYU "
    "Depth v2, reduced to 160 pixels); CARD.md says more."
)

FIT: dict[str, Any] = {
    "target": "answer",
    "columns": {"image_id": None, "image": Image(size=32, patch=8)},  # pixels tell little here: few nodes for them
    "lr": 1e-3,
    "dropout": 0.2,  # 910 classes in 6,121 rows: the defaults overfit from the sixth epoch on
    "modality_dropout": 0.2,
    "label_smoothing": 0.1,
}
"""What `benchmarks/train.py` gives to `FusionPredictor`. The classes are the answers of the training rows."""


def read_lines(path: Path) -> list[str]:
    """Lines without the blanks around them, however they end.

    Raises:
        TableError: the file is not there.
    """
    if not path.is_file():
        raise TableError(f"{path}: no such file. {WHERE}")
    text = path.read_bytes().decode("utf-8", "replace")  # what is no UTF-8 fails the digest
    return [line.strip() for line in text.strip().splitlines()]


def read_texts(folder: Path) -> dict[str, list[str]]:
    """The lines of the questions and of both image lists by the name of their file, verified."""
    texts = {name: read_lines(folder / name) for name in (QUESTIONS, *LISTS.values())}
    verify({name: "\n".join(lines).encode() for name, lines in texts.items()}, TEXTS_SHA256, str(folder))
    return texts


def read_photos(folder: Path, images: Sequence[str]) -> dict[str, bytes]:
    """The bytes of each image, as they are. Where they are not those of the card, a note on standard error says so:
    whoever reduces the photos anew gets other bytes.

    Raises:
        TableError: one is not there.
    """
    paths = {image: folder / "images" / f"{image}.jpg" for image in images}
    lacking = [path.name for path in paths.values() if not path.is_file()]
    if lacking:
        raise TableError(
            f"{folder / 'images'}: {len(lacking):,} of {len(paths):,} photos are not there, the first {lacking[0]}. {WHERE}"
        )
    photos = {image: path.read_bytes() for image, path in paths.items()}
    if digest(photos) != PHOTOS_SHA256:
        print(
            f"note: {folder / 'images'}: not the photos of the card; scores may differ from its floors.",
            file=sys.stderr,
        )
    return photos


def make_rows(lines: Sequence[str], photos: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """One row for each pair of lines, question and answer, in their order.

    A question names its photo (`… in the image12 ?`). The number says nothing about what is seen and is taken out; the rest
    stays as it was typed.
    """
    rows = []
    for question, answer in zip(lines[::2], lines[1::2], strict=True):
        image = IMAGE.findall(question)[-1]
        cleaned = IMAGE.sub("image", question)
        rows.append({"image": photos[image], "question": cleaned, "answer": answer, "image_id": image})
    return rows


def split_images(train: Sequence[str], test: Sequence[str]) -> dict[str, set[str]]:
    """Image → split: the official lists, and for validation 10 % of the training images, the same ones whatever
    `--seed` is.
    """
    order = counted_rng(0, "daquar/valid").permutation(len(train))
    held = {train[i] for i in order[: len(train) // 10]}
    return {"train": set(train) - held, "valid": held, "test": set(test)}


def convert(out: Path, source: Path | None, work: Path) -> None:
    """Write the three tables below `out`."""
    folder = folder_with(source_folder(source, work, where=WHERE), QUESTIONS, WHERE)
    texts = read_texts(folder)
    train, test = (texts[name] for name in LISTS.values())
    rows = make_rows(texts[QUESTIONS], read_photos(folder, [*train, *test]))
    tables = {
        split: [row for row in rows if row["image_id"] in images] for split, images in split_images(train, test).items()
    }
    write_tables(out, tables, ROWS)


def main(arguments: list[str] | None = None) -> int:
    """Command line; 2 where the source cannot be used."""
    return run_plain(
        __doc__, "daquar.tar, or a folder with its texts and images/; there is no download", convert, arguments
    )


if __name__ == "__main__":
    sys.exit(main())
