"""Make the easy-VQA tables: a picture of one coloured shape, a question about it, one of 13 answers.

    python datasets/easy_vqa/convert.py --out DIR                  # the installed package easy_vqa, or a download
    python datasets/easy_vqa/convert.py --out DIR --source PATH    # … an archive or a folder with train/questions.json

Writes train.parquet, valid.parquet and test.parquet with the columns image, question, answer, image_id. See CARD.md.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphfusion.data import counted_rng
from graphfusion.data.download import download, extract
from graphfusion.data.recipe import folder_with, read_files, run_plain, source_folder, verify, write_tables
from graphfusion.schema import Image

URL = "https://github.com/vzhou842/easy-VQA/archive/3b553bb7ff42a868d5f4cbe8c88255d7333c3c31.tar.gz"
SHA256 = "43489465f86e7c7e4e37ba4e1668b71fc3f6a466a135e6eb749ac52c5bd4cf49"
ROWS = {"train": 34_631, "valid": 3_944, "test": 9_673}
MARK = "train/questions.json"
WHERE = (
    "Pass as --source easy_vqa.tar.gz, the package easy-vqa of PyPI (packed, unpacked or installed) or a copy of "
    "github.com/vzhou842/easy-VQA."
)

FIT: dict[str, Any] = {
    "target": "answer",
    "columns": {"image_id": None, "image": Image(size=32, patch=4)},  # a shape spans several patches
    "modality_dropout": 0.0,  # no answer follows from one modality
    "dropout": 0.0,
    "epochs": 12,
    "patience": 12,
}
"""What `benchmarks/train.py` gives to `FusionPredictor`."""


def installed() -> Path | None:
    """The folder of the installed package easy_vqa, which is not imported; None if it is not there or has no data."""
    spec = importlib.util.find_spec("easy_vqa")
    places = map(Path, (spec and spec.submodule_search_locations) or ())
    return next((place for place in places if any(place.rglob(MARK))), None)


def fetch(work: Path) -> None:
    """Download the repository at the commit of `URL` and unpack it."""
    archive = download(URL, work / "easy_vqa.tar.gz")  # GitHub packs anew at will: the contents are verified instead
    extract(archive, work)


def read_source(folder: Path) -> dict[str, bytes]:
    """Questions and images of both official splits by their path below `folder`, verified."""
    files: dict[str, bytes] = {}
    for part in ("train", "test"):
        for pattern in ("questions.json", "images/*.png"):
            files |= read_files(folder, f"{part}/{pattern}")
    verify(files, SHA256, str(folder))
    return files


def make_rows(files: Mapping[str, bytes], part: str) -> list[dict[str, Any]]:
    """One row a question of an official split, in its order. Both splits number their images from 0, so that
    `image_id` names the split too.
    """
    return [
        {"image": files[f"{part}/images/{i}.png"], "question": question, "answer": answer, "image_id": f"{part}/{i}"}
        for question, answer, i in json.loads(files[f"{part}/questions.json"])
    ]


def held_out(images: list[str]) -> set[str]:
    """10 % of the training images, for validation: the same ones whatever `--seed` is."""
    order = counted_rng(0, "easy_vqa/valid").permutation(len(images))
    return {images[i] for i in order[: len(images) // 10]}


def convert(out: Path, source: Path | None, work: Path) -> None:
    """Write the three tables below `out`."""
    files = read_source(folder_with(source_folder(source or installed(), work, fetch), MARK, WHERE))
    official = make_rows(files, "train")
    held = held_out(sorted({row["image_id"] for row in official}))
    tables = {
        "train": [row for row in official if row["image_id"] not in held],
        "valid": [row for row in official if row["image_id"] in held],
        "test": make_rows(files, "test"),
    }
    write_tables(out, tables, ROWS)


def main(arguments: list[str] | None = None) -> int:
    """Command line; 2 where the source cannot be used."""
    return run_plain(
        __doc__, "an archive or a folder that holds train/questions.json, at any depth", convert, arguments
    )


if __name__ == "__main__":
    sys.exit(main())
