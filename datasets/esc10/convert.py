"""Make the ESC-10 tables: 400 environmental sounds of ten classes, in the official five folds.

    python datasets/esc10/convert.py --out DIR --source esc10.tar    # … or its folder, or ESC-50's archive or folder
    python datasets/esc10/convert.py --out DIR                       # downloads ESC-50 (600 MB) and takes its ESC-10 part
    python datasets/esc10/convert.py --out DIR --source PATH --fold 3

Writes train.parquet (240 rows), valid.parquet and test.parquet (80 each) with the columns sound, label, fold, file. See CARD.md.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphfusion.data.download import download, extract
from graphfusion.data.recipe import digest, parser_of, run_recipe, source_folder, verify, write_tables
from graphfusion.errors import TableError
from graphfusion.schema import Audio

FOLDERS = {  # folder of ESC-10 → category of ESC-50
    "001_Dog_bark": "dog",
    "002_Rain": "rain",
    "003_Sea_waves": "sea_waves",
    "004_Baby_cry": "crying_baby",
    "005_Clock_tick": "clock_tick",
    "006_Person_sneeze": "sneezing",
    "007_Helicopter": "helicopter",
    "008_Chainsaw": "chainsaw",
    "009_Rooster": "rooster",
    "010_Fire_crackling": "crackling_fire",
}
FOLDS = (1, 2, 3, 4, 5)
PER_FOLD = 8
"""Sounds of each class in each fold."""
ROWS = {"train": 240, "valid": 80, "test": 80}

ESC50 = "https://github.com/karolpiczak/ESC-50/archive/refs/heads/master.zip"
"""The newest state of a branch: it may move, so names and classes are verified, not the archive."""
COLUMNS = ("filename", "fold", "category", "esc10")
"""Columns of meta/esc50.csv that are read."""
NAME = re.compile(r"(([1-5])-\d+-[A-Z])(?:-\d+)?\.(?:ogg|wav)")
"""`<fold>-<clip>-<take>.ogg` in ESC-10, `<fold>-<clip>-<take>-<target>.wav` in ESC-50."""
NAMES_SHA256 = "961f8ee76a0a8d84467d89742aaaaa536f7f1fb85e92b556a50df3e1a900051f"
"""`digest` of the 400 names `<label>/<fold>-<clip>-<take>`, the same in both layouts."""
SOUNDS_SHA256 = "41ba06de9ccd37fd3ea45d67d55b2e60d92a0db007166b79f524e80dcf0b29ce"
"""`digest` of the 400 files `<folder>/<file>` of esc10.tar."""

FIT: dict[str, Any] = {
    "target": "label",
    "columns": {"sound": Audio(max_seconds=5.0), "fold": None, "file": None},
    "epochs": 60,
    "batch_size": 16,
    "patience": 20,
}
"""What `benchmarks/train.py` gives to `FusionPredictor`."""


@dataclass(frozen=True)
class Sound:
    """One sound: its file's name and bytes, its class, and `clip`, the name without target and ending."""

    file: str
    label: str
    data: bytes

    @property
    def clip(self) -> str:
        """`<fold>-<clip>-<take>`, the same in both layouts."""
        return _parsed(self.file)[1]

    @property
    def fold(self) -> int:
        """Official fold, 1 to 5."""
        return int(_parsed(self.file)[2])


def read_sounds(folder: Path) -> list[Sound]:
    """The 400 sounds below `folder`, sorted by clip, from the ten folders of ESC-10 or from meta/esc50.csv and audio/ of ESC-50.

    Raises:
        TableError: neither is there, or it does not hold exactly the sounds of ESC-10.
    """
    files = {f"{p.parent.name}/{p.name}": p.read_bytes() for p in folder.rglob("*.ogg") if p.parent.name in FOLDERS}
    sounds = [_of_folder(name, data) for name, data in files.items()] if files else _from_esc50(folder)
    _check(sounds, folder)
    if files:
        verify(files, SOUNDS_SHA256, f"{folder}: folders of ESC-10")
    return sorted(sounds, key=lambda s: s.clip)


def _of_folder(name: str, data: bytes) -> Sound:
    folder, file = name.split("/")
    return Sound(file, _label(FOLDERS[folder]), data)


def _from_esc50(folder: Path) -> list[Sound]:
    """The sounds that meta/esc50.csv marks as ESC-10."""
    table = next(iter(sorted(folder.rglob("meta/esc50.csv"))), None)
    if table is None:
        raise TableError(
            f"{folder}: neither the folders of ESC-10 (001_Dog_bark/*.ogg, …) nor meta/esc50.csv of ESC-50 is there; "
            "see datasets/esc10/CARD.md for what the source looks like."
        )
    return [_read_row(row, table) for row in _read_csv(table) if row["esc10"].lower() == "true"]


def _read_csv(table: Path) -> list[dict[str, str]]:
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, restval=""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{table}: cannot be read as CSV: {error}") from error
    missing = [c for c in COLUMNS if c not in (rows[0] if rows else {})]
    if missing:
        raise TableError(f"{table}: expected the columns {', '.join(COLUMNS)}; {', '.join(missing)} not there.")
    return rows


def _read_row(row: dict[str, str], table: Path) -> Sound:
    file, category = row["filename"], row["category"]
    if category not in FOLDERS.values():
        raise TableError(f"{table}: {file!r} is marked as ESC-10 but of class {category!r}, which ESC-10 has not.")
    if _parsed(file)[2] != row["fold"]:
        raise TableError(f"{table}: {file!r} is in fold {row['fold']}, its name says {_parsed(file)[2]}.")
    path = table.parents[1] / "audio" / file
    if not path.is_file():
        raise TableError(f"{path}: no such file, but {table.name} lists it; unpack the whole archive of ESC-50.")
    return Sound(file, _label(category), path.read_bytes())


def _parsed(file: str) -> re.Match[str]:
    """The parts of a file's name; a name of another form, a path among them, is refused."""
    found = NAME.fullmatch(file)
    if not found:
        raise TableError(f"{file!r}: expected a name of the form 1-100032-A.ogg (ESC-10) or 1-100032-A-0.wav (ESC-50).")
    return found


def _label(category: str) -> str:
    return category.replace("_", " ")


def _check(sounds: Iterable[Sound], folder: Path) -> None:
    """TableError unless there are `PER_FOLD` of each class in each fold, with the names of ESC-10."""
    counts = Counter((s.label, s.fold) for s in sounds)
    for label in map(_label, FOLDERS.values()):
        for fold in FOLDS:
            if counts[label, fold] != PER_FOLD:
                raise TableError(
                    f"{folder}: expected {PER_FOLD} sounds of class {label!r} in fold {fold}, "
                    f"got {counts[label, fold]}; not exactly the sounds of ESC-10."
                )
    found = digest({f"{s.label}/{s.clip}": b"" for s in sounds})
    if found != NAMES_SHA256:
        raise TableError(f"{folder}: names with digest {found}, expected {NAMES_SHA256}; not the sounds of ESC-10.")


def fetch(work: Path) -> None:
    """Lay ESC-50 out below `work`."""
    archive = download(ESC50, work / "esc50.zip")
    extract(archive, work)
    archive.unlink()


def split_of(fold: int, test: int) -> str:
    """The split of a fold when `test` is the test fold: the next one, 5 → 1, is for validation."""
    return {test: "test", test % len(FOLDS) + 1: "valid"}.get(fold, "train")


def convert(out: Path, source: Path | None, fold: int, work: Path) -> None:
    """Write the three tables below `out`; `fold` is the test fold."""
    sounds = read_sounds(source_folder(source, work, fetch))
    tables: dict[str, list[dict[str, Any]]] = {split: [] for split in ROWS}
    for s in sounds:
        row = {"sound": s.data, "label": s.label, "fold": s.fold, "file": s.file}
        tables[split_of(s.fold, fold)].append(row)
    write_tables(out, tables, ROWS)


def main(arguments: list[str] | None = None) -> int:
    """Command line; 2 where the source cannot be used."""
    parser = parser_of(__doc__, "esc10.tar or its folder, or ESC-50-master.zip or its folder")
    parser.add_argument(
        "--fold", type=int, choices=FOLDS, default=1, help="test fold (default 1); the next one is for validation"
    )

    def run(options: argparse.Namespace, work: Path) -> None:
        convert(options.out, options.source, options.fold, work)

    return run_recipe(parser, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
