"""The splits of a data set, and the refusal of any that would let a choice be made on test rows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

MOST_SHARED = 0.01
"""Of the smaller table: a training or validation table with a larger share of test rows was drawn from them, in part."""


class PeekError(Exception):
    """A run would have learned from test rows, or chosen something on them."""


def refuse_test_rows(
    folder: Path, inputs: Sequence[str], cluster: str = "", cluster_of: Callable[[Any], str] = str
) -> None:
    """PeekError if training or validation rows of a folder are test rows, or belong to a cluster of test rows: equal `cluster_of`
    of the column `cluster`. Compares digests of all inputs; answers are not read.

    Raises:
        PeekError: more than `MOST_SHARED` of a table's rows are test rows; a picture, say, has rows on both sides; or a table
            lacks a column.
    """
    columns = [*inputs, *([cluster] if cluster else [])]
    rows = {split: _rows(folder / f"{split}.parquet", columns) for split in ("train", "valid", "test")}
    digests = {split: [_digest([row[name] for name in inputs]) for row in own] for split, own in rows.items()}
    groups = {split: {cluster_of(row[cluster]) for row in own} if cluster else set() for split, own in rows.items()}
    test = set(digests["test"])
    for split in ("train", "valid"):
        path = folder / f"{split}.parquet"
        shared = sum(row in test for row in digests[split]) / max(1, min(len(rows[split]), len(rows["test"])))
        if shared > MOST_SHARED:
            raise PeekError(
                f"{path}: {shared:.0%} of its rows are rows of test.parquet; what is learned or chosen on "
                "them is learned or chosen on the test split. Convert the data again."
            )
        both = groups[split] & groups["test"]
        if both:
            raise PeekError(f"{path}: {len(both)} of {cluster} are in test.parquet too; split the data by {cluster}.")


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Of these columns alone."""
    from pyarrow import parquet

    lacking = [name for name in columns if name not in parquet.read_schema(path).names]
    if lacking:
        raise PeekError(f"{path}: no column {', '.join(lacking)}; train, valid and test must have the same inputs.")
    found: list[dict[str, Any]] = parquet.read_table(path, columns=list(columns)).to_pylist()
    return found


def _digest(cells: Sequence[Any]) -> bytes:
    return hashlib.sha256(repr(cells).encode()).digest()


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
