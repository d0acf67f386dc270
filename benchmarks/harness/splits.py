"""The splits of a data set, and the refusal of any that would let a choice be made on test rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

MOST_SHARED = 0.01
"""A training or validation table with a larger share of test rows was drawn from them, in part."""


class PeekError(Exception):
    """A run would have learned from test rows, or chosen something on them."""


def refuse_test_rows(folder: Path, inputs: Sequence[str]) -> None:
    """PeekError if training or validation rows of a folder are test rows. Compares digests of all inputs; no answer is read.

    Raises:
        PeekError: more than `MOST_SHARED` of a table's rows are test rows, or a table lacks an input column.
    """
    test = set(_row_digests(folder / "test.parquet", inputs))
    for split in ("train", "valid"):
        rows = _row_digests(folder / f"{split}.parquet", inputs)
        shared = float(np.mean([row in test for row in rows]))
        if shared > MOST_SHARED:
            raise PeekError(
                f"{folder / split}.parquet: {shared:.0%} of its rows are rows of test.parquet; what is learned or chosen on "
                "them is learned or chosen on the test split. Convert the data again."
            )


def _row_digests(path: Path, inputs: Sequence[str]) -> list[bytes]:
    from graphfusion.data import read_table

    table = read_table(path)
    lacking = [name for name in inputs if name not in table.columns]
    if lacking:
        raise PeekError(f"{path}: no column {', '.join(lacking)}; train, valid and test must have the same inputs.")
    return [
        hashlib.sha256(b"\0".join(map(_bytes, row))).digest()
        for row in zip(*(table.column(name) for name in inputs), strict=True)
    ]


def _bytes(cell: Any) -> bytes:
    if isinstance(cell, bytes):
        return cell
    if isinstance(cell, dict):
        return b"\0".join(str(k).encode() + _bytes(v) for k, v in cell.items())
    return str(cell).encode() if isinstance(cell, str) or cell is None else np.asarray(cell).tobytes()


def tables_digest(folders: Sequence[Path]) -> str:
    """SHA-256 over the files of all splits: other rows are another data set."""
    total = hashlib.sha256()
    for folder in folders:
        for split in ("train", "valid", "test"):
            path = folder / f"{split}.parquet"
            total.update(_file_digest(path, path.stat().st_mtime_ns))
    return total.hexdigest()


@cache
def _file_digest(path: Path, _: int) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
