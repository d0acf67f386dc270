"""Make the MELD tables: what is said in a dialogue of the series Friends, by whom, and with which emotion.

    python datasets/meld/convert.py --out DIR                  # downloads three CSV files, verified
    python datasets/meld/convert.py --out DIR --source PATH    # … from a folder (or archive) with them

Writes train.parquet, valid.parquet and test.parquet with the columns utterance, speaker, emotion, sentiment, dialogue_id,
utterance_id, start, end, season, episode. Nothing is drawn by --seed. See CARD.md.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
import sys
from pathlib import Path
from typing import Any

from graphfusion.data.download import download
from graphfusion.data.recipe import Row, read_file, run_plain, source_folder, write_tables
from graphfusion.errors import TableError
from graphfusion.schema import Tabular, Text

ADDRESS = "https://raw.githubusercontent.com/declare-lab/MELD/2d2011b409d3ca2d7e94460cd007d434b1d0a102/data/MELD"
FILES = {
    "train_sent_emo.csv": "d2fa2d6529cf03cac2989efec05c9b27d8fd2f4c8fc5974c7ae88aa537fa02db",
    "dev_sent_emo.csv": "2e89c6f8aa182d6f62f8c6331aece905ac7273ca4999660bfb5213e1d0370c1c",
    "test_sent_emo.csv": "8d37103938f7067600839fe29d5a114a6cd1bcdafb75bec101e06464c5006888",
}
"""File below `ADDRESS` → SHA-256."""
PARTS = {"train": "train", "valid": "dev", "test": "test"}
"""Split → what the source calls it."""
ROWS = {"train": 9_989, "valid": 1_109, "test": 2_610}
TIME = re.compile(r"(\d+):(\d\d):(\d\d),(\d+)")
LOST_APOSTROPHE = re.compile(r"(?<=[A-Za-z])\?(?=(?:s|ve|re|ll)\b)")
"""A question mark inside a contraction, as in `I?ve`; elsewhere between letters it may be meant."""

FIT: dict[str, Any] = {
    "target": "emotion",
    "columns": {
        "utterance": Text(),
        "speaker": Tabular(values="category"),
        **dict.fromkeys(("sentiment", "dialogue_id", "utterance_id", "start", "end", "season", "episode")),
    },
}
"""What `benchmarks/train.py` gives to `FusionPredictor`. `sentiment` follows from the emotion and is no input."""


def read_rows(data: bytes, part: str) -> list[Row]:
    """Rows of one file; numbers of dialogues begin with its name, as each file counts from 0."""
    return [
        {
            "utterance": LOST_APOSTROPHE.sub("’", line["Utterance"]),
            "speaker": line["Speaker"],
            "emotion": line["Emotion"],
            "sentiment": line["Sentiment"],
            "dialogue_id": f"{part}/{line['Dialogue_ID']}",
            "utterance_id": int(line["Utterance_ID"]),
            "start": seconds(line["StartTime"]),
            "end": seconds(line["EndTime"]),
            "season": int(line["Season"]),
            "episode": int(line["Episode"]),
        }
        for line in csv.DictReader(io.StringIO(data.decode(), newline=""))
    ]


def seconds(time: str) -> float:
    """Seconds of `hours:minutes:seconds,milliseconds`, the form of subtitles; milliseconds are a whole number (`,28` is 28)."""
    found = TIME.fullmatch(time)
    if found is None:
        raise TableError(f"{time!r}: expected a time like 00:16:21,940.")
    hours, minutes, whole, milliseconds = map(int, found.groups())
    return 3600 * hours + 60 * minutes + whole + milliseconds / 1000


def read_verified(folder: Path, name: str) -> bytes:
    """Contents of the file of that name at or below `folder`.

    Raises:
        TableError: it is not there or has another SHA-256.
    """
    data = read_file(folder, name)
    found = hashlib.sha256(data).hexdigest()
    if found != FILES[name]:
        raise TableError(
            f"{name} in {folder}: expected SHA-256 {FILES[name]}, got {found}; take the file at {ADDRESS}/{name}, with its "
            "line ends as they are."
        )
    return data


def fetch(work: Path) -> None:
    """Download the three files into `work`."""
    for name, sha256 in FILES.items():
        download(f"{ADDRESS}/{name}", work / name, sha256)


def convert(out: Path, source: Path | None, work: Path) -> None:
    """Write the three tables below `out`."""
    folder = source_folder(source, work, fetch)
    tables = {split: read_rows(read_verified(folder, f"{part}_sent_emo.csv"), part) for split, part in PARTS.items()}
    write_tables(out, tables, ROWS)


def main(arguments: list[str] | None = None) -> int:
    """Command line; 2 where the source cannot be used."""
    return run_plain(__doc__, "folder or archive with the three files …_sent_emo.csv", convert, arguments)


if __name__ == "__main__":
    sys.exit(main())
