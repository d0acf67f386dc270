"""The one door for files of images and sounds: a path held under a root or bytes in, an open file within limits out."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import numpy as np
from numpy.typing import NDArray

from graphfusion.errors import MediaError

MAX_BYTES = 512 * 1024 * 1024
MOST_PARTS = 1_000_000
"""Chunks, pages, boxes or elements of a file that are walked over; one of empty ones would take minutes."""
FloatArray = NDArray[np.float32]
FileCell = str | os.PathLike[str] | bytes | bytearray | memoryview


def media_path(cell: str | os.PathLike[str], root: Path) -> Path:
    """The regular file that a cell names, held under `root`. Nothing is opened.

    Raises:
        MediaError: the path is an address, leaves `root` (also by a link), or is no regular file.
    """
    text = os.fspath(cell)
    if "\0" in text or "://" in text or text.startswith(("~", "\\\\")):
        raise _refused(text, f"is not a plain path below {root}; addresses and '~' are never followed.")
    try:
        root = root.resolve()
        path = (root / text).resolve()
        mode = path.stat().st_mode if path.is_relative_to(root) else None
    except FileNotFoundError as error:
        raise _refused(text, f"no such file below {root}.") from error
    except (OSError, ValueError, RuntimeError) as error:  # a name that no file can have; a circle of links
        raise _refused(text, f"cannot be looked at: {error}") from error
    if mode is None:
        raise _refused(text, f"leads outside {root}; pass media_root= a folder that holds all media files.")
    if not stat.S_ISREG(mode):
        raise _refused(text, "is no regular file (a folder, a pipe or a device).")
    return path


def open_media(cell: FileCell, root: Path, limit: int = MAX_BYTES) -> BinaryIO:
    """The content of a path or of bytes, open for reading; at most `limit` bytes.

    Raises:
        MediaError: as `media_path`; the file cannot be opened, or is larger.
    """
    if isinstance(cell, str | os.PathLike):
        path = media_path(cell, root)
        try:
            file, size = _open_regular(path)
        except OSError as error:
            raise _refused(os.fspath(cell), f"cannot be read: {error}") from error
    else:
        file, size = io.BytesIO(cell), memoryview(cell).nbytes
    if size > limit:
        file.close()
        reason = f"{size:,} bytes; at most {limit:,} are read."
        raise _refused(os.fspath(cell), reason) if isinstance(cell, str | os.PathLike) else MediaError(reason)
    return file


def _open_regular(path: Path) -> tuple[BinaryIO, int]:
    """A regular file and its size; it never waits for a pipe that has taken the place of the file since it was seen."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
    about = os.fstat(handle)
    if not stat.S_ISREG(about.st_mode):
        os.close(handle)
        raise OSError("no regular file any more")
    return os.fdopen(handle, "rb"), about.st_size


def is_file_cell(cell: Any) -> TypeGuard[FileCell]:
    """Whether a cell is a path or the bytes of a file."""
    return isinstance(cell, str | os.PathLike | bytes | bytearray | memoryview)


def unwrap(cell: Any) -> Any:
    """The bytes of a mapping with `bytes`, else the path of one with `path`, else the cell."""
    if isinstance(cell, Mapping) and ("bytes" in cell or "path" in cell):
        inner = cell.get("bytes")
        return cell.get("path") if inner is None else inner
    return cell


@contextmanager
def naming(cell: Any) -> Iterator[None]:
    """Names the file of `cell`, if it has one, in a MediaError that is raised inside."""
    try:
        yield
    except MediaError as error:
        path = cell.get("path") if isinstance(cell, Mapping) else cell
        if error.file or not isinstance(path, str | os.PathLike):
            raise
        raise _refused(os.fspath(path), str(error)) from error


def _refused(file: str, reason: str) -> MediaError:
    shown = file if len(file) <= 200 else file[:200] + "…"
    error = MediaError(f"{shown!r}: {reason}")
    error.file = shown
    return error


def as_array(cell: Any, what: str) -> NDArray[Any]:
    """A numeric numpy array of a cell that is an array, a tensor or nested lists of numbers."""
    if hasattr(cell, "detach"):
        cell = cell.detach().cpu().numpy()
    if not isinstance(cell, np.ndarray | list | tuple):
        raise MediaError(f"{what}: cannot be read from {type(cell).__name__} {str(cell)[:60]!r}.")
    try:
        array = np.asarray(cell)
    except ValueError as error:
        raise MediaError(f"{what}: the numbers do not form an array: {error}") from error
    if array.dtype != bool and not np.issubdtype(array.dtype, np.number):
        raise MediaError(f"{what}: expected numbers, got an array of {array.dtype}.")
    return array
