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
    folder: Path, inputs: Sequence[str], clusters: Sequence[str] = (), cluster_of: Callable[[Any], str] = str
) -> None:
    """PeekError if training or validation rows of a folder are test rows, or belong to a cluster of test rows: equal `cluster_of`
    of a column of `clusters`. Compares digests of all inputs; answers are not read.

    Raises:
        PeekError: more than `MOST_SHARED` of a table's rows are test rows; a picture, say, has rows on both sides; or a table
            lacks a column.
    """
    test, groups = _looked_at(folder / "test.parquet", inputs, clusters, cluster_of)
    known = set(test)
    for split in ("train", "valid"):
        path = folder / f"{split}.parquet"
        rows, own = _looked_at(path, inputs, clusters, cluster_of)
        shared = sum(row in known for row in rows) / max(1, min(len(rows), len(test)))
        if shared > MOST_SHARED:
            raise PeekError(
                f"{path}: {shared:.0%} of its rows are rows of test.parquet; what is learned or chosen on "
                "them is learned or chosen on the test split. Convert the data again."
            )
        for name in clusters:
            both = own[name] & groups[name]
            if both:
                raise PeekError(f"{path}: {len(both)} of {name} are in test.parquet too; split the data by {name}.")


def _looked_at(
    path: Path, inputs: Sequence[str], clusters: Sequence[str], cluster_of: Callable[[Any], str]
) -> tuple[list[bytes], dict[str, set[str]]]:
    """A digest of the inputs of each row, and the clusters; in batches, since a run's peak of memory is told."""
    from pyarrow import parquet

    columns = list(dict.fromkeys([*inputs, *clusters]))
    file = parquet.ParquetFile(path)
    lacking = [name for name in columns if name not in file.schema_arrow.names]
    if lacking:
        raise PeekError(f"{path}: no column {', '.join(lacking)}; train, valid and test must have the same inputs.")
    digests = []
    groups: dict[str, set[str]] = {name: set() for name in clusters}
    for batch in file.iter_batches(256, columns=columns):
        for row in batch.to_pylist():
            digests.append(hashlib.sha256(repr([row[name] for name in inputs]).encode()).digest())
            for name, found in groups.items():
                found.add(cluster_of(row[name]))
    return digests, groups


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
