"""A folder of classes, one folder of media files for each → rows."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from graphfusion.data.media.kind import media_kind
from graphfusion.errors import TableError

SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}


def read_class_folder(folder: Path) -> list[dict[str, Any]]:
    """A row for each image, sound or video below `folder/<class>/`, in the order of the paths: its path, relative to `folder`,
    in the column `image`, `sound` or `video`, and its class in `label`. Which of them a file is, its ending says.

    A warning counts the files that are left out: those of another ending, hidden, or in no class folder.

    Raises:
        TableError: there is no such file, or the folders are splits (`train`, `test`) in place of classes.
    """
    rows: list[dict[str, Any]] = []
    left: list[str] = []
    for path in _files(folder):
        kind = media_kind(path)
        if kind is None or len(path.parts) < 2 or any(part.startswith((".", "__MACOSX")) for part in path.parts):
            left.append(str(path))
        else:
            rows.append({kind: str(path), "label": path.parts[0]})
    if not rows:
        raise TableError(
            f"{folder}: expected images, sounds or videos in a folder for each class, as {folder.name}/cat/1.png; found "
            f"{len(left)} other files. Pass a table that names the files if they are arranged in another way."
        )
    _refuse_splits(folder, {row["label"] for row in rows})
    if left:
        warnings.warn(
            f"{folder}: {len(rows)} files taken, {len(left)} left out that are no image, sound or video, hidden or in no "
            f"class folder, the first is {left[0]!r}.",
            stacklevel=4,
        )
    return rows


def _files(folder: Path) -> Iterator[PurePath]:
    """Files below a folder, relative to it, in order; linked folders are not entered."""
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            yield PurePath(place, name).relative_to(folder)


def _refuse_splits(folder: Path, labels: set[str]) -> None:
    if all(label.lower() in SPLITS for label in labels):
        raise TableError(
            f"{folder}: {', '.join(sorted(labels))} look like splits, not like classes; pass one as the table and one as "
            f"valid=, for example {str(folder / min(labels))!r}."
        )
