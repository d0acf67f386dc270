"""The CSV of a table: one row a run, written whole, by one process at a time."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def append(path: Path, row: Mapping[str, Any]) -> None:
    """One more run, in place of an older one of the same data set, model and seed."""
    mine = str(row["data"]), str(row["model"]), str(row["seed"])
    with _alone(path):
        rows: list[Mapping[str, Any]] = [r for r in read(path) if (r["data"], r["model"], r["seed"]) != mine]
        rows.append(row)
        names = dict.fromkeys(name for r in reversed(rows) for name in r)  # the newest columns, then older ones
        part = path.with_suffix(f".{os.getpid()}.part")
        with part.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(names), restval="")
            writer.writeheader()
            writer.writerows(rows)
        part.replace(path)


def read(path: Path) -> list[dict[str, str]]:
    """The runs of a CSV; none if it is not there."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Other processes wait; without `fcntl` (Windows) they do not."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
