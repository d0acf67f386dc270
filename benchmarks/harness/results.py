"""The CSV of a table: one row a run, written whole, by one process at a time.

All runs of a data set share their clusters, which are long: `clusters.json` beside the CSV has each once, a row its digest.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

CLUSTERS = "clusters.json"


def append(path: Path, row: Mapping[str, Any]) -> None:
    """One more run, in place of an older one of the same data set, model and seed."""
    row = {**row, "clusters": _kept_once(path.with_name(CLUSTERS), row.get("clusters") or "")}
    mine = str(row["data"]), str(row["model"]), str(row["seed"])
    with _alone(path):
        rows: list[Mapping[str, Any]] = [r for r in _lines(path) if (r["data"], r["model"], r["seed"]) != mine]
        rows.append(row)
        names = dict.fromkeys(name for r in reversed(rows) for name in r)  # the newest columns, then older ones
        with _renamed_to(path) as file:
            writer = csv.DictWriter(file, list(names), restval="")
            writer.writeheader()
            writer.writerows(rows)


def read(path: Path) -> list[dict[str, str]]:
    """The runs of a CSV, with their clusters; none if it is not there. ValueError without the clusters that a row names."""
    rows = _lines(path)
    # after the rows: a writer adds clusters before the row that names them
    texts = {"": "", **_texts(path.with_name(CLUSTERS))}
    if missing := {row.get("clusters") or "" for row in rows} - texts.keys():
        raise ValueError(
            f"{path} names clusters {', '.join(sorted(missing))}, which {CLUSTERS} beside it lacks; copy both files"
        )
    return [{**row, "clusters": texts[row.get("clusters") or ""]} for row in rows]


def _lines(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _texts(path: Path) -> dict[str, str]:
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _kept_once(path: Path, clusters: str) -> str:
    """The digest under which the file has these clusters from now on; none for none."""
    if not clusters:
        return ""
    digest = hashlib.sha256(clusters.encode()).hexdigest()[:12]
    with _alone(path):
        texts = _texts(path)
        if digest not in texts:
            with _renamed_to(path) as file:
                json.dump({**texts, digest: clusters}, file, indent=0, sort_keys=True)
    return digest


@contextmanager
def _renamed_to(path: Path) -> Iterator[TextIO]:
    """A file that takes the place of another when it is whole."""
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("w", newline="") as file:
        yield file
    part.replace(path)


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
