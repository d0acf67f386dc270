"""Make the CMU-MOSI tables: text, audio and video features of a sentence in a film review, and its polarity.

    python datasets/cmu_mosi/convert.py --out DIR                  # downloads seven CSV files, verified
    python datasets/cmu_mosi/convert.py --out DIR --source PATH    # … from a folder (or archive) with them, or with
                                                                   #   mosi_train.npz and mosi_test.npz
    python datasets/cmu_mosi/convert.py --out DIR --around 3       # with what is said before and after

Writes train.parquet, valid.parquet and test.parquet with the columns text, audio, video, sentence, label, video_id,
utterance; `--around` adds text_before, text_after and so on. Nothing is drawn by --seed. See CARD.md.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from graphfusion.data import counted_rng
from graphfusion.data.download import download
from graphfusion.data.recipe import Row, parser_of, read_file, run_recipe, source_folder, verify, write_tables
from graphfusion.errors import TableError
from graphfusion.schema import Features

ADDRESS = (
    "https://raw.githubusercontent.com/soujanyaporia/multimodal-sentiment-analysis/"
    "948cf07c74d99085333ee0caf32e4220fe7d9951/data"
)
"""The last commit that has the features as CSV; later ones have them as pickles, which are not read: a pickle runs code."""
FILES = {
    "transcripts.csv": "e7689e6d70720addd2a6b316419d245a68839c32b014ff426c406063ee777466",
    "text_train.csv": "73770b6302ad0f7a51f4eddcae6788efde4d0b6802e09f78249d5b538d1c1d67",
    "text_test.csv": "f3b735070bf07ceff7a6ef6c8f4c32757e988de484e35bd6d38b2aecef851a59",
    "audio/audio_train0.csv": "5435398a54664e7b00304587dc59ae84a438852be033c2a2fba779588624a2a1",
    "audio/audio_test0.csv": "ddd17eeefd3d951d51d4e2ef8a0d132652d8161e1886f71eb7262b7a14bffff6",
    "video/video_train0.csv": "b6efc0413132d627efd06f67f1706830e775e90af9a75696f535c48dbc73f12f",
    "video/video_test0.csv": "cab836253d81100f59d533fa2ff65cd53c486be3ec9fd82203c5e25a7a77265f",
}
"""File below `ADDRESS` → SHA-256."""
ROWS_SHA256 = "8a1a15121d5974f4e2a2298b4e0ce1ce001f5fa728d267a32591c489b27477bd"
"""Of all rows of both official splits, the same from CSV and npz."""
ROWS = {"train": 1_279, "valid": 168, "test": 752}
LABELS = ("negative", "positive")
MODALITIES = ("text", "audio", "video")
NEIGHBOURS = tuple(f"{name}_{side}" for name in MODALITIES for side in ("before", "after"))
AROUND = 3
"""Utterances before and after that `AROUND_FIT` is for."""
TYPES = pa.schema(
    [
        *((name, pa.list_(pa.float32())) for name in MODALITIES),
        ("sentence", pa.string()),
        ("label", pa.string()),
        ("video_id", pa.string()),
        ("utterance", pa.int64()),
    ]
)

FIT: dict[str, Any] = {
    "target": "label",
    "columns": {**{name: Features() for name in MODALITIES}, "sentence": None, "video_id": None, "utterance": None},
    "epochs": 10,
}
"""What `benchmarks/train.py` gives to `FusionPredictor`."""
AROUND_FIT: dict[str, Any] = {
    **FIT,
    "columns": {**FIT["columns"], **{name: Features() for name in NEIGHBOURS}},
    "modality_dropout": 0.5,  # a training sentence's own text tells its label: half the time the others have to
}
"""The same with `--around`. Written down, and committed, before a test row was read with it."""
CHOOSE_EPOCH = False
"""The features know the training labels: validation rows tell nothing about the test, so the last epoch is kept."""


def rows_of_csv(folder: Path, split: str) -> list[Row]:
    """Rows of an official split from the CSV files: a line of `text_*` begins with the number of its transcript, one of the
    other two ends with the label.

    Raises:
        TableError: a file is not there or not of this form.
    """
    transcripts = _lines(folder, "transcripts.csv")
    text = _lines(folder, f"text_{split}.csv")
    audio, video = (_lines(folder, f"{name}_{split}0.csv") for name in ("audio", "video"))
    rows = []
    try:
        for (number, *t), (*a, _), (*v, _) in zip(text, audio, video, strict=True):
            name, sentence, _, label = transcripts[int(number)]
            video_id, utterance = name.rsplit("_", 1)
            rows.append(_row((t, a, v), label, video_id, utterance, sentence))
    except (ValueError, IndexError, TypeError) as error:
        raise TableError(f"{folder}: the CSV files of {split} are not of the source's form ({error}).") from error
    return rows


def rows_of_npz(folder: Path, split: str) -> list[Row]:
    """Rows of an official split from `mosi_<split>.npz`, which has an array for each column.

    Raises:
        TableError: an array is not there, holds objects (numpy stores them as pickles), or the file is no npz.
    """
    name = f"mosi_{split}.npz"
    try:
        with np.load(io.BytesIO(read_file(folder, name)), allow_pickle=False) as file:
            columns = [file[key] for key in (*MODALITIES, "label", "video_id", "utt", "text_str")]
        return [_row((t, a, v), *facts) for t, a, v, *facts in zip(*columns, strict=True)]
    except (ValueError, IndexError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise TableError(
            f"{name} in {folder}: expected plain arrays, cannot read it ({error}). Pickles are refused, as they run code. "
            "Without --source, the same data is downloaded as CSV."
        ) from error


def _row(features: Sequence[Any], label: Any, video_id: Any, utterance: Any, sentence: Any) -> Row:
    vectors = {name: np.array(values, "<f4") for name, values in zip(MODALITIES, features, strict=True)}
    polarity = LABELS[int(label)]
    facts = {"sentence": str(sentence), "label": polarity, "video_id": str(video_id), "utterance": int(utterance)}
    return {**vectors, **facts}


def read_rows(folder: Path) -> dict[str, list[Row]]:
    """Official split → its rows, each video in the order of its utterances, verified."""
    read = rows_of_npz if any(folder.rglob("mosi_*.npz")) else rows_of_csv
    rows = {
        split: sorted(read(folder, split), key=lambda row: (row["video_id"], row["utterance"]))
        for split in ("train", "test")
    }
    verify({_name(split, r): _bytes(r) for split in rows for r in rows[split]}, ROWS_SHA256, f"rows of {folder}")
    return rows


def _name(split: str, row: Row) -> str:
    return f"{split}/{row['video_id']}/{row['utterance']}"


def _bytes(row: Row) -> bytes:
    return b"".join(row[name].tobytes() for name in MODALITIES) + f"{row['label']} {row['sentence']}".encode()


def _lines(folder: Path, name: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(read_file(folder, name).decode("utf-8", "replace"), newline="")))


def hold_out(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Training and validation rows of the official training split: a tenth of the videos is held out, the same ones
    whatever `--seed` is.
    """
    videos = sorted({row["video_id"] for row in rows})
    held = set(counted_rng(0, "cmu_mosi/valid").choice(videos, len(videos) // 10, replace=False))
    return [r for r in rows if r["video_id"] not in held], [r for r in rows if r["video_id"] in held]


def with_neighbours(rows: Sequence[Row], around: int) -> list[Row]:
    """Each row with the features of up to `around` utterances before it, and after it, in its video, the nearest first, (n, width)
    a modality and side; None where the video has none.
    """
    place = {(row["video_id"], row["utterance"]): row for row in rows}
    steps = range(1, around + 1)
    made = []
    for row in rows:
        beside = [[place.get((row["video_id"], row["utterance"] + sign * k)) for k in steps] for sign in (-1, 1)]
        near = [[other[name].tolist() for other in side if other] or None for name in MODALITIES for side in beside]
        made.append({**row, **dict(zip(NEIGHBOURS, near, strict=True))})
    return made


def fetch(work: Path) -> None:
    """Download the CSV files into `work`."""
    for name, sha256 in FILES.items():
        download(f"{ADDRESS}/{name}", work / name, sha256)


def convert(out: Path, source: Path | None, work: Path, around: int = 0) -> None:
    """Write the three tables below `out`; see `with_neighbours` for `around`.

    Raises:
        TableError: the source is not the published one, or `around` is negative.
    """
    if around < 0:
        raise TableError(f"--around: expected a number of utterances, 0 or more, got {around}.")
    rows = read_rows(source_folder(source, work, fetch))
    train, valid = hold_out(rows["train"])
    tables, types = {"train": train, "valid": valid, "test": rows["test"]}, TYPES
    if around:
        tables = {split: with_neighbours(own, around) for split, own in tables.items()}
        for name in NEIGHBOURS:
            types = types.append(pa.field(name, pa.list_(pa.list_(pa.float32()))))
    write_tables(out, tables, ROWS, types)


def main(arguments: list[str] | None = None) -> int:
    """Command line; 2 where the source cannot be used."""
    parser = parser_of(__doc__, "folder or archive with the CSV files, or with mosi_train.npz and mosi_test.npz")
    parser.add_argument(
        "--around", type=int, default=0, help="utterances before and after each that are in its row too (default 0)"
    )

    def run(options: argparse.Namespace, work: Path) -> None:
        convert(options.out, options.source, work, options.around)

    return run_recipe(parser, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
